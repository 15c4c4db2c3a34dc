"""Findings as annotations, SARIF and JUnit."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.plan.findings import Finding, github, junit, of_plan, of_problems, of_violations, sarif
from mullama.plan.review import Violation
from mullama.plan.steps import Action, Cause, Cost, FieldChange, Step
from mullama.problems import Location, Problem
from tests.plan.test_report import MIXED, plan, step

HERE = Location("mullama.yaml", 7, 5)
REMOVED = Violation(rule="keep", subject="chat", message="chat is removed")


def of_steps(*steps: Step) -> tuple[Finding, ...]:
    return of_plan(plan(*steps))


def test_annotations_name_file_line_and_column() -> None:
    change = FieldChange(path="system", before="a", after="50%\nmore", cost=Cost.LIVE)
    assert github(of_steps(step("a:b", Action.UPDATE, changes=(change,), place=HERE))) == (
        '::notice file=mullama.yaml,line=7,col=5,title=mullama%3A update a%3Ab::system a -> "50%25\\nmore"',
    )


def test_annotations_warn_where_requests_wait_or_a_model_goes() -> None:
    levels = [line.split()[0] for line in github(of_plan(MIXED))]
    assert levels == ["::notice", "::notice", "::warning", "::notice", "::warning", "::notice"]


@given(st.lists(st.text(), max_size=3))
def test_an_annotation_is_always_one_line(texts: list[str]) -> None:
    changes = tuple(FieldChange(path="system", before=None, after=t, cost=Cost.LIVE) for t in texts)
    for line in github(of_steps(step("m", Action.UPDATE, changes=changes, detail="d"))):
        assert "\n" not in line
        assert "\r" not in line


def test_a_mistake_and_a_broken_rule_are_errors_at_their_place() -> None:
    (mistake,) = of_problems([Problem("models.a.from", HERE, "is required", "for example builtin:tiny")])
    (rule,) = of_violations([REMOVED], {"models.chat": HERE})

    assert github([mistake, rule]) == (
        "::error file=mullama.yaml,line=7,col=5,title=mullama%3A models.a.from::is required (for example builtin:tiny)",
        "::error file=mullama.yaml,line=7,col=5,title=mullama%3A policy keep::chat is removed",
    )


def test_a_finding_without_a_place_names_no_file() -> None:
    assert github(of_violations([REMOVED], {})) == ("::error title=mullama%3A policy keep::chat is removed",)


def test_sarif_has_the_rules_that_its_results_name() -> None:
    found = (*of_violations([REMOVED], {"models.chat": HERE}), *of_steps(step("m", Action.UPDATE, detail="d")))
    log = sarif(found, "1.2.3")

    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert run["tool"]["driver"]["version"] == "1.2.3"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["change", "keep"]
    assert run["results"] == [
        {
            "ruleId": "keep",
            "level": "error",
            "message": {"text": "mullama: policy keep: chat is removed"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": "mullama.yaml"},
                        "region": {"startLine": 7, "startColumn": 5},
                    }
                }
            ],
        },
        {"ruleId": "change", "level": "note", "message": {"text": "mullama: update m: d"}},
    ]


def test_junit_counts_errors_as_failures_and_lists_what_passed() -> None:
    found = (*of_violations([REMOVED], {"models.chat": HERE}), *of_steps(step("m", Action.UPDATE, detail="d")))
    suites = ElementTree.fromstring(junit("mullama diff", found, ["pinned"]))

    (suite,) = suites
    assert (suites.attrib["tests"], suites.attrib["failures"]) == ("3", "1")
    assert suite.attrib["name"] == "mullama diff"
    failed, noted, passed = suite
    assert (failed.attrib["file"], failed.attrib["line"]) == ("mullama.yaml", "7")
    assert [child.tag for case in (failed, noted, passed) for child in case] == ["failure", "system-out"]
    assert failed[0].text == "mullama.yaml:7:5: chat is removed"
    assert passed.attrib["name"] == "The policy requires a digest of each source"


@given(st.text(), st.text())
def test_a_junit_report_is_xml_for_any_text(title: str, message: str) -> None:
    found = Finding(level="error", rule="manifest", title=title, message=message, place=Location(title, 1, 1))
    (suite,) = ElementTree.fromstring(junit(title, [found]))
    assert len(suite) == 1


@pytest.mark.parametrize("action", list(Action))
def test_every_action_has_a_finding(action: Action) -> None:
    (found,) = of_steps(step("m", action, cause=Cause.DRIFT))
    assert found.title == f"mullama: {action.value} m"
