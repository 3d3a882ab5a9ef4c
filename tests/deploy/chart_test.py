"""The Helm chart: what it renders is valid and hangs together. Usage: see chart.py."""
import copy
import glob
import json
import os
import subprocess
import sys
import tempfile
import unittest

import jsonschema
import kubernetes_validate
import yaml

from chart import CHART, KUBERNETES_VERSIONS, PROMTOOL, RENDERINGS, SOURCE, VALUES, bossd_config, container, helm, objects, of_kind, one, render, selects


def closed(schema):
    """The same schema without room for properties that it does not list."""
    schema = copy.deepcopy(schema)

    def close(node):
        if isinstance(node, dict):
            if "properties" in node:
                node.setdefault("additionalProperties", False)
            for child in node.values():
                close(child)

    close(schema)
    return schema


def own_schemas():
    """Of the kinds that Kubernetes does not have, by kind: what deploy/verify.sh tells its API server."""
    with open(os.path.join(SOURCE, "tests", "deploy", "cluster.yaml")) as file:
        kinds = [document["spec"] for document in yaml.safe_load_all(file) if document["kind"] == "CustomResourceDefinition"]
    return {spec["names"]["kind"]: (f"{spec['group']}/{spec['versions'][0]['name']}", closed(spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]))
            for spec in kinds}


