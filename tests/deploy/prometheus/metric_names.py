"""What expressions of PromQL name, and what docs/metrics.md says is there."""
import re

# Of Prometheus itself, and of the kubelet: the server has no part in them.
FOREIGN = re.compile(r"up$|container_")
# That Prometheus adds to every series of a target; in Kubernetes where it is, too.
TARGET_LABELS = {"job", "instance", "namespace", "pod"}
SUFFIXES = ("_bucket", "_sum", "_count")


class Documented:
    """One row of a table in docs/metrics.md."""

    def __init__(self, name, kind, labels, row):
        self.name, self.kind, self.labels, self.row = name, kind, labels, row


def documented(path):
    """By name, with the three names of a histogram's series."""
    metrics = {}
    with open(path) as file:
        for line in file:
            match = re.match(r"\| `([a-z_]+)` \| (counter|gauge|histogram) \| ([^|]*)\|", line)
            if not match:
                continue
            name, kind = match.group(1), match.group(2)
            metric = Documented(name, kind, set(re.findall(r"`([a-z_]+)`", match.group(3))), line)
            for series in [name + suffix for suffix in SUFFIXES] if kind == "histogram" else [name]:
                if series in metrics:
                    raise ValueError(f"{path} has {series} twice")
                metrics[series] = metric
    return metrics


def fill_in(expression, interval="5m", job="boss", instance=".*"):
    """The expression of a dashboard with values in place of Grafana's variables."""
    for variable, value in (("$__rate_interval", interval), ("$job", job), ("$instance", instance)):
        expression = expression.replace(variable, value)
    if "$" in expression:
        raise ValueError(f"an unknown variable: {expression}")
    return expression


def selectors(expression):
    """(name, [(label, operator, value), ...]) of each metric that is named."""
    found = []
    pattern = re.compile(r'([a-zA-Z_][a-zA-Z0-9_:]*)\s*(?:\{((?:[^"}]|"[^"]*")*)\})?')
    for name, matchers in pattern.findall(expression):
        if re.match(r"boss_|process_|up$|container_", name) or ":" in name:
            found.append((name, re.findall(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)))
    return found


def without_strings(expression):
    return re.sub(r'"[^"]*"', '""', expression)


def grouping_labels(expression):
    """Labels in by (...), on (...) and their like."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", without_strings(expression))
    return {label.strip() for one in lists for label in one.split(",") if label.strip()}


def problems(expression, metrics, recorded):
    """What the expression names and nobody has: metrics, labels of a metric, values of a label."""
    found, labels = [], TARGET_LABELS | {"le"}
    for name, matchers in selectors(expression):
        if FOREIGN.match(name) or name in recorded:
            continue
        if name not in metrics:
            found.append(f"no metric {name}")
            continue
        metric = metrics[name]
        labels |= metric.labels
        for label, operator, value in matchers:
            if label in TARGET_LABELS:
                continue
            if label not in metric.labels:
                found.append(f"{name} has no label {label}")
            elif label not in ("method", "code", "operation"):
                found += [f"{name} has no {label}={one}" for one in value.split("|") if f"`{one}`" not in metric.row]
    if not any(name in recorded for name, _ in selectors(expression)):
        found += [f"nothing has the label {label}" for label in grouping_labels(expression) - labels]
    return found
