#!/usr/bin/env bash
# Shows the chart to a real Kubernetes: builds its API server, controllers and scheduler (1.34.4) once, starts them with etcd on loopback addresses,
# installs, upgrades and rolls back the chart with helm, and lets kwok simulate the nodes, so that pods are scheduled and become ready. No container runs.
#
#   deploy/verify.sh [--cache FOLDER] [--keep]
#
# Needs Go 1.24 or later, python3 with venv, openssl, and etcd in PATH or Debian's apt-get. The first run takes about 15 minutes on
# two cores, later ones 5, and 4 GB of disk for Go's caches; what it built stays in FOLDER (default ${XDG_CACHE_HOME:-~/.cache}/boss-verify). --keep leaves the
# cluster's folder, with all logs. Ends with an error unless everything is as it should be.
set -euo pipefail

readonly kubernetes=1.34.4
readonly kwok=0.8.0

cache=${XDG_CACHE_HOME:-$HOME/.cache}/boss-verify
keep=false
while [ $# -gt 0 ]; do
  case "$1" in
    --cache) cache=${2:?--cache needs a folder}; shift 2 ;;
    --keep) keep=true; shift ;;
    *) echo "usage: $0 [--cache FOLDER] [--keep], got $1" >&2; exit 2 ;;
  esac
done
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$cache/bin"
cache=$(cd "$cache" && pwd)
export PATH="$cache/bin:$cache/tools/bin:$PATH"

say() { printf '\n== %s\n' "$*"; }
die() { echo "FAILED: $*" >&2; exit 1; }

# ---- What is needed ----

# kubernetes itself is a module that names its parts by v0.0.0; here they get the versions that were published with it.
build_kubernetes() {
  local module="$cache/kubernetes" part
  mkdir -p "$module"
  (
    cd "$module"
    export GOFLAGS="-mod=mod -buildvcs=false"
    rm -f go.mod go.sum
    go mod init boss.invalid/verify 2>/dev/null
    go mod edit -require "k8s.io/kubernetes@v$kubernetes"
    for part in $(go mod edit -json "$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')" \
        | python3 -c 'import json, sys; print(*(r["Path"] for r in json.load(sys.stdin)["Require"] if r["Version"] == "v0.0.0"))'); do
      go mod edit -replace "$part=$part@v0.${kubernetes#*.}"
    done
    go build -o "$cache/bin/" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$kubernetes -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${kubernetes:2:2}" \
      k8s.io/kubernetes/cmd/kube-{apiserver,controller-manager,scheduler}
  )
}

if [ ! -x "$cache/bin/kube-scheduler" ]; then
  say "building Kubernetes $kubernetes"
  build_kubernetes
