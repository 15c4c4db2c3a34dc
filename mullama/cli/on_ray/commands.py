"""`diff`, `apply`, `undo`, `status`, `logs` and `down` on a cluster of Ray, through its dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import load_manifest
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.app.exit_codes import DIFFERS, DONE, PARTLY, REFUSED
from mullama.cli.on_ray.options import DEFAULT_ADDRESS
from mullama.errors import Conflict, NotFound, Refused
from mullama.plan import report
from mullama.struct import Struct, replace

if TYPE_CHECKING:
    from mullama.export.ray_serve import RayInput
    from mullama.manifest.load import LoadedManifest
    from mullama.manifest.spec import Manifest
    from mullama.plan.observed import KnownFiles
    from mullama.plan.steps import Plan
    from mullama.store.lockfile import Lock
    from mullama.targets.ray.apply import RayTarget
    from mullama.targets.ray.cluster import Cluster, RayPlan

_WITHIN = 1800.0
"""Seconds for each wait of an apply without --timeout."""


class PreparedApply(Struct, frozen=True, kw_only=True):
    """An apply that is ready: the steps of the manifest, and those on the cluster."""

    target: RayTarget
    cluster: Cluster
    given: RayInput
    plan: Plan
    steps: RayPlan

    @property
    def empty(self) -> bool:
        return self.plan.empty and self.steps.empty


def diff(call: CommandContext) -> int:
    """Show the steps; exit with 2 if there are some."""
    prepared = _prepare(call, load_manifest(call))
    _show(call, prepared)
    return DONE if prepared.empty or call.options.exit_zero else DIFFERS


def apply(call: CommandContext) -> int:
    """Show the steps, ask, and carry them out."""
    loaded = load_manifest(call)
    if not loaded.manifest.models and not call.options.allow_empty:
        raise Refused(
            "the manifest has no models: applying it would remove every model", hint="--allow-empty applies it"
        )
    with _lock(call, loaded.manifest):
        prepared = _prepare(call, loaded)
        _show(call, prepared)
        return _carry_out(call, prepared, "Apply this?")


def undo(call: CommandContext) -> int:
    """Apply the manifest of an earlier revision again. The file of the manifest names the stack alone."""
    loaded = load_manifest(call)
    with _lock(call, loaded.manifest):
        target = _target(call, loaded.manifest)
        cluster = target.look()
        present = _snapshot(cluster, target.stack)
        if present is None:
            raise NotFound(f"the cluster has no stack {target.stack}", hint="mullama apply --on ray creates it")
        from mullama.manifest.tree import parse_resolved
        from mullama.reconcile.pins import read_lock
        from mullama.store.lockfile import lock_of

        kept = {int(entry["generation"]): entry for entry in present.get("history", ())}
        number = call.options.to if call.options.to is not None else max(kept, default=None)
        if number not in kept:
            numbers = ", ".join(map(str, kept)) or "none"
            raise NotFound(f"revision {number or 'before the present one'} is not kept", hint=f"kept: {numbers}")
        lock = lock_of(kept[number]["lock"]) if "lock" in kept[number] else read_lock(loaded.path)
        prepared = _plan(call, target, cluster, parse_resolved(kept[number]["manifest"]), lock)
        _show(call, prepared)
        return _carry_out(call, prepared, f"Go back to revision {number}?")


def down(call: CommandContext) -> int:
    """Remove the applications of the stack. Those of others keep running."""
    loaded = load_manifest(call)
    with _lock(call, loaded.manifest):
        target = _target(call, loaded.manifest)
        cluster = target.look()
        from mullama.targets.ray.cluster import plan_ray

        steps = plan_ray(cluster, {}, target.stack)
        if steps.empty:
            call.terminal.line(f"the cluster has no application of the stack {target.stack}")
            return DONE
        for line in _step_lines(steps):
            call.terminal.line(line)
        if not call.options.yes:
            if not call.terminal.interactive:
                raise Refused(
                    "down removes these applications, and there is no terminal to confirm it", hint="--yes confirms it"
                )
            if not call.terminal.confirm("Remove them?"):
                call.terminal.note("nothing was changed")
                return REFUSED
        target.apply(steps)
        call.terminal.line("the applications are removed")
        return DONE


def status(call: CommandContext) -> int:
    """Show the stack on the cluster; exit with 8 if a part of it does not run."""
    from mullama.targets.ray.apply import status_tree

    target = _target(call, load_manifest(call).manifest)
    tree = status_tree(target)
    if call.options.json:
        call.terminal.json(tree)
        return DONE if tree["state"] == "ready" else PARTLY
    call.terminal.line(f"stack {tree['stack']} on {tree['address']}, revision {tree['generation']}: {tree['state']}")
    call.terminal.table(
        ("NAME", "APPLICATION", "STATE", "REPLICAS", "MESSAGE"),
        (
            (
                row["name"],
                row["application"],
                row["state"],
                f"{row['running']}/{row['replicas']}",
                row["message"] or "-",
            )
            for row in tree["applications"]
        ),
    )
    return DONE if tree["state"] == "ready" else PARTLY


def logs(call: CommandContext) -> int:
    """Print the end of the log of each replica of the stack, or of one model."""
    from mullama.targets.ray.apply import log_places

    manifest = load_manifest(call).manifest
    target = _target(call, manifest)
    found = log_places(target, call.options.model)
    if not found:
        raise NotFound("no replica of the stack has a log", hint="mullama status --on ray lists the applications")
    for application, node, file in found:
        call.terminal.line(f"==> {application} {Path(file).name}")
        for line in target.dashboard.log(node, file, call.options.lines).splitlines():
            call.terminal.line(line)
    return DONE


def _target(call: CommandContext, manifest: Manifest) -> RayTarget:
    from mullama.export.ray_serve import http_options, stack_name
    from mullama.targets.ray.apply import RayTarget
    from mullama.targets.ray.dashboard import Dashboard

    address = call.options.address or call.env.get("RAY_DASHBOARD_ADDRESS") or DEFAULT_ADDRESS
    within = getattr(call.options, "timeout", None)
    return RayTarget(
        dashboard=Dashboard(address, call.env.get("RAY_AUTH_TOKEN", "")),
        stack=stack_name(manifest),
        settings={"proxy_location": "EveryNode", "http_options": http_options(manifest)},
        report=lambda text: call.terminal.note(text),
        within=_WITHIN if within is None else within,
    )


def _lock(call: CommandContext, manifest: Manifest) -> Any:
    """Return the lock that allows one command at a time on a stack from this machine.

    Commands of other machines are noticed by the number of the revision, which each step compares.
    """
    from mullama.export.ray_serve import stack_name
    from mullama.folders import state_root
    from mullama.store.records import Records

    return Records(state_root(call.env), f"ray-{stack_name(manifest)}").lock("apply", name="apply.lock")


def _snapshot(cluster: Cluster, stack: str) -> Mapping[str, Any] | None:
    from mullama.targets.ray.cluster import snapshot

    return snapshot(cluster, stack)


def _prepare(call: CommandContext, loaded: LoadedManifest) -> PreparedApply:
    from mullama.reconcile.pins import read_lock

    target = _target(call, loaded.manifest)
    return _plan(call, target, target.look(), loaded.manifest, read_lock(loaded.path))


def _plan(
    call: CommandContext, target: RayTarget, cluster: Cluster, manifest: Manifest, lock: Lock
) -> PreparedApply:  # fmt: skip
    from mullama import __version__
    from mullama.export.ray_serve import RayInput, applications
    from mullama.manifest.tree import parse_resolved, revision
    from mullama.plan.make import make_plan
    from mullama.plan.observed import Applied, Observed
    from mullama.plan.steps import Cause
    from mullama.reconcile.files import Files
    from mullama.store.lockfile import entry_tree
    from mullama.targets.ray.cluster import generation_of, history_after, plan_ray

    present = _snapshot(cluster, target.stack)
    number = generation_of(present) or 0
    applied = None
    if present is not None:
        before = parse_resolved(present["manifest"])
        applied = Applied(generation=number, revision=revision(before), manifest=before)
    old = [applied.manifest] if applied else []
    files = Files.here(call.env).known([manifest, *old], lock)
    _require_known(manifest, files)
    plan = make_plan(manifest, Observed(applied=applied, files=files))
    plan = replace(plan, steps=tuple(step for step in plan.steps if step.cause is Cause.DESIRED))
    given = RayInput(
        manifest=manifest, version=__version__, stack=target.stack, generation=number + 1, files=files,
        lock={source: entry_tree(entry) for source, entry in lock.items()},
        keys=_keys(manifest, call.env), history=history_after(present),
    )  # fmt: skip
    steps = plan_ray(cluster, applications(given), target.stack)
    return PreparedApply(target=target, cluster=cluster, given=given, plan=plan, steps=steps)


def _require_known(manifest: Manifest, files: Mapping[str, KnownFiles]) -> None:
    """Raise `Conflict` for a source whose files are neither locked nor here: replicas could get different ones."""
    for name, model in manifest.models.items():
        for source in model.all_sources:
            known = files.get(source)
            if known is None or known.digest is None:
                raise Conflict(
                    f"models.{name}: {source} is not in the lock file, so its replicas could get different files",
                    hint="mullama lock pins it",
                )


def _keys(manifest: Manifest, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the API keys by the digests of their secrets, which are read here."""
    from mullama.controller.api_keys import resolve_access

    return [
        {
            "name": key.name, "sha256": key.sha256.hex(), "models": list(key.models), "roles": list(key.roles),
            "priority": key.priority,
        }
        for key in resolve_access(manifest, 0, env).keys
    ]  # fmt: skip


