"""The rules and the dashboard, parsed for tests."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools" / "bin"
COMPONENT = ROOT / "k8s" / "components" / "monitoring"
RULES = COMPONENT / "prometheusrule.yaml"
DASHBOARD = COMPONENT / "dashboard.json"
CLUSTER = Path(__file__).with_name("cluster.prom")


def groups() -> list[dict[str, Any]]:
    return yaml.safe_load(RULES.read_text())["spec"]["groups"]


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Return all rules of a kind, "alert" or "record", by their names."""
    found = [rule for group in groups() for rule in group["rules"] if kind in rule]
    return {rule[kind]: rule for rule in found}


def write_rules(folder: Path) -> Path:
    """Write the rule file that the operator gives to Prometheus."""
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups()}))
    return path


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def dashboard_queries() -> list[str]:
    """Return every query of the dashboard as Grafana sends it, with all values selected."""
    shown = dashboard()
    queries = [target["expr"] for panel in shown["panels"] for target in panel.get("targets", [])]
    queries += [annotation["expr"] for annotation in shown["annotations"]["list"]]
    return [
        query.replace("$__rate_interval", "2m").replace("$namespace", ".*").replace("$route", ".*")
        for query in queries
    ]


def metrics_in(query: str) -> set[str]:
    """Return the names of all metrics in a query, recorded ones too.

    PromQL without strings, durations and lists of labels consists of names of metrics,
    names of functions, which are followed by a parenthesis, and keywords.
    """
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', "", re.sub(r'"[^"]*"', "", query))
    bare = re.sub(r"\b(by|on|without|ignoring|group_left)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\boffset \w+", "", bare)
    words = {"and", "or", "unless", "bool"}
    return set(re.findall(r"(?<![\w.:])[a-z_][\w:]*(?![\w:]*\s*\()", bare)) - words


def run(tool: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / tool, *arguments], capture_output=True, text=True, check=False, **options
    )
