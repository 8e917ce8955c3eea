"""Every alert fires and stays silent as specified, and links to its runbook."""

import re
import runpy
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.deployment.monitoring import ROOT, groups, metrics_in, rules, run, write_rules

UNIT_TESTS = sorted((Path(__file__).parent / "rules").glob("*.yaml"))
ALERTS = rules("alert")
RUNBOOKS = {"en": ROOT / "docs" / "alerts.md", "es": ROOT / "docs" / "alertas.md"}


@cache
def expectations() -> list[tuple[str, list[dict[str, str]]]]:
    """Return each expectation of the unit tests: an alert, and the labels of each firing one."""
    expected = [
        each
        for path in UNIT_TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for each in test["promql_expr_test"]
        if 'alertstate="firing"' in each["expr"]
    ]
    return [
        (
            labels(each["expr"])["alertname"],
            [labels(sample["labels"]) for sample in each["exp_samples"]],
        )
        for each in expected
    ]


def labels(series: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)="([^"]*)"', series))


def headings(path: Path) -> list[str]:
    return re.findall(r"^### (\w+)$", path.read_text(), flags=re.MULTILINE)


@pytest.mark.deployment
def test_prometheus_accepts_the_rules(tmp_path):
    checked = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", write_rules(tmp_path))

    assert checked.returncode == 0, checked.stderr


@pytest.mark.deployment
@pytest.mark.parametrize("unit_test", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_pass_their_unit_tests(tmp_path, unit_test):
    write_rules(tmp_path)
    shutil.copy(unit_test, tmp_path)

    tested = run("promtool", "test", "rules", tmp_path / unit_test.name)

    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_firing_and_silent(alert):
    responses = [bool(firing) for name, firing in expectations() if name == alert]

    assert {True, False} <= set(responses)


@pytest.mark.parametrize("alert", ALERTS)
def test_annotations_use_only_labels_of_their_alert(alert):
    annotations = " ".join(ALERTS[alert]["annotations"].values())
    needed = set(re.findall(r"\{\{ ?\$labels\.(\w+)", annotations))

    for name, firing in expectations():
        if name == alert:
            assert all(needed <= response.keys() for response in firing)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_summary_severity_and_runbook(alert):
    rule = ALERTS[alert]

    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["for"]
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    assert page.endswith(f"/blob/main/{RUNBOOKS['en'].relative_to(ROOT)}")
    assert anchor in [heading.lower() for heading in headings(RUNBOOKS["en"])]
    assert anchor == alert.lower()


@pytest.mark.parametrize("language", RUNBOOKS)
def test_the_runbooks_have_the_order_of_the_alerts(language):
    assert headings(RUNBOOKS[language]) == list(ALERTS)


def test_alerts_of_two_environments_are_separate():
    """Aggregations keep the namespace; other series have it already."""
    for rule in [*ALERTS.values(), *rules("record").values()]:
        for kept in re.findall(r"\bby \(([^)]*)\)", rule["expr"]):
            assert "namespace" in kept.split(", "), rule


def test_no_rule_counts_metrics_of_another_service():
    """Each metric is selected by a label of its service, or was recorded with it."""
    own = {"service", "container", "deployment", "horizontalpodautoscaler", "cronjob", "job_name"}
    for rule in [*ALERTS.values(), *rules("record").values()]:
        for metric in metrics_in(rule["expr"]):
            if ":" not in metric:
                for selector in re.findall(rf"\b{metric}(\{{[^}}]*\}})?", rule["expr"]):
                    assert own & set(re.findall(r"(\w+)=", selector)), rule


def test_all_windows_of_a_ratio_have_the_same_expression():
    shapes = {
        re.sub(r"\[\w+\]", "[window]", rule["expr"])
        for name, rule in rules("record").items()
        if re.search(r"http_request_errors:ratio_rate(?!5m)", name)
    }

    assert len(shapes) == 1


@pytest.mark.parametrize("name", [name for name in rules("record") if "ratio_rate" in name])
def test_the_name_of_a_ratio_contains_its_window(name):
    windows = set(re.findall(r"\[(\w+)\]", rules("record")[name]["expr"]))

    assert windows <= {name.rpartition("ratio_rate")[2]}


def test_recorded_and_used_series_are_equal():
    dashboards = (ROOT / "k8s/components/monitoring/dashboard.json").read_text()
    expressions = " ".join(rule["expr"] for group in groups() for rule in group["rules"])
    used = set(re.findall(r"namespace_service:[\w:]+", expressions + dashboards))

    assert used == set(rules("record"))


def test_saturation_alerts_fire_before_gunicorn_accepts_no_more():
    gunicorn = runpy.run_path(str(ROOT / "config" / "gunicorn.conf.py"))
    threshold = int(ALERTS["ConversationServiceSaturated"]["expr"].rpartition(">")[2])

    assert threshold == 0.8 * gunicorn["workers"] * gunicorn["worker_connections"]
