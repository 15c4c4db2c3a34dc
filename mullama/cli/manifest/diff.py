"""`mullama diff`: shows what apply would change, with formats and exit codes for CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import (
    PinnedFiles,
    display_path,
    find,
    load_manifest,
    manifest_path,
    origin,
    start_manifest,
)
from mullama.cli.app.context import (
    CommandContext,
    Parser,
    UsageError,
    manifest_options,
    refresh_option,
    require_alone,
    server_options,
    target_option,
)
from mullama.cli.app.exit_codes import DIFFERS, DONE, ERROR, REFUSED
from mullama.cli.manifest.findings import CI_FORMATS, show_findings
from mullama.cli.manifest.plan_file import save_plan
from mullama.cli.manifest.planning import drift_of, plan_between, plan_for, require_files
from mullama.cli.manifest.policy import Review, review
from mullama.cli.on_fleet.options import refuse_skip, skip_option
from mullama.cli.on_ray.options import on_cluster, place_options
from mullama.errors import NotFound
from mullama.plan import report
from mullama.plan.steps import Action, Cause, Plan, Step, to_tree

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

FORMATS = ("text", "json", "markdown", *CI_FORMATS)

GROUNDS: dict[str, Callable[[Step], bool]] = {
    "desired": lambda step: step.cause is Cause.DESIRED,
    "drift": lambda step: step.cause is Cause.DRIFT,
    "pause": lambda step: step.pause,
    "remove": lambda step: step.action is Action.REMOVE,
}
"""Names of --fail-on, and the steps that each selects."""


def diff_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    parser.add_argument(
        "--base",
        metavar="GITREF",
        help="compare with the manifest at a git branch, tag or commit; needs no server and no network",
    )
    parser.add_argument(
        "--ref",
        metavar="GITREF",
        help="compare the manifest at a git branch, tag or commit instead of the file, as sync.git would apply it",
    )
    place_options(parser)
    skip_option(parser)
    target_option(parser)
    refresh_option(parser, "show only the drift from the applied revision; changes of the manifest are not compared")
    parser.add_argument("--format", choices=FORMATS, default="text", help="output format (default: text)")
    parser.add_argument(
        "--fail-on",
        type=grounds,
        default=tuple(GROUNDS),
        metavar="LIST",
        help=f"exit with 2 only for these kinds of changes: {','.join(GROUNDS)} (default: all)",
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="compare the plan with the rules of a policy file; exit with 9 if it breaks one",
    )
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 if there are changes")
    parser.add_argument("--out", metavar="FILE", help="save the plan for `mullama apply --plan FILE`")


def grounds(text: str) -> tuple[str, ...]:
    """Parse `desired,pause` to its names; raise `UsageError` for an unknown name."""
    # `wish` is the name of `desired` before 0.2; accepted until 1.0.
    names = tuple("desired" if name.strip() == "wish" else name.strip() for name in text.split(","))
    for name in names:
        if name not in GROUNDS:
            raise UsageError(f"--fail-on: unknown kind of change {name!r}", hint=f"one or more of {','.join(GROUNDS)}")
    return names


def diff(call: CommandContext) -> int:
    if on_cluster(call, "base", "ref", "target", "refresh_only", "policy", "out", "skip"):
        from mullama.cli.on_ray import commands

        return commands.diff(call)
    if call.options.refresh_only:
        return _drift(call)
    reference = call.options.ref
    loaded = load_manifest(call) if reference is None else _load_at(call, reference, "--ref")
    if loaded.manifest.fleet.hosts and call.options.base is None:
        return _diff_fleet(call, loaded)
    refuse_skip(call)
    plan = _plan(call, loaded)
    if call.options.out:
        from mullama.manifest.tree import manifest_to_tree

        save_plan(call.folder / call.options.out, plan, manifest_to_tree(loaded.manifest), origin(loaded))
    reviewed = review(call, plan, loaded)
    _show(call, plan, loaded, reviewed)
    require_files(call, plan, loaded)
    return REFUSED if reviewed.broken else _code(call, plan.steps)


def _diff_fleet(call: CommandContext, loaded: LoadedManifest) -> int:
    """Show the plan of a fleet. The code is 1 if a host or a model prevents an apply."""
    from mullama.cli.manifest.fleet_diff import show_fleet

    plan = show_fleet(call, loaded)
    return (
        exit_code_of(plan.changes, call.options.fail_on, exit_zero=call.options.exit_zero) if plan.complete else ERROR
    )


def _drift(call: CommandContext) -> int:
    require_alone(call.options, "base", "ref", "target", "out", "policy", "skip")
    start = start_manifest(call)
    plan = drift_of(call, start, find(call, lambda: start.loaded))
    _show(call, plan, start.loaded, Review())
    return _code(call, plan.steps)


def _code(call: CommandContext, steps: Iterable[Step]) -> int:
    return exit_code_of(steps, call.options.fail_on, exit_zero=call.options.exit_zero)


def exit_code_of(steps: Iterable[Step], fail_on: tuple[str, ...], *, exit_zero: bool = False) -> int:
    """Return 2 if `fail_on` selects any step, else 0."""
    counts = any(GROUNDS[name](step) for step in steps for name in fail_on)
    return DIFFERS if counts and not exit_zero else DONE


def _plan(call: CommandContext, loaded: LoadedManifest) -> Plan:
    if call.options.base is None:
        return plan_for(call, loaded, find(call, lambda: loaded), call.options.target)
    if call.options.out:
        raise UsageError("--out saves a plan for a server", hint="use either --base or --out")
    return plan_between(_load_at(call, call.options.base, "--base"), loaded, call.options.target)


def _load_at(call: CommandContext, reference: str, option: str) -> LoadedManifest:
    """Load the manifest of the git revision; an empty one if the file does not exist there."""
    from mullama.cli.manifest.git_tree import GitTree
    from mullama.manifest.load import load_text

    if call.options.file == "-":
        raise UsageError(f"{option} needs a manifest file, not standard input", hint="-f FILE names it")
    path = manifest_path(call)
    tree = GitTree(path.parent, reference)
    try:
        text = tree.read(str(path))
    except NotFound:
        if option == "--ref":
            raise
        text = b"mullama: v1\n"
    return load_text(
        text,
        name=f"{display_path(call, path)}@{reference}",
        base_dir=str(path.parent),
        profiles=tuple(call.options.profile),
        env=call.env,
        files=tree,
        path=str(path),
        remote=PinnedFiles(call),
    )


def _show(call: CommandContext, plan: Plan, loaded: LoadedManifest, reviewed: Review) -> None:
    terminal, broken = call.terminal, reviewed.broken
    match call.options.format:
        case "json":
            rules = [{"rule": v.rule, "model": v.subject or None, "message": v.message} for v in broken]
            terminal.json(to_tree(plan) | ({"policy": rules} if call.options.policy else {}))
        case "markdown":
            texts = [f"{violation.rule}: {violation.message}" for violation in broken]
            terminal.raw(report.markdown(plan, _title(call, loaded), texts) + "\n")
        case "github" | "sarif" | "junit" as name:
            from mullama.plan import findings

            found = (*findings.of_violations(broken, loaded.places), *findings.of_plan(plan))
            show_findings(call, name, "mullama diff", found, reviewed.passed)
        case _:
            terminal.toned(report.lines(plan))
            terminal.toned(report.Line(f"policy {v.rule}: {v.message}", "remove") for v in broken)


def _title(call: CommandContext, loaded: LoadedManifest) -> str:
    """Return the name in the metadata of the manifest, else that of the file."""
    return loaded.manifest.metadata.name or os.path.basename(call.options.file or "mullama.yaml")
