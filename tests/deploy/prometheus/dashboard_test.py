"""The dashboard deploy/grafana/boss.json: well formed, and its expressions are PromQL about metrics that are there.

usage: dashboard_test.py PROMTOOL REPOSITORY
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import metric_names

PROMTOOL, REPOSITORY = sys.argv[1:3]
WIDTH = 24  # of Grafana's grid
HEIGHT = 32  # of it, in 1,200 pixels


def load():
    with open(os.path.join(REPOSITORY, "deploy/grafana/boss.json")) as file:
        return json.load(file)


DASHBOARD = load()
# A collapsed row holds its panels.
PANELS = [panel for outer in DASHBOARD["panels"] for panel in [outer, *outer.get("panels", [])]]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]


def cells(panel):
    grid = panel["gridPos"]
    return {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}


class DashboardTest(unittest.TestCase):
    def test_panels_have_names_of_their_own(self):
        ids = [panel["id"] for panel in PANELS]
        self.assertEqual(len(ids), len(set(ids)))
        titles = [panel["title"] for panel in PANELS]
        self.assertTrue(all(titles))
        for chart in CHARTS:
            letters = [target["refId"] for target in chart["targets"]]
            self.assertEqual(len(letters), len(set(letters)), chart["title"])

    def test_panels_lie_side_by_side(self):
        opened = [[row, *row["panels"]] for row in DASHBOARD["panels"] if row.get("panels")]
        for panels in [DASHBOARD["panels"], *opened]:
            taken = {}
            for panel in panels:
                for cell in cells(panel):
                    self.assertLess(cell[0], WIDTH, panel["title"])
                    self.assertNotIn(cell, taken, f"{panel['title']} lies on {taken.get(cell)}")
                    taken[cell] = panel["title"]

    def test_what_is_open_fits_on_a_screen(self):
        self.assertLessEqual(max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in DASHBOARD["panels"]), HEIGHT)

    def test_panels_explain_themselves(self):
        for chart in CHARTS:
            self.assertTrue(chart["description"].endswith("."), chart["title"])
            self.assertTrue(chart["fieldConfig"]["defaults"]["unit"], chart["title"])
            self.assertTrue(chart["targets"], chart["title"])
            for target in chart["targets"]:
                self.assertTrue(target["legendFormat"], chart["title"])

    def test_data_comes_from_the_chosen_source(self):
        variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
        self.assertEqual(list(variables), ["datasource", "job", "instance"])
        self.assertEqual(variables["datasource"]["query"], "prometheus")
        queries = [variables["job"], variables["instance"]]
        for part in queries + CHARTS + [target for chart in CHARTS for target in chart["targets"]]:
            self.assertEqual(part["datasource"], {"type": "prometheus", "uid": "${datasource}"})
        for chart in CHARTS:
            for target in chart["targets"]:
                for name, matchers in metric_names.selectors(target["expr"]):
                    self.assertIn(("job", "=", "$job"), matchers, f"{chart['title']}: {name}")
                    self.assertIn(("instance", "=~", "$instance"), matchers, f"{chart['title']}: {name}")

    def test_expressions_are_promql(self):
        # promtool checks expressions in rules alone. JSON is YAML.
        rules = [{"record": f"panel:{chart['id']}", "expr": metric_names.fill_in(target["expr"])}
                 for chart in CHARTS for target in chart["targets"]]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"groups": [{"name": f"panels-{i}", "rules": [rule]} for i, rule in enumerate(rules)]}, file)
            file.flush()
            result = subprocess.run([PROMTOOL, "check", "rules", "--lint=none", file.name], capture_output=True,
                                    text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(f"{len(rules)} rules found", result.stdout + result.stderr)

    def test_what_is_named_is_there(self):
        metrics = metric_names.documented(os.path.join(REPOSITORY, "docs/metrics.md"))
        for chart in CHARTS:
            for target in chart["targets"]:
                expression = target["expr"]
                self.assertEqual(metric_names.problems(expression, metrics, set()), [],
                                 f"{chart['title']}: {expression}")
                self.assertNotEqual(metric_names.selectors(expression), [], chart["title"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
