"""Checks of groups: names that exist, and no more models that load at start than a group loads at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mullama.manifest.diagnostics import Suggestions
from mullama.manifest.spec import Manifest
from mullama.units import counted

_AddProblem = Callable[[str, str, str], None]


def check_groups(
    manifest: Manifest, models: Collection[str], suggest: Suggestions, fail: _AddProblem, warn: _AddProblem
) -> None:
    """Report the mistakes of all groups. models: the names of all models, also of those with mistakes."""
    for group_name, group in manifest.groups.items():
        path = f"groups.{group_name}"
        for index, name in enumerate(group.models):
            if name in group.models[:index]:
                fail(f"{path}.models[{index}]", f"{name} is listed twice", "keep one of them")
            elif name not in models:
                fail(f"{path}.models[{index}]", f"there is no model {name[:80]!r}", suggest(name, models))
        known = {name: manifest.models[name] for name in group.models if name in manifest.models}
        if group.max >= len(group.models):
            warn(f"{path}.max", f"no effect: the group has no more than {counted(group.max, 'model')}", "")
        starting = [name for name, model in known.items() if model.residency.load == "at_start"]
        if len(starting) > group.max:
            fail(
                f"models.{starting[group.max]}",
                f"the group {group_name} loads {group.max} of its models at a time, and {len(starting)} load at start: "
                f"{', '.join(starting)}",
                "set residency.load: on_demand or when_room for the others",
            )
