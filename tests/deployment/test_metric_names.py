"""Rules and dashboard ask for nothing that the service does not tell: renaming fails here."""

import re
from importlib import import_module
from itertools import chain

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from tests.deployment.monitoring import CLUSTER, dashboard_queries, metrics_in, rules

RULES = chain(rules("alert").values(), rules("record").values())
ASKED = sorted(set().union(*map(metrics_in, [*dashboard_queries(), *(r["expr"] for r in RULES)])))
METRICS = ["conversation_service.observability.metrics", "conversations.metrics"]
# Those of Prometheus itself.
TOLD_BY_NOBODY = {"up"}


def told() -> set[str]:
    """Return every name that a sample of ours can have, whether or not there is one yet."""
    for module in METRICS:
        import_module(module)
    suffixes = {
        "counter": ["_total"],
        "gauge": [""],
        "histogram": ["_bucket", "_count", "_sum"],
    }
    return {
        family.name + suffix
        for family in REGISTRY.collect()
        for suffix in suffixes.get(family.type, [])
    }


def test_every_metric_is_on_the_dashboard_or_in_a_rule():
    declared = {
        collector._name
        for module in METRICS
        for collector in vars(import_module(module)).values()
        if isinstance(collector, MetricWrapperBase)
    }
    used = {re.sub("_(total|bucket|count|sum)$", "", name) for name in ASKED}

    assert declared - used == set()


def told_by_the_cluster() -> set[str]:
    families = text_string_to_metric_families(CLUSTER.read_text())
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("metric", ASKED)
def test_whatever_is_asked_for_is_told_by_somebody(metric):
    if ":" in metric:
        assert metric in rules("record")
    elif re.match("kube_|container_", metric):
        assert metric in told_by_the_cluster()
    else:
        assert metric in told() | TOLD_BY_NOBODY