class EveryRendering(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.renderings = {name: objects(values) for name, values in RENDERINGS.items()}

    def each(self):
        for name, rendered in self.renderings.items():
            with self.subTest(rendering=name):
                yield rendered

    def test_lint_has_nothing_to_say(self):
        for name, values in RENDERINGS.items():
            with self.subTest(rendering=name):
                done = helm("lint", "--strict", CHART, *[option for path in values for option in ("--values", path)])
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotIn("[WARNING]", done.stdout)

    def test_objects_follow_the_schemas_of_kubernetes_and_have_no_other_fields(self):
        own = own_schemas()
        for rendered in self.each():
            for (kind, name), document in rendered.items():
                if kind in own:
                    version, schema = own[kind]
                    self.assertEqual(document["apiVersion"], version)
                    jsonschema.validate(document["spec"], schema)
                    continue
                for version in KUBERNETES_VERSIONS:
                    try:
                        kubernetes_validate.validate(document, version, strict=True)
                    except Exception as error:  # pylint: disable=broad-except
                        self.fail(f"{kind}/{name} in {version}: {error}")

    def test_every_kind_is_there_that_should_be(self):
        base = {"StatefulSet", "Service", "ConfigMap", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"}
        more = {"monitoring": {"ServiceMonitor", "PrometheusRule"}, "hpa": {"HorizontalPodAutoscaler"}, "keda": {"ScaledObject"}}
        for name, rendered in self.renderings.items():
            kinds = {kind for kind, _ in rendered} - {"Pod"}  # of helm test
            self.assertEqual(kinds, base | more.get(name, set()), name)

    def test_pods_meet_the_restricted_standard_on_a_read_only_disk(self):
        for rendered in self.each():
            pods = [one(rendered, "StatefulSet")["spec"]["template"]["spec"], *[pod["spec"] for pod in of_kind(rendered, "Pod")]]
            for pod in pods:
                self.assertIs(pod["automountServiceAccountToken"], False)
                self.assertEqual(pod["securityContext"]["runAsUser"], 10001)
                self.assertEqual(pod["securityContext"]["fsGroup"], 10001)
                self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for key in ("hostNetwork", "hostPID", "hostIPC", "initContainers"):
                    self.assertNotIn(key, pod)
                for each in pod["containers"]:
                    context = each["securityContext"]
                    self.assertIs(context["allowPrivilegeEscalation"], False)
                    self.assertIs(context["privileged"], False)
                    self.assertIs(context["readOnlyRootFilesystem"], True)
                    self.assertIs(context["runAsNonRoot"], True)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    self.assertIn("memory", each["resources"]["limits"])
                    self.assertIn("cpu", each["resources"]["requests"])
            for account in of_kind(rendered, "ServiceAccount"):
                self.assertIs(account["automountServiceAccountToken"], False)
            # Nothing is writable but the volume.
            writable = [mount["name"] for mount in container(rendered)["volumeMounts"] if not mount.get("readOnly")]
            self.assertEqual(writable, ["data"])

    def test_no_secret_is_in_what_is_rendered(self):
        for rendered in self.each():
            self.assertEqual(of_kind(rendered, "Secret"), [])
            for variable in container(rendered)["env"]:
                self.assertNotRegex(variable["name"], "TOKEN|PASSWORD|SECRET")

    def test_selectors_find_the_servers_and_nothing_else(self):
        for rendered in self.each():
            labels = one(rendered, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
            selectors = [service["spec"]["selector"] for service in of_kind(rendered, "Service")]
            selectors += [one(rendered, "StatefulSet")["spec"]["selector"]["matchLabels"], one(rendered, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
                          one(rendered, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]]
            selectors += [constraint["labelSelector"]["matchLabels"]
                          for constraint in one(rendered, "StatefulSet")["spec"]["template"]["spec"]["topologySpreadConstraints"]]
            self.assertEqual(len(selectors), 8)
            for selector in selectors:
                self.assertTrue(selects(selector, labels), selector)
                for pod in of_kind(rendered, "Pod"):
                    self.assertFalse(selects(selector, pod["metadata"]["labels"]), selector)

    def test_names_of_ports_volumes_and_services_exist(self):
        for rendered in self.each():
            ports = {port["name"]: port["containerPort"] for port in container(rendered)["ports"]}
            for service in of_kind(rendered, "Service"):
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], ports)
            for rule in one(rendered, "NetworkPolicy")["spec"]["ingress"]:
                self.assertIn(rule["ports"][0]["port"], ports)
            spec = one(rendered, "StatefulSet")["spec"]
            self.assertIn(("Service", spec["serviceName"]), rendered)
            self.assertEqual(rendered["Service", spec["serviceName"]]["spec"]["clusterIP"], "None")
            volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]} | {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
            mounts = container(rendered)["volumeMounts"]
            self.assertEqual({mount["name"] for mount in mounts}, volumes)
            self.assertEqual(len({mount["mountPath"] for mount in mounts}), len(mounts))
            account = spec["template"]["spec"]["serviceAccountName"]
            self.assertIn(("ServiceAccount", account), rendered)

    def test_kubernetes_waits_longer_than_the_server_takes_to_stop(self):
        for rendered in self.each():
            config = bossd_config(rendered)
            pod = one(rendered, "StatefulSet")["spec"]["template"]["spec"]
            self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], config["drain-seconds"] + config["grace-seconds"] + 5)
            readiness = container(rendered)["readinessProbe"]
            self.assertGreaterEqual(config["drain-seconds"], readiness["periodSeconds"] * readiness["failureThreshold"])

    def test_probes_ask_for_start_life_and_readiness(self):
        for rendered in self.each():
            found = {}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                action = container(rendered)[probe]
                if "grpc" in action:
                    self.assertEqual(action["grpc"]["port"], 50051)
                    found[probe] = action["grpc"].get("service", "")
                else:
                    self.assertEqual(action["exec"]["command"][:2], ["bossctl", "health"])
                    found[probe] = " ".join(action["exec"]["command"][2:])
                # The kubelet's gRPC probes speak no TLS.
                self.assertEqual("grpc" in action, "tls-key" not in bossd_config(rendered))
            self.assertEqual(found, {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": ""})

    def test_the_network_policy_admits_clients_and_prometheus_and_lets_nothing_out_but_dns(self):
        for rendered in self.each():
            policy = one(rendered, "NetworkPolicy")["spec"]
            self.assertEqual(sorted(policy["policyTypes"]), ["Egress", "Ingress"])
            self.assertEqual([rule["ports"][0]["port"] for rule in policy["ingress"]], ["grpc", "metrics"])
            for rule in policy["ingress"]:
                self.assertTrue(rule["from"])
                self.assertNotIn({}, rule["from"])
                self.assertNotIn({"namespaceSelector": {}}, rule["from"])
            (egress,) = policy["egress"]
            self.assertEqual({(port["port"], port["protocol"]) for port in egress["ports"]}, {(53, "UDP"), (53, "TCP")})
            self.assertTrue(egress["to"])


class OneRendering(unittest.TestCase):
    def test_the_card_is_asked_for_and_its_node_chosen(self):
        gpu, cpu = objects(RENDERINGS["gpu"]), objects(RENDERINGS["cpu"])
        pod = one(gpu, "StatefulSet")["spec"]["template"]["spec"]
        self.assertEqual(container(gpu)["resources"]["limits"]["nvidia.com/gpu"], 1)
        self.assertEqual(pod["nodeSelector"], {"nvidia.com/gpu.present": "true"})
        self.assertEqual(pod["tolerations"], [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}])
        self.assertEqual(bossd_config(gpu)["device"], "cuda")
        self.assertTrue(container(gpu)["image"].endswith("-cuda"))
        self.assertNotIn("nvidia.com/gpu", container(cpu)["resources"]["limits"])
        self.assertEqual(bossd_config(cpu)["device"], "cpu")
        self.assertEqual(str(bossd_config(cpu)["threads"]), container(cpu)["resources"]["limits"]["cpu"])

    def test_secrets_come_from_those_that_exist(self):
        pod = one(objects(RENDERINGS["mtls"]), "StatefulSet")["spec"]["template"]["spec"]
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        self.assertEqual(secrets, {"tls": "boss-tls", "probe": "boss-probe"})
        tls = objects(RENDERINGS["tls"])
        pod = one(tls, "StatefulSet")["spec"]["template"]["spec"]
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        self.assertEqual(secrets, {"tls": "boss-tls", "access": "boss-access"})
        self.assertNotIn("insecure", bossd_config(tls))
        self.assertEqual(bossd_config(tls)["dataset-folder"], ["/datasets/photos"])
        allowed = one(tls, "NetworkPolicy")["spec"]["ingress"][0]["from"][1]["namespaceSelector"]["matchExpressions"][0]
        self.assertEqual(allowed, {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["frontend", "batch"]})

    def test_another_configuration_makes_other_pods(self):
        def checksum(*options):
            return one(objects(RENDERINGS["default"], *options), "StatefulSet")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

        self.assertEqual(checksum(), checksum("--set", "replicas=3"))
        self.assertNotEqual(checksum(), checksum("--set", "config.max-batch=16"))

    def test_numbers_texts_and_lists_become_toml(self):
        rendered = objects(RENDERINGS["default"], "--set", "config.features={a=/data/a.pt,b=/data/b.pt}", "--set-json", "config.max-message-bytes=67108864",
                           "--set-string", "config.precision=tf\\\"32", "--set", "config.allow-torchscript=true", "--set-json", "config.training-share=0.25")
        config = bossd_config(rendered)
        self.assertEqual(config["max-message-bytes"], 67108864)
        self.assertIsInstance(config["max-message-bytes"], int)
        self.assertEqual(config["training-share"], 0.25)
        self.assertEqual(config["features"], ["a=/data/a.pt", "b=/data/b.pt"])
        self.assertEqual(config["precision"], 'tf"32')
        self.assertIs(config["allow-torchscript"], True)

    def test_the_rules_and_the_dashboard_are_those_of_the_repository(self):
        rendered = objects(RENDERINGS["monitoring"])
        expected = {}
        for path in sorted(glob.glob(os.path.join(SOURCE, "deploy", "prometheus", "rules", "*.yml"))):
            if path.endswith("_test.yml"):
                continue
            with open(path) as file:
                groups = yaml.safe_load(file.read().replace("docs/operations.md#", "https://example.com/boss/docs/operations.md#"))["groups"]
            expected["boss-" + os.path.basename(path).removesuffix(".yml")] = groups
            names = [group["name"] for group in groups]
            self.assertEqual(len(set(names)), len(names))  # or the operator refuses the object
        self.assertIn("boss-alerts", expected)
        self.assertEqual({rule["metadata"]["name"]: rule["spec"]["groups"] for rule in of_kind(rendered, "PrometheusRule")}, expected)
        with open(os.path.join(SOURCE, "deploy", "grafana", "boss.json")) as file:
            self.assertEqual(json.loads(rendered["ConfigMap", "boss-dashboard"]["data"]["boss.json"]), json.load(file))

    def test_the_service_monitor_finds_the_metrics_service_alone(self):
        rendered = objects(RENDERINGS["monitoring"])
        monitor = one(rendered, "ServiceMonitor")["spec"]
        found = [service for service in of_kind(rendered, "Service") if selects(monitor["selector"]["matchLabels"], service["metadata"]["labels"])]
        self.assertEqual([service["metadata"]["name"] for service in found], ["boss-metrics"])
        self.assertEqual(monitor["endpoints"][0]["port"], found[0]["spec"]["ports"][0]["name"])
        labels = {relabeling["targetLabel"]: relabeling for relabeling in monitor["endpoints"][0]["relabelings"]}
        self.assertEqual(labels["job"]["replacement"], "boss")
        self.assertEqual(labels["instance"]["sourceLabels"], ["__meta_kubernetes_namespace", "__meta_kubernetes_pod_name"])

    def test_clients_that_balance_are_given_ready_replicas_alone(self):
        services = {service["metadata"]["name"]: service["spec"] for service in of_kind(objects(RENDERINGS["default"]), "Service")}
        balanced, single = services["boss-balanced"], services["boss-headless"]
        self.assertEqual((balanced["clusterIP"], single["clusterIP"]), ("None", "None"))
        self.assertFalse(balanced.get("publishNotReadyAddresses", False))
        self.assertTrue(single["publishNotReadyAddresses"])
        self.assertEqual(one(objects(RENDERINGS["default"]), "StatefulSet")["spec"]["serviceName"], "boss-headless")

    def test_the_models_of_the_image_can_be_left_out(self):
        self.assertTrue(bossd_config(objects(RENDERINGS["default"]))["seed-models"])
        self.assertEqual(bossd_config(objects(RENDERINGS["default"], "--set", "config.seed-models="))["seed-models"], "")

    def test_an_autoscaler_has_clients_connect_again(self):
        for name in ("hpa", "keda"):
            self.assertEqual(bossd_config(objects(RENDERINGS[name]))["max-connection-age-seconds"], 300)
            given = objects(RENDERINGS[name], "--set", "config.max-connection-age-seconds=60")
            self.assertEqual(bossd_config(given)["max-connection-age-seconds"], 60)
        self.assertNotIn("max-connection-age-seconds", bossd_config(objects(RENDERINGS["default"])))

    def test_an_autoscaler_scales_this_set_which_leaves_the_number_to_it(self):
        for name, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
            rendered = objects(RENDERINGS[name])
            scaler = one(rendered, kind)["spec"]
            target = scaler["scaleTargetRef"]
            self.assertEqual((target["apiVersion"], target["kind"]), ("apps/v1", "StatefulSet"))
            self.assertIn(("StatefulSet", target["name"]), rendered)
            self.assertNotIn("replicas", one(rendered, "StatefulSet")["spec"])
        metric = one(objects(RENDERINGS["hpa"]), "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]
        self.assertEqual(metric["target"], {"type": "AverageValue", "averageValue": "250m"})
        with open(os.path.join(CHART, "files", "prometheus-adapter.yaml")) as file:
            self.assertEqual(metric["metric"]["name"], yaml.safe_load(file)["rules"][0]["name"]["as"])

    def test_the_autoscalers_ask_for_the_wait_of_this_release(self):
        keda = one(objects(RENDERINGS["keda"]), "ScaledObject")["spec"]["triggers"][0]
        self.assertEqual(keda["metricType"], "AverageValue")  # of the sum, by the number of replicas
        self.assertEqual(keda["metadata"]["ignoreNullValues"], "false")  # then no data is an error, which keeps the replicas
        with open(os.path.join(CHART, "files", "prometheus-adapter.yaml")) as file:
            adapter = yaml.safe_load(file)["rules"][0]
        for template, value in {"<<.Series>>": "boss_sampling_queue_seconds_bucket", "<<.LabelMatchers>>": 'namespace="serving",pod=~"boss-0|boss-1"', "<<.GroupBy>>": "pod"}.items():
            self.assertIn(template, adapter["metricsQuery"])
            adapter["metricsQuery"] = adapter["metricsQuery"].replace(template, value)

        # boss-0 waits between 0.5 and 1 s; boss-1 is idle; the others are somebody else's.
        series = []
        for namespace, pod, quick, slow in (("serving", "boss-0", 0, 60), ("serving", "boss-1", 0, 0), ("serving", "other-0", 60, 0), ("elsewhere", "boss-0", 60, 0)):
            for bound, count in (("0.5", quick), ("1", quick + slow), ("+Inf", quick + slow)):
                series.append({"series": f'boss_sampling_queue_seconds_bucket{{namespace="{namespace}",pod="{pod}",le="{bound}"}}', "values": f"0+{count}x20"})
        rules = {"groups": [{"name": "queries", "rules": [{"record": "keda", "expr": keda["metadata"]["query"]}, {"record": "adapter", "expr": adapter["metricsQuery"]}]}]}
        tests = {"rule_files": ["rules.yml"], "tests": [
            {"interval": "1m", "input_series": series, "promql_expr_test": [
                {"expr": "keda", "eval_time": "10m", "exp_samples": [{"labels": "keda", "value": 0.95}]},
                {"expr": "adapter", "eval_time": "10m", "exp_samples": [{"labels": 'adapter{pod="boss-0"}', "value": 0.95}, {"labels": 'adapter{pod="boss-1"}', "value": 0}]}]},
            # An idle release waits for nothing; of one that is not scraped nothing is known.
            {"interval": "1m", "input_series": [{"series": each["series"], "values": "0x20"} for each in series],
             "promql_expr_test": [{"expr": "keda", "eval_time": "10m", "exp_samples": [{"labels": "keda", "value": 0}]}]},
            {"interval": "1m", "input_series": [], "promql_expr_test": [{"expr": "keda", "eval_time": "10m", "exp_samples": []}]}]}
        with tempfile.TemporaryDirectory(prefix="boss-chart-") as folder:
            for name, content in (("rules.yml", rules), ("test.yml", tests)):
                with open(os.path.join(folder, name), "w") as file:
                    yaml.safe_dump(content, file)
            done = subprocess.run([PROMTOOL, "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_long_names_stay_within_kubernetes_limits(self):
        for (_, name), document in objects(RENDERINGS["monitoring"], release="r" * 53).items():
            self.assertLessEqual(len(name), 52, document["kind"])  # and so a pod's name, or the label with its revision
            for value in document["metadata"]["labels"].values():
                self.assertLessEqual(len(value), 63)


class RefusedValues(unittest.TestCase):
    def refused(self, message, *options, values=("insecure.yaml",)):
        done = render([os.path.join(VALUES, name) for name in values], *options)
        self.assertNotEqual(done.returncode, 0, options)
        self.assertIn(message, done.stderr)

    def test_without_credentials_it_must_be_said_so(self):
        self.refused("until callers are told apart", values=())
        self.refused("until callers are told apart", "--set", "tls.existingSecret=boss-tls", values=())
        self.refused("until callers are told apart", "--set", "access.existingSecret=boss-access", values=())

    def test_contradictions(self):
        self.refused("exclude each other", "--set", "autoscaling.hpa.enabled=true,autoscaling.keda.enabled=true")
        self.refused("less than autoscaling.minReplicas", "--set", "autoscaling.hpa.enabled=true,autoscaling.minReplicas=5")
        self.refused("tls.clientCa needs tls.existingSecret", "--set", "tls.clientCa=true,tls.probeSecret=p")
        self.refused("tls.clientCa needs tls.probeSecret", "--set", "tls.clientCa=true,tls.existingSecret=s")
        self.refused("config.listen is set by other values", "--set", "config.listen=x")
        self.refused("gpu.count asks for cards", "--set", "gpu.count=1,config.device=cpu")
        self.refused("serviceAccount.name is required", "--set", "serviceAccount.create=false")

    def test_the_schema(self):
        for option in ("replicaCount=2", "replicas=-1", "replicas=two", "image.repository=", "image.digest=sha256:1", "image.pullPolicy=always", "lifecycle.graceSeconds=-1",
                       "lifecycle.marginSeconds=0", "log.level=loud", "reflection=maybe", "persistence.accessModes={ReadOnlyMany}", "persistence.size=big",
                       "probes.liveness.periodSeconds=0", "service.port=70000", "service.type=ExternalName", "networkPolicy.allowedNamespace={a}", "gpu.resource=gpu",
                       "podDisruptionBudget.maxUnavailable=0", "autoscaling.queueWaitSeconds=0", "autoscaling.keda.prometheusAddress=prometheus:9090",
                       "serviceMonitor.interval=often", "prometheusRule.runbookBase=https://example.com", "config.Max_Batch=1", "datasets[0].name=a", "tls.secret=a",
                       "updateStrategy.type=Recreate", "listenHost=10.0.0.1"):
            with self.subTest(value=option):
                self.refused("values don't meet the specifications of the schema", "--set", option)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[6:]])
