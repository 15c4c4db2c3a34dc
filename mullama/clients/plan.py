"""The difference between the files of a client and its declaration. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.clients.base import ClientFile, Edit, Form
from mullama.clients.edits import MISSING, edited, leaves, read_tree, shown_path, value_at
from mullama.errors import masked
from mullama.names import JSONValue
from mullama.plan.steps import Cause
from mullama.struct import Struct

_SECRET = re.compile(r"key|token|secret|password|helper|headers", re.IGNORECASE)
_LONGEST = 80
_MARK = "\ufeff"  # the byte order mark, which some editors write first


class ClientChange(Struct, frozen=True, kw_only=True):
    """One field of a file that differs from its declaration."""

    path: str
    before: str | None
    """The value in the file as JSON, masked where it may be a secret; None for a missing field."""
    after: str | None
    """The declared value as JSON; None for a field that an earlier apply has set and that is not declared any more."""
    cause: Cause
    """Drift for a field that an apply has set and something else has changed since."""

    def __str__(self) -> str:
        if self.after is None:
            return f"- {self.path}: {self.before}"
        if self.before is None:
            return f"+ {self.path}: {self.after}"
        drift = "  (drift)" if self.cause is Cause.DRIFT else ""
        return f"~ {self.path}: {self.before} -> {self.after}{drift}"


class ClientFilePlan(Struct, frozen=True, kw_only=True):
    """The change of one file."""

    client: str
    path: str
    form: Form
    before: str | None
    """The text of the file; None for a missing file."""
    after: str
    changes: tuple[ClientChange, ...]
    values: Mapping[str, JSONValue]
    """Each declared field by its path."""


def plan_file(
    client: str,
    file: ClientFile,
    text: str | None,
    applied: Mapping[str, JSONValue] | None = None,
    base: str | None = None,
) -> ClientFilePlan:
    """Return the change of a file.

    text: None for a missing file. applied: the fields as the last apply has set them. base: the text before all
    applies, if only they have changed it; the fields are set in it, so that those of earlier applies are gone.

    Raises `Invalid` with line and column for a damaged file, `Refused` where a field has another type in the file.
    """
    present = text or ""
    mark = _MARK if present.startswith(_MARK) else ""
    tree = read_tree(file.form, present.removeprefix(mark), file.path)
    start = present if base is None else base
    after = mark + edited(file.form, start.removeprefix(mark), file.edits, file.path)
    fields = [leaf for edit in file.edits for leaf in leaves(edit)]
    found = [_change(field, value_at(tree, field.path), applied or {}) for field in fields]
    if base is not None:
        left = (applied or {}).keys() - {shown_path(field.path) for field in fields}
        found += [
            ClientChange(path=path, before=_json((applied or {})[path]), after=None, cause=Cause.DESIRED)
            for path in sorted(left)
        ]
    return ClientFilePlan(
        client=client, path=file.path, form=file.form, before=text, after=after,
        changes=tuple(change for change in found if change is not None),
        values={shown_path(field.path): field.value for field in fields if not field.only_missing},
    )  # fmt: skip


def _change(field: Edit, before: Any, applied: Mapping[str, JSONValue]) -> ClientChange | None:
    value = list(field.value) if isinstance(field.value, tuple) else field.value
    if before == value or (field.only_missing and before is not MISSING):
        return None
    path = shown_path(field.path)
    is_drift = path in applied and applied[path] == value
    return ClientChange(
        path=path,
        before=None if before is MISSING else _shown(field.path, before),
        after=_json(value),
        cause=Cause.DRIFT if is_drift else Cause.DESIRED,
    )


def _shown(path: Sequence[object], value: Any) -> str:
    is_secret = _SECRET.search(str(path[-1])) is not None and not isinstance(value, bool | int)
    return "***" if is_secret else _json(value)


def _json(value: Any) -> str:
    text = masked(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
