"""The dashboard is what its program prints, and Grafana and Prometheus can read it."""

import itertools
import re
import subprocess
import sys

import pytest
import yaml

from tests.deployment.monitoring import COMPONENT, DASHBOARD, dashboard, dashboard_queries, run

PANELS = dashboard()["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]


def test_it_is_what_its_program_prints():
    program = [sys.executable, COMPONENT / "dashboard.py"]

    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout

    assert printed == DASHBOARD.read_text(), "make dashboard"


def test_it_can_be_provisioned():
    shown = dashboard()

    assert shown["uid"] == "conversation-service"
    assert shown["schemaVersion"] >= 36  # of Grafana 9.0
    assert "id" not in shown  # the database of one Grafana


def test_it_runs_on_any_source_of_data_that_is_chosen():
    variables = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
    sources = re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())

    assert variables["datasource"]["type"] == "datasource"
    assert set(sources) == {"${datasource}", "conversation-service"}


def test_it_has_only_panels_that_current_versions_draw():
    assert {panel["type"] for panel in SHOWN} == {"timeseries", "stat"}


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_counts(panel):
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"] or panel["type"] == "stat"


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_rate_is_taken_over_what_the_chosen_time_allows(panel):
    for target in panel["targets"]:
        assert set(re.findall(r"\brate\([^[]*\[([^\]]*)\]", target["expr"])) <= {"$__rate_interval"}


def test_panels_have_places_and_ids_of_their_own():
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
def test_prometheus_can_read_every_query(tmp_path):
    queries = [
        {"record": f"query:{number}", "expr": query}
        for number, query in enumerate(dashboard_queries())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": queries}]}))

    checked = run("promtool", "check", "rules", path)

    assert checked.returncode == 0, checked.stderr
