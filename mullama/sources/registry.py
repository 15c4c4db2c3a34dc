"""The table of sources: one line for each kind of reference."""

from __future__ import annotations

from typing import Literal, assert_never

from mullama.errors import Internal, Invalid, NotFound
from mullama.names import AliasRef, BuiltinRef, HubRef, PathRef, RegistryRef, SourceRef, UrlRef
from mullama.sources.base import Cancelled
from mullama.sources.builtin import Builtin
from mullama.sources.file import PathSource
from mullama.sources.settings import Settings
from mullama.sources.url import UrlSource
from mullama.struct import replace
from mullama.weights.located import Located, LocatedFile
from mullama.weights.stored import LockEntry

Wanted = Literal["weights", "text", "projector", "adapter"]
"""`weights` includes their projector, and `text` leaves it out."""


def locate(
    ref: SourceRef, settings: Settings, cancelled: Cancelled, quants: tuple[str, ...], wanted: Wanted
) -> Located:
    """Return the files of a reference, as its source has them now. Imports modules that use a network on demand."""
    match ref:
        case BuiltinRef():
            return Builtin(projector=wanted == "weights").locate(ref, cancelled)
        case PathRef():
            return PathSource(projector=wanted == "weights").locate(ref, cancelled)
        case UrlRef():
            return UrlSource(settings.env).locate(ref, cancelled)
        case HubRef():
            return _hub(ref, settings, cancelled, quants, wanted)
        case RegistryRef():
            return _registry(ref, settings, cancelled, wanted)
        case AliasRef():
            raise Internal(f"the short name {ref} was not expanded")
        case _:
            assert_never(ref)


def addresses(ref: SourceRef, entry: LockEntry, settings: Settings, cancelled: Cancelled) -> tuple[LocatedFile, ...]:
    """Return the address of each file of a lock entry, by its revision; a hub is sent no request."""
    match ref:
        case HubRef():
            from mullama.sources.huggingface import pinned_files

            return pinned_files(ref, entry.revision or "", [file.name for file in entry.files], settings.hub)
        case RegistryRef():
            from mullama.sources.http_client import open_web
            from mullama.sources.ollama import Ollama

            with open_web(settings, cancelled) as web:
                return Ollama(web).pinned_files(ref, [file.digest for file in entry.files])
        case UrlRef():
            return UrlSource(settings.env).locate(ref, cancelled).files
        case BuiltinRef() | PathRef() | AliasRef():
            raise Invalid(f"the lock entry of {entry.source} names {ref}, which is not downloaded")
        case _:
            assert_never(ref)


def _hub(ref: HubRef, settings: Settings, cancelled: Cancelled, quants: tuple[str, ...], wanted: Wanted) -> Located:
    from mullama.sources.http_client import open_web
    from mullama.sources.huggingface import HuggingFace

    with open_web(settings, cancelled) as web:
        return HuggingFace(web, settings.hub, quants=quants, wanted=wanted).locate(ref, cancelled)


def _registry(ref: RegistryRef, settings: Settings, cancelled: Cancelled, wanted: Wanted) -> Located:
    from mullama.sources.http_client import open_web
    from mullama.sources.ollama import Ollama

    with open_web(settings, cancelled) as web:
        found = Ollama(web).locate(ref, cancelled)
    match wanted:
        case "adapter":
            return _only(found, "adapter", "adapters")
        case "projector":
            return _only(found, "projector", "projectors")
        case "text":
            return without_projector(found)
        case "weights":
            return found


def without_projector(found: Located) -> Located:
    """Return the files without a projector."""
    return replace(found, files=tuple(file for file in found.files if file.role != "projector"))


def _only(found: Located, role: str, several: str) -> Located:
    """Return the one file of this role of a model of a registry without the model's other files."""
    files = tuple(replace(file, role="weights") for file in found.files if file.role == role)
    if len(files) != 1:
        count = f"{len(files)} {several}" if files else f"no {role}"
        raise NotFound(f"{found.source} has {count}", hint=f"a source of such a file has one {role}", name=found.source)
    return replace(found, files=files)
