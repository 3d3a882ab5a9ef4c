"""The rules of deploy/prometheus: Prometheus takes them, their unit tests hold, and what they name is there.

usage: rules_test.py PROMTOOL REPOSITORY
"""
import os
import re
import subprocess
import sys
import unittest

import metric_names

PROMTOOL, REPOSITORY = sys.argv[1:3]
RULES = os.path.join(REPOSITORY, "deploy/prometheus/rules")


def read(*path):
    with open(os.path.join(REPOSITORY, *path)) as file:
        return file.read()


def rules(file):
    """(kind, name, expression, the rule's text) of each rule."""
    for text in re.split(r"\n(?=      - (?:alert|record): )", read("deploy/prometheus/rules", file))[1:]:
        kind, name = re.match(r"      - (alert|record): (\S+)", text).groups()
        expression = re.search(r"\n        expr: (?:\|\n((?:          .*\n?)+)|(.*))", text)
        yield kind, name, expression.group(1) or expression.group(2), text


ALERTS = list(rules("alerts.yml"))
RECORDS = list(rules("recording.yml"))


class RulesTest(unittest.TestCase):
    def promtool(self, *arguments):
        result = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout + result.stderr

    def test_the_configuration_loads_both_files_of_rules(self):
        output = self.promtool("check", "config", os.path.join(REPOSITORY, "deploy/prometheus/prometheus.yml"))
        self.assertIn("2 rule files found", output)
        self.assertEqual([int(count) for count in re.findall(r"(\d+) rules found", output)],
                         [len(RECORDS), len(ALERTS)])

    def test_the_unit_tests_hold(self):
        for file in ("recording_test.yml", "alerts_test.yml"):
            self.promtool("test", "rules", os.path.join(RULES, file))

    def test_every_rule_is_tested(self):
        tested = read("deploy/prometheus/rules/recording_test.yml")
        for _, name, _, _ in RECORDS:
            self.assertRegex(tested, rf"expr: .*\b{re.escape(name)}\b", name)
        tested = read("deploy/prometheus/rules/alerts_test.yml")
        for _, name, _, _ in ALERTS:
            self.assertRegex(tested, rf"alertname: {name}\n      - eval_time: \S+\n        alertname: {name}\n"
                                     r"        exp_alerts:", name + " is not seen quiet and then firing")

    def test_every_alert_says_how_bad_it_is_and_what_to_do(self):
        self.assertEqual(len(ALERTS), len({name for _, name, _, _ in ALERTS}))
        headings = re.findall(r"^#+ (.*)$", read("docs/operations.md"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        for _, name, _, text in ALERTS:
            self.assertRegex(text, r"\n        labels: \{severity: (critical|warning|info)\}\n", name)
            for annotation in ("summary", "description"):
                self.assertRegex(text, rf'\n          {annotation}: ".+"\n', name)
            self.assertRegex(text, rf"\n          runbook_url: docs/operations\.md#{name.lower()}\n?", name)
            self.assertIn(name.lower(), anchors, "docs/operations.md has no such section")

    def test_what_is_named_is_there(self):
        metrics = metric_names.documented(os.path.join(REPOSITORY, "docs/metrics.md"))
        recorded = {name for _, name, _, _ in RECORDS}
        for _, name, expression, _ in RECORDS + ALERTS:
            self.assertEqual(metric_names.problems(expression, metrics, recorded), [], f"{name}: {expression}")
            self.assertNotEqual(metric_names.selectors(expression), [], f"{name}: {expression}")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
