"""Short names such as `llama3.2:1b` and `llama3.2:1b-q8`, from the table of the package and the table of the user."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Final

from mullama.errors import Invalid, NotFound
from mullama.folders import config_root
from mullama.names import AliasRef, HubRef, ModelName, SourceRef, parse_source, repo_file, suggest
from mullama.struct import Struct
from mullama.weights.choose import SUFFIXES

_WAYS: Final = ("repo", "source", "tag")
_TEXTS: Final = (*_WAYS, "quant", "file", "mmproj", "family", "description")
_QUANT: Final = re.compile(r"(?:IQ|Q|TQ)[1-8](?:_[0-9A-Z]+)+|Q8_0|F16|BF16|F32", re.IGNORECASE)


class Alias(Struct, frozen=True, kw_only=True):
    """One entry of a table. It has one of `repo`, `source` and `tag`."""

    name: str
    repo: str = ""
    quant: str = ""
    file: str = ""
    mmproj: str = ""
    source: str = ""
    """A source text, for a name of another source than a hub repository."""
    tag: str = ""
    """The default tag of a family, for its bare name."""
    family: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    origin: str = "mullama"
    """The table: `mullama`, or the path of the user's file."""


class Expanded(Struct, frozen=True, kw_only=True):
    """The reference that a name stands for."""

    ref: SourceRef
    quants: tuple[str, ...] = ()
    """The quantisations that the suffix of the name allows, best first."""
    projector: HubRef | None = None
    guessed: bool = False
    """The name is in no table; Ollama's registry may have it."""


def tagged(tags: Collection[str]) -> tuple[str, ...]:
    """Return the names of the tables that have all of these tags, in their order."""
    return tuple(alias.name for alias in aliases().values() if {*tags} <= {*alias.tags})


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
    """Return what a reference stands for; any but an alias stands for itself.

    As in Ollama, a bare family means its default tag, and a name that no table has is one of Ollama's registry.
    Raises `NotFound` with similar names for a name that the registry cannot have.
    """
    if not isinstance(ref, AliasRef):
        return Expanded(ref=ref)
    name = ModelName.parse(ref.name).key
    if name in table:
        return _expand_alias(table[name], (), table)
    base, _, suffix = name.rpartition("-")
    quants = SUFFIXES.get(suffix, (suffix.upper(),) if _QUANT.fullmatch(suffix) else ())
    if base in table and quants:
        return _expand_alias(table[base], quants, table)
    if name.count("/") > 1:
        raise unknown(ref.name, table, "")
    try:
        return Expanded(ref=parse_source(f"ollama:{_without_prefix(ref.name)}"), guessed=True)
    except Invalid as error:
        raise unknown(ref.name, table, "") from error


def unknown(name: str, table: Mapping[str, Alias], tried: str) -> NotFound:
    """Return the error for a name that no table has. tried: the result of asking Ollama's registry, "" without."""
    near = suggest(ModelName.parse(name).key, table)
    like = f"did you mean {' or '.join(near)}? " if near else ""
    repository = name if name.count("/") == 1 and ":" not in name else "org/repo"
    hint = f"{like}hf:{repository} names a repository of the Hugging Face hub, ./model.gguf a file"
    return NotFound(
        f"{name!r} is not a known short name{f', and {tried}' if tried else ''}", name=name, near=near, hint=hint
    )


def _without_prefix(name: str) -> str:
    """Return a name without the host and namespace that Ollama's names have by default."""
    for prefix in ("registry.ollama.ai/", "library/"):
        if name.casefold().startswith(prefix):
            name = name[len(prefix) :]
    return name


def _expand_alias(alias: Alias, quants: tuple[str, ...], table: Mapping[str, Alias]) -> Expanded:
    if alias.tag and (tagged := table.get(f"{alias.name}:{alias.tag}".lower())):
        return _expand_alias(tagged, quants, table)
    if not alias.repo:
        source = alias.source or f"ollama:{alias.name}"
        if quants:
            raise Invalid(
                f"{alias.name} stands for {source}: another quantization of it cannot be requested",
                hint="name the tag of the registry, or a repository with hf:org/repo:QUANT",
            )
        return Expanded(ref=parse_source(source))
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
    if sum(bool(texts[key]) for key in _WAYS) != 1:
        raise Invalid(f"{what} needs one of {', '.join(_WAYS)}")
    parse_source(texts["source"] or (f"hf:{texts['repo']}" if texts["repo"] else f"ollama:{name}:{texts['tag']}"))
    for key in ("file", "mmproj"):
        if texts[key]:
            repo_file(texts[key])
    return Alias(name=name, tags=tuple(tags), origin=origin, **texts)