fi
if [ ! -e "$cache/stages.yaml" ]; then
  say "building kwok $kwok"
  GOBIN="$cache/bin" go install "sigs.k8s.io/kwok/cmd/kwok@v$kwok"
  # What it does with nodes and pods comes in its module.
  stages=$(go mod download -json "sigs.k8s.io/kwok@v$kwok" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')/kustomize/stage
  for stage in node/fast/node-initialize node/heartbeat/node-heartbeat pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
    cat "$stages/$stage.yaml"
    echo ---
  done > "$cache/stages.yaml"
fi
if ! command -v etcd > /dev/null; then
  say "fetching etcd"
  (cd "$cache" && apt-get download -q etcd-server && dpkg -x etcd-server_*.deb etcd && ln -sf ../etcd/usr/bin/etcd bin/etcd)
fi
bash "$root/tests/deploy/install.sh" "$cache/tools"

# ---- The cluster ----

work=$(mktemp -d)
pids=()
stop() {
  local status=$?
  if [ "$status" -ne 0 ]; then tail -n 5 "$work"/*.log >&2 || true; fi
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2> /dev/null || true; done
  if "$keep"; then echo "logs: $work"; else rm -rf "$work"; fi
  exit "$status"
}
trap stop EXIT

free_ports() {
  python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in sockets))'
}
read -r etcd_port peer_port api_port kubelet_port < <(free_ports)

start() {
  local name=$1
  shift
  "$@" > "$work/$name.log" 2>&1 &
  pids+=($!)
}
# Until the command succeeds; for at most a minute.
until_ok() {
  local what=$1
  shift
  for _ in $(seq 300); do
    if "$@" > /dev/null 2>&1; then return; fi
    sleep 0.2
  done
  "$@" || die "$what"
}

say "starting etcd and Kubernetes $kubernetes"
openssl genrsa -out "$work/service-accounts.key" 2048 2> /dev/null
echo 'verify-token,admin,1,"system:masters"' > "$work/tokens.csv"
start etcd etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
  --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" --initial-cluster "default=http://127.0.0.1:$peer_port" --unsafe-no-fsync
start kube-apiserver kube-apiserver --etcd-servers "http://127.0.0.1:$etcd_port" --bind-address 127.0.0.1 --secure-port "$api_port" --cert-dir "$work/certificates" \
  --token-auth-file "$work/tokens.csv" --authorization-mode RBAC --endpoint-reconciler-type none --service-cluster-ip-range 10.96.0.0/16 \
  --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/service-accounts.key" --service-account-signing-key-file "$work/service-accounts.key"

cat > "$work/kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
clusters: [{name: verify, cluster: {server: "https://127.0.0.1:$api_port", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: verify-token}}]
contexts: [{name: verify, context: {cluster: verify, user: admin}}]
current-context: verify
CONFIG
export KUBECONFIG=$work/kubeconfig HELM_CONFIG_HOME=$work/helm HELM_CACHE_HOME=$work/helm HELM_DATA_HOME=$work/helm
until_ok "the API server does not become ready" kubectl get --raw /readyz
kubectl version | grep -i server

start kube-controller-manager kube-controller-manager --kubeconfig "$KUBECONFIG" --authentication-kubeconfig "$KUBECONFIG" --authorization-kubeconfig "$KUBECONFIG" --secure-port 0 \
  --leader-elect=false --service-account-private-key-file "$work/service-accounts.key" --use-service-account-credentials=false
start kube-scheduler kube-scheduler --kubeconfig "$KUBECONFIG" --authentication-kubeconfig "$KUBECONFIG" --authorization-kubeconfig "$KUBECONFIG" --secure-port 0 --leader-elect=false
start kwok kwok --kubeconfig "$KUBECONFIG" --config "$cache/stages.yaml" --manage-all-nodes --server-address "127.0.0.1:$kubelet_port"

kubectl apply -f "$root/tests/deploy/cluster.yaml"
kubectl wait --for condition=established crd --all --timeout 60s > /dev/null
until_ok "the nodes do not become ready" kubectl wait --for condition=ready node --all --timeout 1s

# ---- The chart ----

readonly chart=$root/deploy/helm/boss
readonly values=$root/tests/deploy/values
readonly kinds=statefulset,service,configmap,serviceaccount,poddisruptionbudget,networkpolicy,horizontalpodautoscaler,servicemonitor,prometheusrule,scaledobject,persistentvolumeclaim,pod

# Without what it says of the links to the rules and the dashboard.
helm() {
  command helm "$@" 2> >(grep -v 'found symbolic link' >&2)
}

say "helm lint --strict, and what the API server says of every set of values (dry run, strict)"
helm lint --strict --quiet "$chart" --values "$values/insecure.yaml"
overlays=(insecure.yaml tls.yaml mtls.yaml monitoring.yaml hpa.yaml keda.yaml)
for overlay in "${overlays[@]}"; do
  helm template boss "$chart" --namespace boss --values "$values/$overlay" > "$work/manifests.yaml"
  echo "-- $overlay"
  kubectl apply --dry-run=server --validate=strict --namespace boss -f "$work/manifests.yaml"
done
for overlay in cpu gpu; do
  helm template boss "$chart" --namespace boss --values "$chart/values-$overlay.yaml" --values "$values/insecure.yaml" > "$work/manifests.yaml"
  echo "-- values-$overlay.yaml"
  kubectl apply --dry-run=server --validate=strict --namespace boss -f "$work/manifests.yaml"
done

# field NAMESPACE KIND NAME PATH EXPECTED
field() {
  local got
  got=$(kubectl --namespace "$1" get "$2" "$3" -o "jsonpath=$4")
  [ "$got" = "$5" ] || die "$2/$3 in $1: $4 is $got, expected $5"
  echo "   $2/$3 $4 = $got"
}
ready() {
  kubectl --namespace "$1" rollout status statefulset/boss --timeout 600s | tail -n 1
}

# Simulated pods are ready at once, sooner than the controller looks: it would not count minReadySeconds from then.
say "helm install, in a namespace that enforces the restricted pod security standard"
helm install boss "$chart" --namespace boss --values "$chart/values-cpu.yaml" --values "$values/tls.yaml" --values "$values/monitoring.yaml" --set insecure=false,replicas=2,minReadySeconds=0
ready boss
kubectl --namespace boss get "$kinds"
field boss statefulset boss '{.spec.template.spec.terminationGracePeriodSeconds}' 60
field boss statefulset boss '{.status.readyReplicas}' 2
kubectl --namespace boss wait --for 'jsonpath={.status.disruptionsAllowed}=1' poddisruptionbudget/boss --timeout 30s
first_uid=$(kubectl --namespace boss get pod boss-0 -o 'jsonpath={.metadata.uid}')

say "helm upgrade: another grace time and batch"
helm upgrade boss "$chart" --namespace boss --reuse-values --set lifecycle.graceSeconds=90 --set config.max-batch=16 | grep -E 'STATUS|REVISION'
ready boss
field boss statefulset boss '{.spec.template.spec.terminationGracePeriodSeconds}' 120
kubectl --namespace boss get configmap boss -o 'jsonpath={.data.bossd\.toml}' | grep -x 'max-batch = 16'
[ "$(kubectl --namespace boss get pod boss-0 -o 'jsonpath={.metadata.uid}')" != "$first_uid" ] || die "the upgrade left the pod as it was"
field boss persistentvolumeclaim data-boss-0 '{.status.phase}' Bound

say "helm rollback"
helm rollback boss 1 --namespace boss
ready boss
field boss statefulset boss '{.spec.template.spec.terminationGracePeriodSeconds}' 60
if kubectl --namespace boss get configmap boss -o 'jsonpath={.data.bossd\.toml}' | grep max-batch; then die "the rollback left the configuration"; fi
helm history boss --namespace boss

say "values that the server must refuse"
if helm upgrade boss "$chart" --namespace boss --reuse-values --set persistence.size=60Gi > "$work/refused.txt" 2>&1; then die "a StatefulSet's volume template was changed"; fi
grep -o "Forbidden: updates to statefulset spec" "$work/refused.txt"
helm rollback boss 3 --namespace boss > /dev/null

say "a voluntary disruption: one pod at a time"
kubectl drain cpu-0 --ignore-daemonsets --delete-emptydir-data --timeout 60s
kubectl uncordon cpu-0
ready boss

say "on a card: the tainted node with a card is taken, and no other"
helm install gpu "$chart" --namespace gpu --values "$chart/values-gpu.yaml" --values "$values/insecure.yaml" --set fullnameOverride=boss,minReadySeconds=0 | grep -E 'STATUS|REVISION'
ready gpu
field gpu pod boss-0 '{.spec.nodeName}' gpu-0
field gpu pod boss-0 '{.spec.containers[0].resources.limits.nvidia\.com/gpu}' 1

say "autoscalers"
helm install hpa "$chart" --namespace hpa --values "$values/hpa.yaml" --set fullnameOverride=boss | grep STATUS
helm install keda "$chart" --namespace keda --values "$values/keda.yaml" --set fullnameOverride=boss | grep STATUS
kubectl --namespace hpa get horizontalpodautoscaler boss -o 'jsonpath={.spec.metrics[0].pods.metric.name} <= {.spec.metrics[0].pods.target.averageValue}{"\n"}'
kubectl --namespace keda get scaledobject boss -o 'jsonpath={.spec.triggers[0].metadata.query}{"\n"}'

say "helm uninstall: the volumes stay"
helm uninstall boss --namespace boss
kubectl --namespace boss wait --for delete pod/boss-0 pod/boss-1 --timeout 60s
field boss persistentvolumeclaim data-boss-0 '{.status.phase}' Bound
[ -z "$(kubectl --namespace boss get statefulset,service,networkpolicy,poddisruptionbudget -o name)" ] || die "something is left"

say "all as it should be"
