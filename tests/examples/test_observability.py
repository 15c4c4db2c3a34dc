"""The dashboard and the alert rules name metrics that the server exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mullama.runtime.metrics import Metrics
from mullama.runtime.metrics_text import render

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "observability"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]

_SERIES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> set[str]:
    """The series of a server: those of the counters, and the gauges that the report adds."""
    types = re.findall(r"^# TYPE (\w+) (\w+)$", render(Metrics(), ()), re.MULTILINE)
    counted = {name.removesuffix("_total") + end for name, kind in types for end in _SERIES[kind]}
    report = (ROOT / "mullama/controller/telemetry/metrics_report.py").read_text()
    return counted | set(re.findall(r'Gauge\(name="(mullama_\w+)"', report))


EXPRESSIONS = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(rule["expr"] for rule in RULES),
    *(variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_each_expression_names_exported_series(expression: str) -> None:
    named = set(re.findall(r"\bmullama_\w+", expression))
    assert named or "up{" in expression
    assert named <= exported()


def test_the_panels_differ_and_fit_the_grid() -> None:
    assert len({panel["title"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_says_where_and_how_grave(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert "{{" in rule["annotations"]["summary"]


def test_alerts_on_errors_use_a_result_that_requests_have() -> None:
    results = set(re.findall(r'result="(\w+)"', json.dumps(RULES).replace('\\"', '"')))
    source = (ROOT / "mullama/runtime/serving/completion.py").read_text()
    assert results
    assert all(f'"{result}"' in source for result in results)
