"""The references to secrets of a manifest, and the same manifest with all of them as environment variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from mullama.manifest.spec import Block, Manifest, SecretRef
from mullama.struct import Struct

_ADDRESS_SECRET = re.compile(r"\bfrom_env:([A-Za-z_][A-Za-z0-9_]*)")
_UNFIT = re.compile(r"[^A-Z0-9]+")
_AnyBlock = TypeVar("_AnyBlock", bound=Block)
_Change = Callable[[SecretRef, str], SecretRef]


class SecretVariable(Struct, frozen=True, kw_only=True):
    """An environment variable with a secret."""

    name: str
    optional: bool
    use: str
    """The field of the manifest that has the reference."""


def environment_of(manifest: Manifest) -> tuple[SecretVariable, ...]:
    """Return the environment variables that a manifest reads, sorted by name."""
    found: dict[str, SecretVariable] = {}

    def note(reference: SecretRef, path: str) -> SecretRef:
        if reference.from_env is not None:
            _add(found, reference.from_env, reference.optional, path)
        return reference

    _walk(manifest, "", note)
    return _sorted(manifest, found)


def secret_files(manifest: Manifest) -> tuple[str, ...]:
    """Return the absolute paths of the files with secrets, sorted."""
    found: set[str] = set()

    def note(reference: SecretRef, path: str) -> SecretRef:
        if reference.from_file is not None:
            found.add(reference.from_file)
        return reference

    _walk(manifest, "", note)
    return tuple(sorted(found))


def with_variables(manifest: Manifest) -> tuple[Manifest, tuple[SecretVariable, ...]]:
    """Return the manifest with its secrets of files as variables, and all of its variables, sorted by name.

    A file of a secret must be readable by its owner alone, which a file that is mounted for a user is not.
    """
    found: dict[str, SecretVariable] = {}

    def change(reference: SecretRef, path: str) -> SecretRef:
        name = reference.from_env or f"MULLAMA_{_UNFIT.sub('_', path.upper()).strip('_')}"
        _add(found, name, reference.optional, path)
        return reference.model_copy(update={"from_env": name, "from_file": None})

    return _walk(manifest, "", change), _sorted(manifest, found)


def _add(found: dict[str, SecretVariable], name: str, optional: bool, use: str) -> None:
    known = found.get(name)
    found[name] = SecretVariable(
        name=name, optional=optional and (known is None or known.optional), use=known.use if known else use
    )


def _sorted(manifest: Manifest, found: dict[str, SecretVariable]) -> tuple[SecretVariable, ...]:
    for name, source in _address_secrets(manifest):
        _add(found, name, False, f"the address {source}")
    return tuple(found[name] for name in sorted(found))


def _address_secrets(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the variables in the queries of addresses, and the address of each."""
    for model in manifest.models.values():
        for source in model.all_sources:
            for name in _ADDRESS_SECRET.findall(source):
                yield name, source


def _walk(block: _AnyBlock, path: str, change: _Change) -> _AnyBlock:
    """Return the block with each reference as `change` returns it."""
    changed = {}
    for field in type(block).model_fields:
        value = getattr(block, field)
        new = _walked(value, f"{path}.{field}" if path else field, change)
        if new is not value:
            changed[field] = new
    return block.model_copy(update=changed) if changed else block


def _walked(value: object, path: str, change: _Change) -> object:
    match value:
        case SecretRef():
            return change(value, path)
        case Block():
            return _walk(value, path, change)
        case dict() if any(isinstance(item, Block) for item in value.values()):
            return {key: _walked(item, f"{path}.{key}", change) for key, item in value.items()}
        case tuple() if any(isinstance(item, Block) for item in value):
            return tuple(_walked(item, f"{path}.{at}", change) for at, item in enumerate(value))
        case _:
            return value
