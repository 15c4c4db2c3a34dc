"""Writes findings in the forms that CI systems read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import mullama
from mullama.cli.app.context import CommandContext
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.plan.findings import Finding

CI_FORMATS = ("github", "sarif", "junit")


def show_findings(
    call: CommandContext, form: str, suite: str, found: Iterable[Finding], passed: Iterable[str] = ()
) -> None:
    """Write findings as one of `CI_FORMATS`. suite: the name of a JUnit report. passed: rules without a finding."""
    from mullama.plan import findings

    placed = tuple(_relative(call, finding) for finding in found)
    match form:
        case "sarif":
            call.terminal.json(findings.sarif(placed, mullama.__version__))
        case "junit":
            call.terminal.raw(findings.junit(suite, placed, passed) + "\n")
        case _:
            for line in findings.github(placed):
                call.terminal.raw(line + "\n")


def _relative(call: CommandContext, finding: Finding) -> Finding:
    """Make the file name relative to the working directory, as CI systems need it."""
    if finding.place is None:
        return finding
    file = os.path.relpath(call.folder / finding.place.file, call.folder)
    return replace(finding, place=replace(finding.place, file=file))
