"""The host of a fleet that answers a command of one server: `run` and `chat` ask one that has the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, UsageError
from mullama.cli.on_fleet.fleet_call import find_fleet
from mullama.cli.on_fleet.views import ask, errors_of, good
from mullama.errors import Invalid, NotFound
from mullama.names import ModelName

_FREE = ("ready", "degraded", "loading", "idle")
"""The states of a model from the one that answers first; any other is last."""


def serving_host(call: CommandContext, name: str | None, changes: Mapping[str, Any]) -> FoundServer | None:
    """Return a host of the fleet of the command that serves a model; None without a fleet.

    name: None for the default model. changes: fields of a model that the command would declare. Raises `NotFound` for a
    model that no host serves, `UsageError` for changes, and the error of a host if none answers.
    """
    fleet = find_fleet(call)
    if fleet is None:
        return None
    if changes:
        raise UsageError(
            "the models of a fleet are declared in its manifest, and a command cannot change one",
            hint="leave out the options of the model, or change the manifest and run mullama apply",
        )
    answers = ask(fleet, "/api/v1/status")
    host = host_for(good(answers), name)
    if host is None:
        for error in errors_of(answers):
            call.terminal.note(f"error: {error.message}")
        raise NotFound(f"no host of the fleet serves {name}", hint="mullama list -f FILE lists the models of all hosts")
    return FoundServer(client=fleet.hosts[host].client)


def host_for(statuses: Mapping[str, Mapping[str, Any]], name: str | None) -> str | None:
    """Return the host that answers for a model; None if no host does.

    It is one that has the model ready, with the fewest requests; else one with a route of this name. statuses: by host,
    that of each one that answers.
    """
    best = min(
        (
            (*_order(row), host)
            for host, tree in statuses.items()
            for row in tree["models"]
            if name is not None and _same(row["name"], name)
        ),
        default=None,
    )
    if best is not None:
        return best[-1]
    wanted = "default" if name is None else name
    routed = [
        host for host, tree in statuses.items() if any(_same(route, wanted) for route in tree.get("routes") or ())
    ]
    return next(iter([*routed, *statuses] if name is None else routed), None)


def _order(row: Mapping[str, Any]) -> tuple[int, int]:
    state = row["state"]
    return (
        _FREE.index(state) if state in _FREE else len(_FREE),
        int(row.get("active") or 0) + int(row.get("waiting") or 0),
    )


def _same(one: str, other: str) -> bool:
    try:
        return ModelName.parse(one).key == ModelName.parse(other).key
    except Invalid:  # a source
        return one == other
