"""Reads a page of OpenMetrics 1.0.0 as prometheus_client does, which takes nothing malformed.

usage: open_metrics.py FILE

Prints one JSON object: families by name, each with type, unit, help and samples [name, labels, value].
"""
import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        page = file.read()
    families = {}
    try:
        for family in text_string_to_metric_families(page):
            families[family.name] = {
                "type": family.type, "unit": family.unit, "help": family.documentation,
                "samples": [[sample.name, sample.labels, sample.value] for sample in family.samples],
            }
    except ValueError as error:
        sys.exit(f"no OpenMetrics: {error}")
    json.dump(families, sys.stdout)


main()
