"""Sets fields in the text of a configuration file. Every other character stays, also comments and the order of keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mullama.clients import jsonc, toml_text, yaml_text
from mullama.clients.base import Edit, Form, ListEntry, PathStep
from mullama.clients.spans import DamagedText, nested
from mullama.errors import Invalid, Refused

MISSING = object()
"""Stands for the value of a field that a file does not have."""


class _TextForm(NamedTuple):
    read: Callable[[str], Any]
    """Returns the tree of a text; raises `DamagedText`."""
    put: Callable[[str, Sequence[PathStep], Any], str]
    """Returns the text with a value at a path. The types of the nodes on the way fit."""


_FORMS: Mapping[Form, _TextForm] = {
    "jsonc": _TextForm(jsonc.read, jsonc.put),
    "yaml": _TextForm(yaml_text.read, yaml_text.put),
    "toml": _TextForm(toml_text.read, toml_text.put),
}


def read_tree(form: Form, text: str, name: str) -> Any:
    """Return the tree of a file, None for an empty one.

    name: the file, for messages. Raises `Invalid` with line and column for a damaged text.
    """
    try:
        return _FORMS[form].read(text)
    except DamagedText as error:
        raise Invalid(
            f"{name}:{error.line}:{error.column}: {error.message}", hint="repair the file; nothing was changed"
        ) from error


def edited(form: Form, text: str, edits: Sequence[Edit], name: str) -> str:
    """Return the text with each field set.

    Raises `Invalid` for a damaged text, and `Refused` where a field cannot be set without changing more of the file.
    """
    tree = read_tree(form, text, name)
    made = text
    for edit in edits:
        if edit.only_missing and value_at(tree, edit.path) is not MISSING:
            continue
        wanted = with_value(tree, edit.path, edit.value, name)
        if wanted != tree:
            made, tree = _put(form, made, edit, name), wanted
    try:
        is_right = _FORMS[form].read(made) == tree
    except DamagedText:
        is_right = False
    if not is_right:
        raise _unfit(name)
    return made


def _put(form: Form, text: str, edit: Edit, name: str) -> str:
    try:
        return _FORMS[form].put(text, edit.path, edit.value)
    except DamagedText as error:
        raise _unfit(name) from error


def value_at(tree: Any, path: Sequence[PathStep]) -> Any:
    """Return the value at a path, `MISSING` without one."""
    for step in path:
        tree = _child(tree, step)
        if tree is MISSING:
            break
    return tree


def with_value(tree: Any, path: Sequence[PathStep], value: Any, name: str, done: tuple[PathStep, ...] = ()) -> Any:
    """Return the tree with a value at a path; a map is merged into the one that is there.

    Raises `Refused` where the path leads through a value that is neither a map nor a list, as its steps need it.
    """
    if not path:
        if isinstance(value, Mapping) and isinstance(tree, dict):
            for key, inner in value.items():
                tree = with_value(tree, (key,), inner, name, done)
            return tree
        if isinstance(value, Mapping) and tree is not None and tree is not MISSING:
            raise _misfit(name, done, "a map")
        return nested((), value)
    step, rest = path[0], path[1:]
    before = None if tree is MISSING else tree
    if not isinstance(before, list if isinstance(step, ListEntry) else dict | None) and before is not None:
        raise _misfit(name, done, "a list" if isinstance(step, ListEntry) else "a map")
    child = _child(before, step)
    made = with_value(child, rest, value, name, (*done, step))
    if isinstance(step, str):
        return {**(before if isinstance(before, dict) else {}), step: made}
    if child is MISSING:
        return [*(before or []), nested((step,), made)[0]]
    return [made if entry is child else entry for entry in before or []]


def shown_path(path: Sequence[PathStep]) -> str:
    """Return a path as text, such as `models.[chat].apiBase`."""
    return ".".join(map(str, path))


def leaves(edit: Edit) -> list[Edit]:
    """Return the edit of each single field that an edit sets."""
    if not isinstance(edit.value, Mapping):
        return [edit]
    parts = (Edit(path=(*edit.path, key), value=inner, only_missing=edit.only_missing) for key, inner in
             edit.value.items())  # fmt: skip
    return [leaf for part in parts for leaf in leaves(part)]


def _child(tree: Any, step: PathStep) -> Any:
    if isinstance(step, str):
        return tree.get(step, MISSING) if isinstance(tree, dict) else MISSING
    entries = tree if isinstance(tree, list) else ()
    return next((e for e in entries if isinstance(e, dict) and e.get(step.key) == step.value), MISSING)


def _unfit(name: str) -> Refused:
    return Refused(
        f"{name} cannot be edited without changing more of it",
        hint="write the fields by hand, in the forms of the page on clients",
    )


def _misfit(name: str, path: tuple[PathStep, ...], kind: str) -> Refused:
    where = shown_path(path) or "the file"
    return Refused(f"{name}: {where} is not {kind}", hint="change it by hand, then try again")