def _show(call: CommandContext, prepared: PreparedApply) -> None:
    from mullama.export.ray_serve import notes
    from mullama.plan.steps import to_tree

    if getattr(call.options, "json", False) or getattr(call.options, "format", "text") == "json":
        call.terminal.json({**to_tree(prepared.plan), "ray": _steps_tree(prepared.steps)})
        return
    if getattr(call.options, "format", "text") != "text":
        raise UsageError("--format is text or json with --on ray")
    call.terminal.toned(report.lines(prepared.plan))
    for line in _step_lines(prepared.steps):
        call.terminal.line(line)
    for note in notes(prepared.given) if not prepared.empty else ():
        call.terminal.note(f"note: {note}")


def _steps_tree(steps: RayPlan) -> dict[str, Any]:
    return {
        "stack": steps.stack,
        "added": list(steps.added),
        "changed": list(steps.changed),
        "removed": list(steps.removed),
        "gateway": steps.gateway,
    }


def _step_lines(steps: RayPlan) -> list[str]:
    lines = [f"+ {name}  new application, loaded beside the present ones" for name in steps.added]
    lines += [f"~ {name}  changed in place" for name in steps.changed]
    lines += [f"- {name}  drained and removed after the switch" for name in steps.removed]
    words = {"add": "+ gateway  new", "change": "~ gateway  new snapshot", "remove": "- gateway  removed"}
    return [*lines, *([words[steps.gateway]] if steps.gateway in words else [])]


def _carry_out(call: CommandContext, prepared: PreparedApply, question: str) -> int:
    if prepared.empty:
        return DONE
    options = call.options
    if not options.yes:
        if call.terminal.interactive and not options.json:
            if not call.terminal.confirm(question):
                call.terminal.note("nothing was changed")
                return REFUSED
        elif any(step.destructive for step in prepared.plan.steps):
            raise Refused(
                "the plan removes models, and there is no terminal to confirm it",
                hint="--yes applies it; mullama diff shows it",
            )
    prepared.target.apply(prepared.steps)
    if not options.json:
        number, address = prepared.steps.generation, prepared.target.dashboard.address
        served = f"revision {number} serves on {address}"  # the present one where the gateway is kept
        call.terminal.line(served if number is not None else f"the applications on {address} are removed")
    return DONE
