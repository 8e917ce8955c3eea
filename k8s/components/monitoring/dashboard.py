"""Print the dashboard as Grafana reads it; `make dashboard` writes dashboard.json."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

WIDTH = 24  # columns, of Grafana's grid
HEIGHT = {"stat": 4, "timeseries": 8}

OURS = 'service="conversation-service",namespace=~"$namespace"'
# Of kube-state-metrics and cAdvisor, which use the label `service` for themselves.
CONTAINER = 'container="conversation-service",namespace=~"$namespace"'
# Of the publisher and the deliverer of events.
PUBLISHER = OURS.replace("conversation-service", "conversation-service-events")
DELIVERER = OURS.replace("conversation-service", "conversation-service-webhooks")
SCALER = 'horizontalpodautoscaler="conversation-service",namespace=~"$namespace"'
PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A panel. `queries` has the query for each legend."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    width: int = 8
    text: str = ""
    at_most: float | None = None
    thresholds: dict[float | None, str] = field(default_factory=lambda: {None: "green"})

    def json(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {"unit": self.unit, "thresholds": self._thresholds()}
        if self.kind == "timeseries":
            defaults |= {"min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}
        if self.at_most is not None:
            defaults["max"] = self.at_most
        return {
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": PROMETHEUS,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": OPTIONS[self.kind],
            "targets": [
                {
                    "refId": chr(ord("A") + number),
                    "datasource": PROMETHEUS,
                    "expr": query,
                    "legendFormat": legend,
                }
                for number, (legend, query) in enumerate(self.queries.items())
            ],
        }

    def _thresholds(self) -> dict[str, Any]:
        steps = [{"value": value, "color": color} for value, color in self.thresholds.items()]
        return {"mode": "absolute", "steps": steps}


OPTIONS: dict[str, dict[str, Any]] = {
    "stat": {
        "colorMode": "value",
        "graphMode": "area",
        "reduceOptions": {"calcs": ["lastNotNull"]},
    },
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
}


def stat(title: str, unit: str, query: str, legend: str = "", **options: Any) -> Panel:
    return Panel(title, unit, {legend: query}, kind="stat", width=4, **options)


def rate(metric: str, matchers: str = "") -> str:
    return f"rate({metric}{{{_and(matchers)}}}[$__rate_interval])"


def quantile(share: float, metric: str, by: str = "", matchers: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    buckets = rate(f"{metric}_bucket", matchers)
    return f"histogram_quantile({share}, sum by ({labels}) ({buckets}))"


def _and(matchers: str) -> str:
    return f"{OURS},{matchers}" if matchers else OURS


ROUTES = 'route=~"$route"'
FAILED = 'route=~"$route",status=~"5.."'
TIMED = 'route=~"$route",route!="/api/v1/changes"'
UNDONE = 'outcome="failed"'
COMMANDS = "mongodb_command_duration_seconds_count"
RECORDED = '{namespace=~"$namespace"}'
ERRORS_30D = f"sum(sum_over_time(namespace_service:http_request_errors:rate5m{RECORDED}[30d]))"
REQUESTS_30D = f"sum(sum_over_time(namespace_service:http_requests:rate5m{RECORDED}[30d]))"
LOW_IS_BAD: dict[float | None, str] = {None: "red", 0: "orange", 0.25: "green"}

ROWS: dict[str, list[Panel]] = {
    "What is promised": [
        stat(
            "Error budget left, 30 days",
            "percentunit",
            f"1 - ({ERRORS_30D} / {REQUESTS_30D}) / 0.001",
            text="Of the 0.1 % of requests that may fail in 30 days.",
            thresholds=LOW_IS_BAD,
        ),
        stat(
            "Failing now",
            "percentunit",
            f"max(namespace_service:http_request_errors:ratio_rate5m{RECORDED})",
            text="Share of 5xx over 5 minutes. 0.1 % is promised.",
            thresholds={None: "green", 0.001: "orange", 0.0144: "red"},
        ),
        stat(
            "95 % of responses within",
            "s",
            f"max(namespace_service:http_request_duration_seconds:p95_rate5m{RECORDED})",
            text="0.5 s is promised.",
            thresholds={None: "green", 0.5: "red"},
        ),
        stat("Requests", "reqps", f"sum(namespace_service:http_requests:rate5m{RECORDED})"),
        stat(
            "Pods that respond",
            "none",
            f"sum(up{{{OURS}}})",
            thresholds={None: "red", 1: "orange", 2: "green"},
        ),
        stat(
            "Version",
            "none",
            f"count by (version, revision) (build_info{{{OURS}}})",
            "{{version}} ({{revision}})",
            text="How many pods run each.",
        ),
        Panel(
            "How fast the error budget burns",
            "none",
            {
                window: f"max(namespace_service:http_request_errors:ratio_rate{window}{RECORDED})"
                " / 0.001"
                for window in ("1h", "6h", "1d", "3d")
            },
            width=12,
            text="At 1 it lasts for the month; alerts begin at 14.4 in 1 h, 6 in 6 h, 3 in 1 d.",
        ),
        Panel(
            "Slower than promised",
            "percentunit",
            {
                window: f"max(namespace_service:http_slow_requests:ratio_rate{window}{RECORDED})"
                for window in ("5m", "1h", "1d")
            },
            width=12,
            text="Share of responses that took more than 0.5 s. 5 % is promised.",
        ),
    ],
    "Requests": [
        Panel(
            "By route",
            "reqps",
            {
                "{{method}} {{route}}": "sum by (method, route) "
                f"({rate('http_requests_total', ROUTES)})"
            },
        ),
        Panel(
            "By status",
            "reqps",
            {"{{status}}": f"sum by (status) ({rate('http_requests_total', ROUTES)})"},
        ),
        Panel(
            "Failing, by route",
            "percentunit",
            {
                "{{route}}": f"sum by (route) ({rate('http_requests_total', FAILED)})"
                f" / sum by (route) ({rate('http_requests_total', ROUTES)})"
            },
            text="Share of 5xx. Routes without 5xx are left out.",
        ),
        Panel(
            "Response time",
            "s",
            {
                f"{share:.0%}": quantile(share, "http_request_duration_seconds", matchers=TIMED)
                for share in (0.5, 0.95, 0.99)
            },
        ),
        Panel(
            "Response time, 95 % by route",
            "s",
            {
                "{{route}}": quantile(
                    0.95, "http_request_duration_seconds", by="route", matchers=ROUTES
                )
            },
            text="/api/v1/changes waits as long as its clients request.",
        ),
        Panel(
            "In progress",
            "none",
            {"{{pod}}": f"sum by (pod) (http_requests_in_progress{{{OURS}}})"},
        ),
    ],
    "Conversations and users": [
        Panel(
            "Conversations",
            "cpm",
            {"{{event}}": f"60 * sum by (event) ({rate('conversation_events_total')})"},
            text="A minute, by what happened to them.",
        ),
        Panel(
            "Refused: who is calling (401)",
            "reqps",
            {"{{reason}}": f"sum by (reason) ({rate('authentication_failures_total')})"},
            text="By reason; docs/alerts.md lists the reasons and what to do.",
        ),
        Panel(
            "Refused: too often (429)",
            "reqps",
            {"{{policy}}": f"sum by (policy) ({rate('rate_limited_total')})"},
        ),
    ],
    "MongoDB and Redis": [
        Panel(
            "Commands",
            "ops",
            {"{{command}}": f"sum by (command) ({rate(COMMANDS)})"},
        ),
        Panel(
            "Time of a command, 95 %",
            "s",
            {"{{command}}": quantile(0.95, "mongodb_command_duration_seconds", by="command")},
        ),
        Panel(
            "What fails",
            "ops",
            {
                "commands": f"sum({rate(COMMANDS, UNDONE)}) or vector(0)",
                "heartbeats": f"sum({rate('mongodb_heartbeat_failures_total')})",
                "Redis unanswered": f"sum({rate('redis_unanswered_total')})",
            },
        ),
        Panel(
            "Connections",
            "none",
            {"{{state}}": f"sum by (state) (mongodb_pool_connections{{{OURS}}})"},
            width=12,
            text="Of all processes together. At the limit, requests wait for one.",
        ),
        Panel(
            "Pods that know a primary",
            "none",
            {
                "know one": f"sum(min by (namespace, pod) (mongodb_writable{{{OURS}}}))",
                "pods": f"sum(up{{{OURS}}})",
            },
            width=12,
        ),
    ],
    "Upstreams": [
        Panel(
            "Upstream requests",
            "reqps",
            {
                "{{upstream}} {{outcome}}": "sum by (upstream, outcome) "
                f"({rate('upstream_requests_total')})"
            },
            width=6,
        ),
        Panel(
            "Response time, 95 %",
            "s",
            {"{{upstream}}": quantile(0.95, "upstream_request_duration_seconds", by="upstream")},
            width=6,
        ),
        Panel(
            "Circuit breakers",
            "none",
            {"{{upstream}}": f"max by (upstream) (circuit_breaker_state{{{OURS}}})"},
            width=6,
            at_most=2,
            text="0 closed, 1 half-open, 2 open.",
        ),
        Panel(
            "Cached responses",
            "reqps",
            {
                "{{upstream}} {{outcome}}": "sum by (upstream, outcome) "
                f"({rate('remembered_answers_total')})",
                "tokens not confirmed": f"sum({rate('tokens_not_confirmed_total')})",
            },
            width=6,
        ),
    ],
    "Events and webhooks": [
        Panel(
            "Published events",
            "cpm",
            {
                "{{type}}": "60 * sum by (type) "
                f"(rate(events_published_total{{{PUBLISHER}}}[$__rate_interval]))",
            },
            text="A minute, by type.",
        ),
        Panel(
            "Publishing is late by",
            "s",
            {"{{namespace}}": f"max by (namespace) (events_lag_seconds{{{PUBLISHER}}})"},
            text="Up to 10 s without changes. At 60 s an alert fires.",
        ),
        Panel(
            "Repaired events and disabled endpoints",
            "none",
            {
                "repaired in an hour": f"sum(increase(events_repaired_total{{{PUBLISHER}}}[1h]))",
                "disabled in an hour, {{reason}}": "sum by (reason) "
                f"(increase(webhook_endpoints_disabled_total{{{DELIVERER}}}[1h]))",
            },
        ),
        Panel(
            "Attempts to deliver",
            "reqps",
            {
                "{{outcome}}": "sum by (outcome) "
                f"(rate(webhook_attempts_total{{{DELIVERER}}}[$__rate_interval]))",
            },
            text="By outcome: delivered, rejected (another status), failed (no usable reply).",
            width=12,
        ),
        Panel(
            "Pending deliveries",
            "none",
            {"{{namespace}}": f"sum by (namespace) (webhook_pending{{{DELIVERER}}})"},
            text="Deliveries that have failed, or wait behind a failed one of their conversation.",
            width=6,
        ),
        Panel(
            "Events not yet attempted",
            "none",
            {"{{endpoint}}": f"max by (endpoint) (webhook_behind_events{{{DELIVERER}}})"},
            text="By webhook. A number that grows means that the receiver is too slow.",
            width=6,
        ),
    ],
    "Pods": [
        Panel(
            "Memory",
            "bytes",
            {
                "{{pod}}": f"max by (pod) (container_memory_working_set_bytes{{{CONTAINER}}})",
                "limit": "max(kube_pod_container_resource_limits"
                f'{{{CONTAINER},resource="memory"}})',
            },
        ),
        Panel(
            "Processors",
            "none",
            {
                "{{pod}}": "sum by (pod) (rate(container_cpu_usage_seconds_total"
                f"{{{CONTAINER}}}[$__rate_interval]))",
                "requested": "max(kube_pod_container_resource_requests"
                f'{{{CONTAINER},resource="cpu"}})',
            },
        ),
        Panel(
            "Replicas and restarts",
            "none",
            {
                "replicas": "sum(kube_horizontalpodautoscaler_status_current_replicas"
                f"{{{SCALER}}})",
                "at most": f"sum(kube_horizontalpodautoscaler_spec_max_replicas{{{SCALER}}})",
                "restarts in an hour": "sum(increase(kube_pod_container_status_restarts_total"
                f"{{{CONTAINER}}}[1h]))",
            },
        ),
    ],
}

RUNNING = f"group by (version, revision) (build_info{{{OURS}}}"
NEW_VERSION = {
    "name": "New version",
    "datasource": PROMETHEUS,
    "enable": True,
    "iconColor": "purple",
    "expr": f"{RUNNING}) unless {RUNNING} offset 5m)",
    "titleFormat": "{{version}} ({{revision}})",
}


def laid_out() -> Iterator[dict[str, Any]]:
    """Yield all panels, each row's from left to right and then in the next line."""
    y = 0
    for title, panels in ROWS.items():
        yield {"type": "row", "title": title, "panels": []} | place(0, y, WIDTH, 1)
        x, y, height = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            height = HEIGHT[panel.kind]
            yield panel.json() | place(x, y, panel.width, height)
            x += panel.width
        y += height


def place(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": x, "y": y, "w": width, "h": height}}


def variable(name: str, query: str) -> dict[str, Any]:
    """Return a choice of some or all values of a label."""
    return {
        "name": name,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    panels = [panel | {"id": number} for number, panel in enumerate(laid_out(), start=1)]
    labels = 'label_values(http_requests_total{service="conversation-service"'
    return {
        "uid": "conversation-service",
        "title": "Conversation Service",
        "tags": ["conversation-service"],
        "schemaVersion": 39,  # of Grafana 10.4; newer ones migrate it when they load it
        "editable": False,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [NEW_VERSION]},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                variable("namespace", f"{labels}}}, namespace)"),
                variable("route", f'{labels},namespace=~"$namespace"}}, route)'),
            ],
        },
        "panels": panels,
    }


sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
