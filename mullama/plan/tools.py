"""The tools of servers in a plan: those that are pinned against those that the servers list now. Pure.

A pin is a digest of name, description and schema. A model gets a tool exactly as it is pinned, so a server that changes
one does not change the prompts of models: the plan shows it, as drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mullama.manifest.spec import Manifest
from mullama.plan.steps import Action, Cause, Cost, Step
from mullama.struct import Struct

ToolPins = Mapping[str, str]
"""The digest of each tool of one server, by its name."""
KIND = "tools"
"""The kind of the steps; their subject is `mcp.NAME`."""
_MOST_NAMED = 5


class ObservedTools(Struct, frozen=True, kw_only=True):
    """The tools of one server."""

    pinned: ToolPins | None = None
    """None for a server whose tools were never listed since it is declared as it is."""
    listed: ToolPins | None = None
    """None for a server that does not answer."""
    locked: bool = False
    """The pins are those of the lock file, which an apply does not change."""


class ToolChanges(Struct, frozen=True, kw_only=True):
    """The names of tools that differ between pins and a list, sorted."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)

    def __str__(self) -> str:
        """Return a clause: `search changed, write is new`."""
        parts = ((self.changed, "changed"), (self.added, "is new"), (self.removed, "is gone"))
        return "; ".join(
            f"{_some(names)} {verb if len(names) == 1 else _PLURAL[verb]}" for names, verb in parts if names
        )


_PLURAL = {"changed": "changed", "is new": "are new", "is gone": "are gone"}


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def compare_tools(pinned: ToolPins, listed: ToolPins) -> ToolChanges:
    """Return the differences between the pins and the present list."""
    return ToolChanges(
        changed=tuple(sorted(name for name in pinned.keys() & listed.keys() if pinned[name] != listed[name])),
        added=tuple(sorted(listed.keys() - pinned.keys())),
        removed=tuple(sorted(pinned.keys() - listed.keys())),
    )


def tool_steps(old: Manifest, desired: Manifest, observed: Mapping[str, ObservedTools]) -> Iterator[Step]:
    """Yield a step for each server whose tools are not those that are pinned.

    A server that is new or declared otherwise has its own change, and its tools are pinned with it.
    """
    for name, server in desired.mcp.items():
        found = observed.get(name)
        if found is None or found.pinned is None or found.listed is None or old.mcp.get(name) != server:
            continue
        if changes := compare_tools(found.pinned, found.listed):
            rest = "mullama lock --update pins them" if found.locked else "use them as they are now"
            yield Step(
                subject=f"mcp.{name}", kind=KIND, action=Action.REPAIR, cause=Cause.DRIFT, cost=Cost.LIVE,
                detail=f"{changes}: {rest}",
            )  # fmt: skip


def server_of(step: Step) -> str:
    """Return the server of a step of this kind."""
    return step.subject.removeprefix("mcp.")
