"""Rules and dashboard query only metrics that exist."""

import re
from importlib import import_module
from itertools import chain

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from tests.deployment.monitoring import CLUSTER, dashboard_queries, metrics_in, rules

RULES = chain(rules("alert").values(), rules("record").values())
QUERIED = sorted(set().union(*map(metrics_in, [*dashboard_queries(), *(r["expr"] for r in RULES)])))
METRICS = ["conversation_service.observability.metrics", "conversations.metrics"]
# Metrics of Prometheus itself.
BUILT_IN = {"up"}


def exposed() -> set[str]:
    """Return every possible name of a sample of the service."""
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
    used = {re.sub("_(total|bucket|count|sum)$", "", name) for name in QUERIED}

    assert declared - used == set()


def exposed_by_the_cluster() -> set[str]:
    families = text_string_to_metric_families(CLUSTER.read_text())
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("metric", QUERIED)
def test_every_queried_metric_is_exposed(metric):
    if ":" in metric:
        assert metric in rules("record")
    elif re.match("kube_|container_", metric):
        assert metric in exposed_by_the_cluster()
    else:
        assert metric in exposed() | BUILT_IN
