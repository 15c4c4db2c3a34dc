"""Merges trees: profiles and defaults by JSON Merge Patch, included files by new names."""

from __future__ import annotations

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.nodes import Fields, Items, Node, Patterns, below, empty, is_null, join

# Objects with exactly one of several keys are replaced: a merge could leave two of the keys.
REPLACED = (
    ("models", "*", "template"),
    ("defaults", "template"),
    ("auth", "keys", "*", "secret"),
    ("sources", "hf", "token"),
    ("peers", "*", "key"),
    ("fleet", "hosts", "*", "key"),
    ("mcp", "*", "headers", "*"),
    ("mcp", "*", "oauth", "client_secret"),
    ("search", "key"),
)
WHOLE_IN_MODEL = (("template",),)

# Layers of models: null also removes the value of the layers below.
LAYERS = (("models", "*"), ("defaults",))

# Keys of an included file: maps of names, to which it adds, and lists, which it extends.
ADDED_MAPS = (("models",), ("routes",), ("groups",), ("mcp",), ("auth", "keys"), ("hardware", "profiles"))
ADDED_LISTS = ("moved",)


def merge(base: Node | None, overlay: Node, replaced: Patterns = REPLACED, keep: Patterns = ()) -> Node:
    """Return `overlay` merged over `base` (RFC 7396): maps merge, other values replace, null removes.

    Below `keep`, null is kept, because it also removes the value of a layer that is merged later.
    """
    if not isinstance(overlay, Fields):
        return overlay
    if not isinstance(base, Fields) or () in replaced:
        base = empty(overlay.place)
    kept = () in keep
    entries, keys = dict(base.entries), dict(base.keys)
    for key, node in overlay.entries.items():
        if is_null(node) and not kept:
            entries.pop(key, None)
            continue
        entries[key] = merge(entries.get(key), node, below(replaced, key), keep if kept else below(keep, key))
        keys[key] = overlay.keys[key]
    return Fields(entries, keys, overlay.place)


def refuse_nothing(root: Fields, report: Diagnostics) -> None:
    """Report names without a value; null has a meaning only in a profile, where it removes."""
    for path in ADDED_MAPS:
        node: Node | None = root
        for key in path:
            node = node.get(key) if isinstance(node, Fields) else None
        for name, entry in (node.entries if isinstance(node, Fields) else {}).items():
            if is_null(entry):
                where = ".".join((*path, name))
                report.settle(where, entry.place, "this name has no value", "add its fields, or remove it")


def add_fragment(main: Fields, fragment: Fields, report: Diagnostics) -> Fields:
    """Return the manifest with the names of an included file added; duplicate names are reported."""
    for key in fragment.entries:
        if key not in ("mullama", *ADDED_LISTS, *(path[0] for path in ADDED_MAPS)):
            allowed = "models, routes, groups, mcp, moved, auth.keys and hardware.profiles"
            report.add(key, fragment.keys[key], "an included file cannot contain this key", f"it may contain {allowed}")
    for path in ADDED_MAPS:
        main = _add(main, fragment, path, "", report)
    for key in ADDED_LISTS:
        main = _continue(main, fragment, key)
    return main


def _add(main: Fields, fragment: Fields, path: tuple[str, ...], at: str, report: Diagnostics) -> Fields:
    key, rest = path[0], path[1:]
    new, old = fragment.get(key), main.get(key)
    if new is None or is_null(new):
        return main
    where = join(at, key)
    if not isinstance(new, Fields):
        report.add(where, new.place, "expected a map")
        return main
    old = old if isinstance(old, Fields) else empty(new.place)
    if not rest:
        return main.put(key, _union(old, new, where, report), fragment.keys[key])
    for other in new.entries:
        if other != rest[0]:
            report.add(
                join(where, other), new.keys[other], "an included file cannot contain this key", f"only {rest[0]} here"
            )
    return main.put(key, _add(old, new, rest, where, report), fragment.keys[key])


def _union(old: Fields, new: Fields, at: str, report: Diagnostics) -> Fields:
    for key in new.entries:
        if key in old.entries:
            report.add(join(at, key), new.keys[key], f"this name is already used at {old.keys[key]}")
    added = {key: node for key, node in new.entries.items() if key not in old.entries}
    return Fields({**old.entries, **added}, {**new.keys, **old.keys}, old.place)


def _continue(main: Fields, fragment: Fields, key: str) -> Fields:
    new, old = fragment.get(key), main.get(key)
    if not isinstance(new, Items):
        return main if new is None or is_null(new) else main.put(key, new, fragment.keys[key])
    before = old.items if isinstance(old, Items) else ()
    return main.put(key, Items((*before, *new.items), new.place), fragment.keys[key])
