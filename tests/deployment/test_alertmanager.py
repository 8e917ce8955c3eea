"""The example for Alertmanager notifies the right receivers, once per incident."""

import re

import pytest
import yaml

from tests.deployment.monitoring import ROOT, rules, run

PATH = ROOT / "k8s" / "examples" / "alertmanager.yaml"


@pytest.mark.deployment
def test_alertmanager_accepts_the_configuration():
    checked = run("amtool", "check-config", PATH)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.deployment
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["service=conversation-service", "severity=critical"], "conversation-pager"),
        (["service=conversation-service", "severity=warning"], "conversation-chat"),
        (["service=conversation-service"], "mail"),
        (["service=message-service", "severity=critical"], "mail"),
    ],
)
def test_severity_selects_the_receiver(labels, receiver):
    route = run("amtool", "config", "routes", "test", f"--config.file={PATH}", *labels)

    assert route.stdout.strip() == receiver


@pytest.mark.parametrize("alert", rules("alert"))
def test_every_alert_has_labels_of_its_service_and_environment(alert):
    """Alerts that keep the labels of their targets have `service` from there."""
    rule = rules("alert")[alert]

    assert rule["labels"].get("service") == "conversation-service" or (
        "by (namespace, service" in rule["expr"]
        or "namespace_service:" in rule["expr"]
        or alert == "ConversationServiceTargetDown"
    )


def test_alerts_named_by_inhibit_rules_exist():
    matchers = [
        matcher
        for rule in yaml.safe_load(PATH.read_text())["inhibit_rules"]
        for matcher in rule["source_matchers"] + rule["target_matchers"]
        if matcher.startswith("alertname")
    ]

    assert matchers
    for matcher in matchers:
        pattern = matcher.partition('"')[2].rstrip('"')
        matching = [alert for alert in rules("alert") if re.fullmatch(pattern, alert)]
        alternatives = re.search(r"\((.*)\)", pattern)
        assert len(matching) >= (alternatives.group(1).count("|") + 1 if alternatives else 1)
