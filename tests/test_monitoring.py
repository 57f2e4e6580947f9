"""The dashboard and the alerts: they ask for metrics that there are, in PromQL that parses."""

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import promql_parser
import pytest
import yaml

from pipeline.run.metrics import METRICS

FOLDER = Path(__file__).parents[1] / "docs" / "monitoring"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = QUERIES + [(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES]


def selectors(expression):
    """The (name, labels) that a query asks for."""
    found = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))

    query = re.sub(r"\$__(rate_interval|range)\b", "5m", expression).replace("$model", ".*")
    promql_parser.walk(promql_parser.parse(query), pre_visit=visit)
    return found


ASKED = sorted({(name, frozenset(labels)) for _, expression in EXPRESSIONS for name, labels in selectors(expression)}, key=str)


def test_what_is_asked_for_of_ours_is_exported_with_those_labels():
    ours = {(name.removeprefix("ray_"), labels) for name, labels in ASKED if name.startswith("ray_ugrie_")}
    assert len(ours) > 10
    for name, labels in ours:
        assert name in METRICS
        assert labels <= {"model", *METRICS[name][2]}, name


def test_every_metric_of_ours_is_shown():
    shown = {name for _, expression in QUERIES for name, _ in selectors(expression)}
    assert {f"ray_{name}" for name in METRICS} - shown == set()


def test_what_is_asked_for_of_rays_is_what_its_own_dashboard_shows():
    panels = Path(find_spec("ray").origin).parent / "dashboard" / "modules" / "metrics" / "dashboards" / "default_dashboard_panels.py"
    rays = set(re.findall(r"\bray_\w+", panels.read_text()))
    asked = {name for name, _ in ASKED if name.startswith("ray_") and not name.startswith("ray_ugrie_")}
    assert {"ray_node_gpus_utilization", "ray_object_store_memory", "ray_node_mem_used_host"} <= asked
    assert asked - rays == set()


def test_other_names_are_recorded_by_a_rule():
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    assert {name for name, _ in ASKED if not name.startswith("ray_")} == recorded


def test_queries_group_by_labels_that_there_are():
    known = {"model", "instance", "ip", "Location", "GpuIndex"}.union(*(tags for _, _, tags in METRICS.values()))
    grouped = {
        label.strip()
        for _, expression in EXPRESSIONS
        for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        for label in group.split(",")
    }
    assert grouped - known == set()
    shown = {label for panel in PANELS for target in panel["targets"] for label in re.findall(r"{{(\w+)}}", target["legendFormat"])}
    assert shown - known == set()


def test_every_alert_says_what_it_is_and_the_page_what_to_do():
    page = (FOLDER / "README.md").read_text()
    for rule in RULES:
        if "alert" in rule:
            assert rule["annotations"].keys() == {"summary", "description"}
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert f"`{rule['alert']}`" in page


def test_every_metric_is_described():
    page = (FOLDER / "README.md").read_text()
    assert [name for name in METRICS if f"`ray_{name}`" not in page] == []


def test_panels_do_not_overlap_and_have_ids_of_their_own():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Prometheus")
def test_the_alerts_fire_when_they_should():
    done = subprocess.run(["promtool", "test", "rules", "alerts_test.yaml"], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
