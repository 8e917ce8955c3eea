"""The dashboard equals the output of its program and is valid for Grafana and Prometheus."""

import itertools
import re
import subprocess
import sys

import pytest
import yaml

from tests.deployment.monitoring import COMPONENT, DASHBOARD, dashboard, dashboard_queries, run

PANELS = dashboard()["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]


def test_the_dashboard_is_the_output_of_its_program():
    program = [sys.executable, COMPONENT / "dashboard.py"]

    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout

    assert printed == DASHBOARD.read_text(), "make dashboard"


def test_it_can_be_provisioned():
    shown = dashboard()

    assert shown["uid"] == "conversation-service"
    assert shown["schemaVersion"] >= 36  # of Grafana 9.0
    assert "id" not in shown  # the database of one Grafana


def test_it_works_with_any_selected_data_source():
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    sources = re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())

    assert variables["datasource"]["type"] == "datasource"
    assert set(sources) == {"${datasource}", "conversation-service"}


def test_it_has_only_panels_that_current_versions_support():
    assert {panel["type"] for panel in SHOWN} == {"timeseries", "stat"}


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_each_panel_describes_its_data(panel):
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"] or panel["type"] == "stat"


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_each_rate_uses_the_rate_interval(panel):
    for target in panel["targets"]:
        assert set(re.findall(r"\brate\([^[]*\[([^\]]*)\]", target["expr"])) <= {"$__rate_interval"}


def test_panels_have_unique_ids_and_do_not_overlap():
    cells = [
        (column, line)
        for place in (panel["gridPos"] for panel in PANELS)
        for column, line in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]

    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) == 23
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


@pytest.mark.deployment
def test_prometheus_accepts_every_query(tmp_path):
    queries = [
        {"record": f"query:{number}", "expr": query}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": queries}]}))

    checked = run("promtool", "check", "rules", path)

    assert checked.returncode == 0, checked.stderr
