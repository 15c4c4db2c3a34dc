"""`mullama apply`: plan, show, confirm, and let the server carry it out; starts the server when none runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer, find, is_remote, load_manifest, origin, records_of, user
from mullama.cli.app.context import (
    CommandContext,
    Parser,
    UsageError,
    json_option,
    manifest_options,
    server_options,
    timeout_option,
    yes_option,
)
from mullama.cli.app.exit_codes import DONE, REFUSED, outcome_code
from mullama.cli.manifest import plan_file
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.cli.manifest.planning import plan_for
from mullama.cli.server.background import start, stop
from mullama.errors import MullamaError, Refused, TimedOut, Unsupported
from mullama.plan import report
from mullama.plan.steps import Plan
from mullama.units import duration_literal

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest


def apply_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    yes_option(parser)
    json_option(parser)
    timeout_option(parser, "never")
    parser.add_argument("--plan", metavar="FILE", help="carry out a plan saved by `mullama diff --out`")
    parser.add_argument(
        "--allow-empty", action="store_true", help="accept a manifest without models, which removes all"
    )
    parser.add_argument("--target", action="append", metavar="NAME", help="not possible yet, and refused")
    parser.add_argument("--offline", action="store_true", help="use only files that are here already")
    parser.add_argument("--locked", action="store_true", help="refuse to resolve what the lock file does not hold")
    parser.add_argument(
        "--no-wait", action="store_true", help="return once the revision is committed, not once models answer"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRequest:
    """What is to be applied: the manifest as a tree, where it came from, and the plan that a person saw."""

    tree: Mapping[str, Any]
    origin: Mapping[str, Any]
    plan: Plan


def apply(call: CommandContext) -> int:
    if call.options.target:
        raise Unsupported(
            "--target: applying only some models is not possible yet", hint="a profile can leave some out"
        )
    loaded = load_manifest(call)
    if not loaded.manifest.models and not call.options.allow_empty:
        raise Refused(
            "the manifest has no models: applying it would remove every model",
            hint="--allow-empty if that is meant",
        )
    with _lock(call, loaded):
        server = find(call, lambda: loaded)
        desired = _desired(call, loaded, server)
        if not call.options.json:
            call.terminal.toned(report.lines(desired.plan))
        if server is not None and desired.plan.empty and _settled(server, desired):
            return DONE
        if not _agreed(call, desired.plan):
            call.terminal.note("nothing was changed")
            return REFUSED
        return _carry_out(call, loaded, server, desired)


@contextlib.contextmanager
def _lock(call: CommandContext, loaded: LoadedManifest) -> Iterator[None]:
    """One apply at a time for each server of this machine; a server elsewhere has a lock of its own.

    A running server is known by the manifest's path, also when its first address is about to change.
    """
    if is_remote(call):
        yield
        return
    server = find(call, lambda: loaded)
    records = server.records if server is not None and server.records else records_of(call, loaded)
    with records.lock("apply", name="apply.lock"):
        yield


def _desired(call: CommandContext, loaded: LoadedManifest, server: FoundServer | None) -> ApplyRequest:
    plan = plan_for(call, loaded, server)
    if call.options.plan is None:
        from mullama.manifest.tree import manifest_to_tree

        return ApplyRequest(tree=manifest_to_tree(loaded.manifest), origin=origin(loaded), plan=plan)
    saved = plan_file.read(call.folder / call.options.plan)
    plan_file.require_fresh(saved.plan, plan)
    return ApplyRequest(tree=saved.manifest, origin=saved.origin, plan=plan)


def _settled(server: FoundServer, desired: ApplyRequest) -> bool:
    """Whether a server that has nothing to change is also ready, and follows this very file."""
    status = server.client.get("/api/v1/status")
    known = status.get("origin") or {}
    same = all(known.get(key) == desired.origin[key] for key in ("path", "profiles"))
    return same and status.get("state") == "ready"


def _agreed(call: CommandContext, plan: Plan) -> bool:
    """Ask on a terminal; elsewhere a plan that pauses or removes something needs --yes."""
    if call.options.yes or plan.empty:
        return True
    if call.terminal.interactive and not call.options.json:
        return call.terminal.confirm("Apply this?")
    if plan.pauses or any(step.destructive for step in plan.steps):
        raise Refused(
            "the plan pauses or removes something, and nobody can be asked here",
            hint="--yes applies it; mullama diff shows it",
        )
    return True


def _carry_out(call: CommandContext, loaded: LoadedManifest, server: FoundServer | None, desired: ApplyRequest) -> int:
    following = ApplyView(call.terminal, as_json=call.options.json)
    if server is not None:
        try:
            return _send(call, server, desired, following)
        except KeyboardInterrupt:
            call.terminal.note("the server continues the apply; mullama status shows it")
            raise
    started = start(records_of(call, loaded), ["--held", *_serve_arguments(desired)])
    if not call.options.json:
        call.terminal.line(f"server started (pid {started.record.pid if started.record else '?'})")
    try:
        return _send(call, started, desired, following)
    finally:
        if not following.progress.committed:
            _stop_again(call, started)


def _serve_arguments(desired: ApplyRequest) -> list[str]:
    """What the server in the background is told: the file to follow, and the profiles to read it with."""
    path = desired.origin["path"]
    if path is None:
        raise UsageError(
            "a manifest from standard input needs a running server",
            hint="-f FILE lets apply start one",
        )
    return ["-f", str(path), *(part for name in desired.origin["profiles"] for part in ("--profile", name))]


def _stop_again(call: CommandContext, server: FoundServer) -> None:
    """A server that this apply started and that has nothing to serve is not left behind."""
    try:
        stop(server, within=10.0, force=True)
    except MullamaError as error:
        call.terminal.note(f"warning: the server that was started still runs: {error}")
    else:
        call.terminal.note("the server that was started is stopped again")


def _send(call: CommandContext, server: FoundServer, desired: ApplyRequest, following: ApplyView) -> int:
    """Give the wish to the server and show what it does, to the end or to the time limit."""
    options = call.options
    body = {
        "manifest": desired.tree,
        "origin": desired.origin,
        "options": {
            "allow_empty": options.allow_empty,
            "offline": options.offline,
            "locked": options.locked,
            "expect": desired.plan.base,
            "trigger": "apply",
            "by": user(),
        },
    }
    begun = time.monotonic()
    events = server.client.lines("PUT", "/api/v1/stack", body, within=options.timeout)
    try:
        result = following.run(events, until_committed=options.no_wait).result
    except TimedOut as error:
        raise TimedOut(
            f"the apply did not end within {duration_literal(options.timeout)}",
            hint="mullama status shows how far it is",
        ) from error
    following.show_outcome()
    if result is None:
        return DONE
    code = outcome_code(result["outcome"])
    if code == DONE and not options.json:
        call.terminal.line(f"done in {time.monotonic() - begun:.1f} s")
    return code
