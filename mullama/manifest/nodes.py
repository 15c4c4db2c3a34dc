"""The tree of a YAML document: values with their places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from mullama.problems import Location
from mullama.struct import Struct

T = TypeVar("T")
Plain = str | int | float | bool | None


class Leaf(Struct, frozen=True):
    """One scalar. `loose` text is the value of one environment reference: it takes the type of its field."""

    value: Plain
    place: Location
    loose: bool = False


class Items(Struct, frozen=True):
    """A list."""

    items: tuple[Node, ...]
    place: Location


class Fields(Struct, frozen=True):
    """A map: `entries` has the values and `keys` the places of the keys."""

    entries: Mapping[str, Node]
    keys: Mapping[str, Location]
    place: Location

    def get(self, key: str) -> Node | None:
        return self.entries.get(key)

    def put(self, key: str, node: Node, at: Location | None = None) -> Fields:
        """Return the map with `key` set. The place of a new key is `at`, or that of its value."""
        place = self.keys.get(key) or at or node.place
        return Fields({**self.entries, key: node}, {**self.keys, key: place}, self.place)

    def without(self, *keys: str) -> Fields:
        if not any(key in self.entries for key in keys):
            return self
        kept = {k: v for k, v in self.entries.items() if k not in keys}
        return Fields(kept, self.keys, self.place)


Node = Leaf | Items | Fields


def empty(place: Location) -> Fields:
    return Fields({}, {}, place)


def is_null(node: Node | None) -> bool:
    return isinstance(node, Leaf) and node.value is None


def text_of(node: Node | None) -> str | None:
    """Return the text of a leaf; None for another node or value."""
    return node.value if isinstance(node, Leaf) and isinstance(node.value, str) else None


def join(path: str, key: str | int) -> str:
    """Return the dotted path of an entry, or `path[2]` for an item."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


# Longer than the path of any field. Deeper nodes get the place of the node around them.
_LONGEST_PATH = 1000


def walk(node: Node, path: str = "", at: Location | None = None) -> Iterator[tuple[str, Location]]:
    """Yield each dotted path with its place: of a scalar its own, of a map or list that of its key."""
    if len(path) > _LONGEST_PATH:
        return
    if path:
        yield path, node.place if isinstance(node, Leaf) or at is None else at
    match node:
        case Fields(entries, keys):
            for key, child in entries.items():
                yield from walk(child, join(path, key), keys[key])
        case Items(items):
            for index, child in enumerate(items):
                yield from walk(child, join(path, index))
        case Leaf():
            pass


def nearest(path: str, where: Callable[[str], Location | None]) -> Location | None:
    """Return the place of a dotted path, or of the closest map or list around it that has one."""
    while path:
        if (place := where(path)) is not None:
            return place
        path = path[: path.rindex("[")] if path.endswith("]") else path.rpartition(".")[0]
    return None


Patterns = tuple[tuple[str, ...], ...]
"""Places in a tree, each given by the keys on the way to it; `*` is any key or item."""


def below(patterns: Patterns, key: str) -> Patterns:
    """Return the rest of each pattern that begins with `key`."""
    return tuple(pattern[1:] for pattern in patterns if pattern and pattern[0] in ("*", key))


def matches(path: Sequence[str | int], patterns: Patterns) -> bool:
    """True if a path of keys is at or below one of the patterns."""
    return any(
        len(path) >= len(pattern) and all(want in ("*", key) for want, key in zip(pattern, path, strict=False))
        for pattern in patterns
    )


def longest_prefix(path: str, table: Mapping[str, T]) -> T | None:
    """Return the entry of the longest dotted prefix of the path; None if the table has none."""
    parts = path.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((table[prefix] for prefix in prefixes if prefix in table), None)


def count(node: Node) -> int:
    """Return the number of values, lists and maps."""
    match node:
        case Leaf():
            return 1
        case Items(items):
            return 1 + sum(map(count, items))
        case Fields(entries):
            return 1 + sum(map(count, entries.values()))


def rewrite(node: Node, pattern: tuple[str, ...], change: Callable[[Leaf, str], Node], path: str = "") -> Node:
    """Return the tree with each leaf at `pattern` replaced by the result of `change(leaf, path)`."""
    if not pattern:
        return change(node, path) if isinstance(node, Leaf) else node
    step, rest = pattern[0], pattern[1:]
    match node:
        case Fields(entries):
            keys = list(entries) if step == "*" else [step] if step in entries else []
            changed = {key: rewrite(entries[key], rest, change, join(path, key)) for key in keys}
            if all(changed[key] is entries[key] for key in keys):
                return node
            return Fields({**entries, **changed}, node.keys, node.place)
        case Items(items) if step == "*":
            done = (rewrite(item, rest, change, join(path, i)) for i, item in enumerate(items))
            return Items(tuple(done), node.place)
        case _:
            return node
