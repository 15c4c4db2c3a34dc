"""The plans that the page shows and applies: of the server's manifest, of a file, and of an undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer, load_manifest, origin, user
from mullama.cli.manifest.apply import ApplyRequest, apply_body, apply_lock
from mullama.cli.manifest.planning import if_match, plan_for, require_files
from mullama.cli.page.server_access import PageServer
from mullama.errors import ManifestError, MullamaError
from mullama.plan.steps import Plan, from_tree
from mullama.problems import Problem
from mullama.struct import Struct

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest

Events = Iterator[Mapping[str, Any]]
"""The events of an apply, as the server sends them."""


class ShownPlan(Struct, frozen=True, kw_only=True):
    """A plan with the way to apply it."""

    title: str
    """The manifest or revision that it is of."""
    plan: Plan
    apply: Callable[[], Events]
    """Apply exactly this plan. Raises `Conflict` if the server has changed since it was made."""
    warnings: tuple[str, ...] = ()
    removes_all: bool = False
    """The manifest has no models."""


def manifest_plan(server: PageServer) -> ShownPlan:
    """Return the plan of the file that `-f` names, else of the manifest that the server follows.

    Raises `ManifestError` for mistakes in the manifest, `NotFound` for a server that follows no file, and `Denied` for
    a key that may not read its manifest.
    """
    return _file_plan(server) if server.call.options.file is not None else _followed_plan(server)


def undo_plan(server: PageServer, to: int) -> ShownPlan:
    """Return the plan to apply revision `to` again."""
    plan = from_tree(server.find().client.get(f"/api/v1/undo?to={to}"))

    def apply() -> Events:
        return server.find().client.lines("POST", "/api/v1/undo", {"to": to, "by": user()}, headers=if_match(plan))

    return ShownPlan(title=f"undo: back to revision {to}", plan=plan, apply=apply)


def revisions(server: PageServer) -> list[Mapping[str, Any]]:
    """Return the revisions of the server, newest first."""
    found: list[Mapping[str, Any]] = list(server.find().client.get("/api/v1/history")["generations"])
    return sorted(found, key=lambda one: -int(one["generation"]))


def _followed_plan(server: PageServer) -> ShownPlan:
    client = server.find().client
    file = client.get("/api/v1/manifest")
    answer = client.post("/api/v1/manifest/plan", {"text": file["text"]})
    if answer["problems"]:
        raise ManifestError(tuple(Problem.from_tree(problem) for problem in answer["problems"]))
    plan, empty = from_tree(answer["plan"]), bool(answer.get("removes_all"))  # absent from older servers

    def apply() -> Events:
        # The question before it names the removal of all models.
        body = {"text": file["text"], "digest": file["digest"], "allow_empty": empty}
        return server.find().client.lines("PUT", "/api/v1/manifest", body, headers=if_match(plan))

    warnings = tuple(str(Problem.from_tree(warning)) for warning in answer["warnings"])
    readonly = f" (not saved by the server: {file['readonly']})" if file["readonly"] else ""
    return ShownPlan(title=f"{file['path']}{readonly}", plan=plan, apply=apply, warnings=warnings, removes_all=empty)


def _file_plan(server: PageServer) -> ShownPlan:
    call = server.call
    loaded, found = load_manifest(call), server.find()
    plan = plan_for(call, loaded, found)
    require_files(call, plan, loaded)
    empty = not loaded.manifest.models
    return ShownPlan(
        title=str(loaded.path or "standard input"),
        plan=plan,
        apply=lambda: _apply_file(server, found, loaded, plan, allow_empty=empty),
        warnings=tuple(map(str, loaded.warnings)),
        removes_all=empty,
    )


def _apply_file(
    server: PageServer, found: FoundServer, loaded: LoadedManifest, plan: Plan, *, allow_empty: bool
) -> Events:
    from mullama.manifest.tree import manifest_to_tree

    request = ApplyRequest(tree=manifest_to_tree(loaded.manifest), origin=origin(loaded), plan=plan)
    with apply_lock(server.call, loaded):
        yield from found.client.lines("PUT", "/api/v1/stack", apply_body(request, allow_empty=allow_empty))


def mistakes(error: MullamaError) -> tuple[str, ...]:
    """Return each mistake of a manifest with its place; nothing for another error."""
    return tuple(map(str, error.problems)) if isinstance(error, ManifestError) else ()
