"""Short names such as `llama3.2:1b` and `llama3.2:1b-q8`, from the table of the package and the table of the user."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from mullama.errors import Invalid, NotFound
from mullama.folders import config_root
from mullama.names import AliasRef, HubRef, SourceRef, parse_source, repo_file, suggest
from mullama.weights.choose import SUFFIXES

_TEXTS: Final = ("repo", "quant", "file", "mmproj", "family", "description", "source")
_QUANT: Final = re.compile(r"(?:IQ|Q|TQ)[1-8](?:_[0-9A-Z]+)+|Q8_0|F16|BF16|F32", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """One entry of a table. It has either `repo` or `source`."""

    name: str
    repo: str = ""
    quant: str = ""
    file: str = ""
    mmproj: str = ""
    source: str = ""
    """A source text, for a name of another source than a hub repository."""
    family: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    origin: str = "mullama"
    """The table: `mullama`, or the path of the user's file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """The reference that a name stands for."""

    ref: SourceRef
    quants: tuple[str, ...] = ()
    """The quantisations that the suffix of the name allows, best first."""
    projector: HubRef | None = None


def aliases(env: Mapping[str, str] | None = None) -> Mapping[str, Alias]:
    """Return all entries by name in lower case; entries of the user replace those of the package."""
    path = config_root(os.environ if env is None else env) / "aliases.toml"
    try:
        own = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _package_table()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from error
    return {**_package_table(), **read_table(own, str(path))}


def expand(ref: SourceRef, table: Mapping[str, Alias]) -> Expanded:
    """Return what a reference stands for; any but an alias stands for itself. Raises `NotFound` with similar names."""
    if not isinstance(ref, AliasRef):
        return Expanded(ref=ref)
    name = ref.name.lower().removesuffix(":latest")
    if name in table:
        return _expand_alias(table[name], ())
    base, _, suffix = name.rpartition("-")
    quants = SUFFIXES.get(suffix, (suffix.upper(),) if _QUANT.fullmatch(suffix) else ())
    if base in table and quants:
        return _expand_alias(table[base], quants)
    raise NotFound(
        f"{ref.name!r} is not a known short name",
        name=ref.name,
        near=suggest(name, table),
        hint=_hint(ref.name, suggest(name, table)),
    )


def _hint(name: str, close: tuple[str, ...]) -> str:
    like = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{like}ollama:{name} asks Ollama's registry, hf:org/repo the Hugging Face hub"


def _expand_alias(alias: Alias, quants: tuple[str, ...]) -> Expanded:
    if alias.source:
        if quants:
            raise Invalid(f"{alias.name} stands for {alias.source}: another quantization of it cannot be requested")
        return Expanded(ref=parse_source(alias.source))
    file = None if quants else alias.file or None
    quant = None if quants or file else alias.quant or None
    projector = HubRef(alias.repo, alias.mmproj) if alias.mmproj else None
    return Expanded(ref=HubRef(alias.repo, file, quant), quants=quants, projector=projector)


@cache
def _package_table() -> Mapping[str, Alias]:
    from importlib import resources

    text = resources.files("mullama.sources").joinpath("aliases.toml").read_text(encoding="utf-8")
    return read_table(text, "mullama")


def read_table(text: str, origin: str) -> dict[str, Alias]:
    """Return the table in a TOML text; raise `Invalid` that names the entry."""
    import tomllib  # most commands read no table, and should not wait for this

    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{origin} is not TOML: {error}") from error
    entries = tree.get("aliases")
    if not isinstance(entries, dict) or set(tree) != {"aliases"}:
        raise Invalid(f"{origin} must hold [aliases.NAME] entries and nothing else")
    return {name.lower(): _alias(name, entry, origin) for name, entry in entries.items()}


def _alias(name: str, entry: Any, origin: str) -> Alias:
    what = f"{origin}: aliases.{name}"
    if not isinstance(entry, dict):
        raise Invalid(f"{what} is not a table")
    unknown = sorted(set(entry) - {*_TEXTS, "tags"})
    if unknown:
        raise Invalid(f"{what} has the unknown key {unknown[0]!r}", hint=f"one of {', '.join((*_TEXTS, 'tags'))}")
    texts = {key: entry.get(key, "") for key in _TEXTS}
    tags = entry.get("tags", [])
    if not all(isinstance(value, str) for value in (*texts.values(), *tags)) or not isinstance(tags, list):
        raise Invalid(f"{what}: every value is a text, tags a list of texts")
    if bool(texts["repo"]) == bool(texts["source"]):
        raise Invalid(f"{what} needs either repo or source")
    parse_source(texts["source"] or f"hf:{texts['repo']}")
    for key in ("file", "mmproj"):
        if texts[key]:
            repo_file(texts[key])
    return Alias(name=name, tags=tuple(tags), origin=origin, **texts)
