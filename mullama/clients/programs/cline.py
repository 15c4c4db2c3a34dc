"""Cline: a provider in the `providers.json` of its command."""

from __future__ import annotations

from mullama.clients.base import (
    NO_KEY,
    ClientFile,
    ClientProgram,
    Edit,
    ServedModel,
    StartCommand,
    UserFolders,
    present,
)

_PROVIDER = "openai-compatible"


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    settings = present(
        provider=_PROVIDER,
        apiKey=NO_KEY if served.key is None else None,
        model=served.model,
        baseUrl=served.openai,
        contextWindow=served.context,
        maxTokens=served.answer,
    )
    entry = ("providers", _PROVIDER)
    edits = (
        Edit(path=("version",), value=1, only_missing=True),
        Edit(path=("modes",), value={}, only_missing=True),
        Edit(path=("lastUsedProvider",), value=_PROVIDER),
        Edit(path=(*entry, "settings"), value=settings),
        # Required: the time and the kind of the last sign-in.
        Edit(path=(*entry, "updatedAt"), value="1970-01-01T00:00:00.000Z", only_missing=True),
        Edit(path=(*entry, "tokenSource"), value="manual", only_missing=True),
    )
    path = f"{folders.home}/.cline/data/settings/providers.json"
    return (ClientFile(path=path, form="jsonc", edits=edits),)


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(words=("cline", "-P", _PROVIDER, "-m", served.model))


def _notes(served: ServedModel) -> tuple[str, ...]:
    if served.key is None:
        return ()
    return (
        f"Cline has no reference to a variable: cline auth -p {_PROVIDER} -m {served.model} -b {served.openai} "
        f'-k "${served.key}" saves the key in its file',
    )


CLINE = ClientProgram(
    name="cline", title="Cline", install="npm install -g cline", needs_tools=True, start=_start, files=_files,
    starts_with_files=True, notes=_notes, least_context=32768,
)  # fmt: skip
