"""Codex: a provider in its `config.toml`, or the same values as options of the command."""

from __future__ import annotations

import json

from mullama.clients.base import (
    PROVIDER,
    ClientFile,
    ClientProgram,
    Edit,
    ServedModel,
    StartCommand,
    UserFolders,
    present,
)
from mullama.names import JSONValue


def _settings(served: ServedModel) -> dict[str, JSONValue]:
    return present(model=served.model, model_provider=PROVIDER, model_context_window=served.context)


def _provider(served: ServedModel) -> dict[str, JSONValue]:
    return present(name=PROVIDER, base_url=served.openai, wire_api="responses", env_key=served.key)


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    folder = folders.env.get("CODEX_HOME") or f"{folders.home}/.codex"
    edits = [Edit(path=(name,), value=value) for name, value in _settings(served).items()]
    edits.append(Edit(path=("model_providers", PROVIDER), value=_provider(served)))
    return (ClientFile(path=f"{folder}/config.toml", form="toml", edits=tuple(edits)),)


def _start(served: ServedModel, key: str) -> StartCommand:
    values = _settings(served) | {f"model_providers.{PROVIDER}.{k}": v for k, v in _provider(served).items()}
    # A value is TOML, in which texts and numbers are written as in JSON.
    options = (word for name, value in values.items() for word in ("-c", f"{name}={json.dumps(value)}"))
    return StartCommand(words=("codex", *options), variables={served.key: key} if served.key else {})


CODEX = ClientProgram(
    name="codex", title="Codex", install="npm install -g @openai/codex", needs_tools=True, start=_start, files=_files,
    least_context=32768,
)  # fmt: skip
