"""Findings about a manifest, in the forms that CI systems read: GitHub annotations, SARIF 2.1.0 and JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from xml.sax.saxutils import escape, quoteattr

from mullama.plan import report
from mullama.plan.review import Violation
from mullama.plan.steps import Action, Plan, Step
from mullama.problems import Location, Problem
from mullama.struct import Struct

Level = Literal["error", "warning", "notice"]

_RULES = {
    "manifest": "The manifest is valid",
    "change": "A step of the plan",
    "keep": "The policy keeps these models",
    "uninterrupted": "The policy lets no request to these models wait",
    "sources": "The policy allows these sources",
    "pinned": "The policy requires a digest of each source",
    "max_download": "The policy limits the bytes to download",
    "max_memory": "The policy limits the memory of the models",
}
"""Each rule of a finding, and the state that it checks."""

_SARIF_LEVELS: Mapping[Level, str] = {"error": "error", "warning": "warning", "notice": "note"}
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Finding(Struct, frozen=True, kw_only=True):
    """One finding."""

    level: Level
    rule: str
    """A key of `_RULES`."""
    title: str
    message: str
    place: Location | None = None


def of_problems(problems: Iterable[Problem]) -> tuple[Finding, ...]:
    """Return the mistakes of a manifest."""
    return tuple(
        Finding(
            level="error",
            rule="manifest",
            title=f"mullama: {problem.path or 'manifest'}",
            message=f"{problem.message} ({problem.hint})" if problem.hint else problem.message,
            place=problem.place,
        )
        for problem in problems
    )


def of_plan(plan: Plan) -> tuple[Finding, ...]:
    """Return the steps of a plan: an error for an unusable file, a warning if requests pause or a model goes."""
    return tuple(_of_step(step) for step in plan.steps)


def _of_step(step: Step) -> Finding:
    grave = step.pause or step.destructive or step.action is Action.REMOVE
    return Finding(
        level="error" if step.unusable else "warning" if grave else "notice",
        rule="change",
        title=f"mullama: {step.action.value} {step.subject}",
        message=report.summary(step),
        place=step.place,
    )


def of_violations(broken: Iterable[Violation], places: Mapping[str, Location]) -> tuple[Finding, ...]:
    """Return the broken rules of a policy. places: the place of each dotted path of the manifest."""
    return tuple(
        Finding(
            level="error",
            rule=violation.rule,
            title=f"mullama: policy {violation.rule}",
            message=violation.message,
            place=places.get(f"models.{violation.subject}"),
        )
        for violation in broken
    )


# GitHub


def github(findings: Iterable[Finding]) -> tuple[str, ...]:
    """Return a GitHub workflow command for each finding."""
    return tuple(_annotation(finding) for finding in findings)


def _annotation(finding: Finding) -> str:
    place = finding.place
    where = {"file": place.file, "line": str(place.line), "col": str(place.column)} if place else {}
    properties = ",".join(f"{key}={_property(text)}" for key, text in (where | {"title": finding.title}).items())
    return f"::{finding.level} {properties}::{_message(finding.message)}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


# SARIF


def sarif(findings: Sequence[Finding], version: str) -> dict[str, Any]:
    """Return a SARIF 2.1.0 log with one run. version: that of mullama."""
    used = [rule for rule in _RULES if any(finding.rule == rule for finding in findings)]
    rules = [{"id": rule, "shortDescription": {"text": _RULES[rule]}} for rule in used]
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "mullama", "version": version, "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": [_sarif_result(finding) for finding in findings],
            }
        ],
    }


def _sarif_result(finding: Finding) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": _SARIF_LEVELS[finding.level],
        "message": {"text": f"{finding.title}: {finding.message}"},
    }
    if place := finding.place:
        region = {"startLine": place.line, "startColumn": place.column}
        physical = {"artifactLocation": {"uri": place.file}, "region": region}
        result["locations"] = [{"physicalLocation": physical}]
    return result


# JUnit


def junit(suite: str, findings: Sequence[Finding], passed: Iterable[str] = ()) -> str:
    """Return a JUnit report: a test case for each finding, which fails for an error, and for each rule that passed."""
    failures = sum(finding.level == "error" for finding in findings)
    good = [f'  <testcase classname="mullama" name={_attribute(_RULES[rule])}/>' for rule in passed]
    cases = [_junit_case(finding) for finding in findings] + good
    count = f'tests="{len(cases)}" failures="{failures}" errors="0"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<testsuites {count}>",
            f"<testsuite name={_attribute(suite)} {count}>",
            *cases,
            "</testsuite>",
            "</testsuites>",
        ]
    )


def _junit_case(finding: Finding) -> str:
    place = finding.place
    where = f" file={_attribute(place.file)} line={_attribute(str(place.line))}" if place else ""
    text = f"{place}: {finding.message}" if place else finding.message
    if finding.level == "error":
        body = f"<failure message={_attribute(finding.message)}>{_xml(text)}</failure>"
    else:
        body = f"<system-out>{_xml(text)}</system-out>"
    return f'  <testcase classname="mullama" name={_attribute(finding.title)}{where}>{body}</testcase>'


def _xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("\ufffd", text))
