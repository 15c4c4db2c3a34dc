"""`mullama apply`: shows the plan, asks, and has the server execute it; starts the server if none is running."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import (
    FoundServer,
    find,
    is_remote,
    load_manifest,
    origin,
    records_of,
    require,
    user,
)
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE, REFUSED, outcome_code
from mullama.cli.manifest import plan_file
from mullama.cli.manifest.apply_progress import ApplyView
from mullama.cli.manifest.plan_file import SavedPlan
from mullama.cli.manifest.planning import plan_for, require_files, require_undisturbed
from mullama.cli.on_fleet.options import refuse_skip, skip_option
from mullama.cli.on_ray.options import on_cluster, place_options, refuse_place_as_target
from mullama.cli.server.background import start, stop
from mullama.cli.server.serve import log_level_option, log_levels
from mullama.errors import MullamaError, Refused, TimedOut
from mullama.plan import report
from mullama.plan.steps import Plan, from_tree
from mullama.struct import Struct
from mullama.units import duration_literal

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest


def apply_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.yes_option(parser)
    context.json_option(parser)
    context.timeout_option(parser, "never")
    parser.add_argument("--plan", metavar="FILE", help="apply the plan that `mullama diff --out` saved")
    parser.add_argument(
        "--allow-empty", action="store_true", help="accept a manifest without models, which removes all models"
    )
    place_options(parser)
    skip_option(parser)
    context.target_option(parser)
    context.refresh_option(parser, "record how the files of the models are now, and show the drift; change no model")
    parser.add_argument("--offline", action="store_true", help="download nothing")
    parser.add_argument("--locked", action="store_true", help="use only the files that the lock file pins")
    log_level_option(parser, " of a server that apply starts")
    parser.add_argument("--no-wait", action="store_true", help="return after the commit, before the models are loaded")


class ApplyRequest(Struct, frozen=True, kw_only=True):
    """The manifest to apply, and the plan that was shown."""

    tree: Mapping[str, Any]
    """The resolved manifest as JSON."""
    origin: Mapping[str, Any]
    """File, profiles and digest of the manifest."""
    plan: Plan


def apply(call: CommandContext) -> int:
    if on_cluster(call, "plan", "target", "refresh_only", "offline", "log_level", "no_wait", "skip"):
        from mullama.cli.on_ray import commands

        return commands.apply(call)
    log_levels(call.options.log_level or ())  # raises for an unknown one
    if call.options.refresh_only:
        return _refresh(call)
    loaded = load_manifest(call)
    if loaded.manifest.fleet.hosts:
        from mullama.cli.manifest.fleet_apply import apply_fleet

        return apply_fleet(call, loaded)
    refuse_skip(call)
    saved = plan_file.load_plan(call.folder / call.options.plan) if call.options.plan is not None else None
    targets = _targets(call, saved)
    refuse_place_as_target(targets, {*loaded.manifest.models, *loaded.manifest.routes})
    whole = not targets and loaded.manifest.sync.git is None
    if not loaded.manifest.models and not loaded.manifest.peers and whole and not call.options.allow_empty:
        raise Refused(
            "the manifest has no models: applying it would remove every model",
            hint="--allow-empty applies it",
        )
    with apply_lock(call, loaded):
        server = find(call, lambda: loaded)
        if server is not None and call.options.log_level:
            raise UsageError(
                "--log-level is for a server that apply starts, and one is running",
                hint="observability.logs in the manifest changes its levels while it runs",
            )
        request = _request(call, loaded, server, saved, targets)
        if not call.options.json:
            call.terminal.toned(report.lines(request.plan))
        require_files(call, request.plan, loaded)
        if server is not None and request.plan.empty and (targets or _is_up_to_date(server, request)):
            return DONE
        if server is None:
            require_undisturbed(call, loaded, targets)
        if not _confirmed(call, request.plan):
            call.terminal.note("nothing was changed")
            return REFUSED
        return _execute(call, loaded, server, request)


@contextlib.contextmanager
def apply_lock(call: CommandContext, loaded: LoadedManifest) -> Iterator[None]:
    """Hold the lock that allows one apply at a time on a server of this machine. A remote server has its own lock.

    A running server is found by the path of the manifest, because its address may be what changes.
    """
    if is_remote(call):
        yield
        return
    server = find(call, lambda: loaded)
    records = server.records if server is not None and server.records else records_of(call, loaded)
    with records.lock("apply", name="apply.lock"):
        yield


def _refresh(call: CommandContext) -> int:
    context.require_alone(
        call.options, "plan", "target", "offline", "locked", "no-wait", "allow-empty", "log-level", "skip"
    )
    tree = require(call).client.post("/api/v1/refresh", {})
    plan = from_tree(tree)
    if call.options.json:
        call.terminal.json(tree)
    else:
        call.terminal.toned(report.lines(plan))
        call.terminal.line("the files are recorded; no model is changed")
    return DONE


def _targets(call: CommandContext, saved: SavedPlan | None) -> tuple[str, ...]:
    """Return the names of --target, or those of the saved plan. Raise `UsageError` if both are given and differ."""
    given = tuple(call.options.target)
    if saved is None:
        return given
    if given and set(given) != set(saved.plan.targets):
        of = f"for {', '.join(saved.plan.targets)}" if saved.plan.targets else "for the whole manifest"
        raise UsageError(f"--target: the saved plan is {of}", hint="leave out --target, or save another plan")
    return saved.plan.targets


def _request(
    call: CommandContext,
    loaded: LoadedManifest,
    server: FoundServer | None,
    saved: SavedPlan | None,
    targets: tuple[str, ...],
) -> ApplyRequest:
    """Return the manifest with its plan. A saved plan only names the targets, and must equal the printed one."""
    from mullama.manifest.tree import manifest_to_tree

    if saved is not None:
        plan_file.require_same_manifest(saved, loaded.manifest)
    plan = plan_for(call, loaded, server, targets)
    if saved is not None:
        plan_file.require_fresh(saved, plan)
    return ApplyRequest(tree=manifest_to_tree(loaded.manifest), origin=origin(loaded), plan=plan)


def _is_up_to_date(server: FoundServer, request: ApplyRequest) -> bool:
    """Return True if the server is ready and follows the same file and profiles, all of which was applied.

    A server whose tools are not as pinned has the pins of an older lock file, because the plan is empty.
    """
    status = server.client.get("/api/v1/status")
    known = status.get("origin") or {}
    same = all(known.get(key) == request.origin[key] for key in ("path", "profiles"))
    pinned = not any(one.get("changed") for one in status.get("tools") or ())
    return same and pinned and not known.get("targets") and status.get("state") == "ready"


def _confirmed(call: CommandContext, plan: Plan) -> bool:
    """Ask on a terminal. Elsewhere raise `Refused` for a plan that pauses or removes something, without --yes."""
    if call.options.yes or plan.empty:
        return True
    if call.terminal.interactive and not call.options.json:
        return call.terminal.confirm("Apply this?")
    if plan.pauses or any(step.destructive for step in plan.steps):
        raise Refused(
            "the plan pauses or removes models, and there is no terminal to confirm it",
            hint="--yes applies it; mullama diff shows it",
        )
    return True


def _execute(call: CommandContext, loaded: LoadedManifest, server: FoundServer | None, request: ApplyRequest) -> int:
    view = ApplyView(call.terminal, as_json=call.options.json)
    if server is not None:
        try:
            return _send(call, server, request, view)
        except KeyboardInterrupt:
            call.terminal.note("the server continues the apply; mullama status shows it")
            raise
    started = start(records_of(call, loaded), ["--held", *_serve_arguments(call, request)])
    if not call.options.json:
        call.terminal.line(f"server started (pid {started.record.pid if started.record else '?'})")
    try:
        return _send(call, started, request, view)
    finally:
        if not view.progress.committed:
            _stop_started(call, started)


def _serve_arguments(call: CommandContext, request: ApplyRequest) -> list[str]:
    """Return the arguments of the background server: the file to follow, its profiles and the levels of its log."""
    path = request.origin["path"]
    if path is None:
        raise UsageError(
            "a manifest from standard input needs a running server",
            hint="with -f FILE apply starts one",
        )
    profiles = [part for name in request.origin["profiles"] for part in ("--profile", name)]
    return ["-f", str(path), *profiles, *(f"--log-level={level}" for level in call.options.log_level or ())]


def _stop_started(call: CommandContext, server: FoundServer) -> None:
    """Stop the server that this apply started, because nothing was committed to serve."""
    try:
        stop(server, within=10.0, force=True)
    except MullamaError as error:
        call.terminal.note(f"warning: the started server is still running: {error}")
    else:
        call.terminal.note("the started server is stopped")


def apply_body(
    request: ApplyRequest, *, allow_empty: bool = False, offline: bool = False, locked: bool = False
) -> dict[str, Any]:
    """Return the body of `PUT /api/v1/stack` that applies a manifest if its plan is still the one that was shown."""
    return {
        "manifest": request.tree,
        "origin": request.origin,
        "options": {
            "allow_empty": allow_empty,
            "offline": offline,
            "locked": locked,
            "targets": list(request.plan.targets),
            "expect": request.plan.base,
            "trigger": "apply",
            "by": user(),
        },
    }


def _send(call: CommandContext, server: FoundServer, request: ApplyRequest, view: ApplyView) -> int:
    """Send the manifest to the server and show its progress; return the exit code."""
    options = call.options
    body = apply_body(request, allow_empty=options.allow_empty, offline=options.offline, locked=options.locked)
    begun = time.monotonic()
    events = server.client.lines("PUT", "/api/v1/stack", body, within=options.timeout)
    try:
        result = view.run(events, until_committed=options.no_wait).result
    except TimedOut as error:
        raise TimedOut(
            f"the apply did not end within {duration_literal(options.timeout)}",
            hint="the server continues it; mullama status shows what it waits for",
        ) from error
    view.show_outcome()
    if result is None:
        return DONE
    code = outcome_code(result["outcome"])
    if code == DONE and not options.json:
        call.terminal.line(f"done in {time.monotonic() - begun:.1f} s")
    return code
