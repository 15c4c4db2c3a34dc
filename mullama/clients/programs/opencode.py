"""OpenCode: a provider in its `opencode.json`, or the same object in a variable of the command."""

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


def _provider(served: ServedModel) -> dict[str, JSONValue]:
    limit = {"context": served.context, "output": served.answer} if served.context else None
    return {
        "npm": "@ai-sdk/openai-compatible",
        "name": PROVIDER,
        "options": present(baseURL=served.openai, apiKey=f"{{env:{served.key}}}" if served.key else None),
        "models": {served.model: present(name=served.model, tool_call=served.tools, limit=limit)},
    }


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    edits = (
        Edit(path=("$schema",), value="https://opencode.ai/config.json", only_missing=True),
        Edit(path=("provider", PROVIDER), value=_provider(served)),
        Edit(path=("model",), value=f"{PROVIDER}/{served.model}"),
    )
    usual = f"{folders.config}/opencode/opencode.json"
    path = folders.env.get("OPENCODE_CONFIG") or usual
    return (ClientFile(path=path, form="jsonc", edits=edits, others=(f"{usual}c",) if path == usual else ()),)


def _start(served: ServedModel, key: str) -> StartCommand:
    name = f"{PROVIDER}/{served.model}"
    content = {"provider": {PROVIDER: _provider(served)}, "model": name, "small_model": name}
    return StartCommand(
        words=("opencode",),
        variables={
            "OPENCODE_CONFIG_CONTENT": json.dumps(content, ensure_ascii=False),
            **({served.key: key} if served.key else {}),
        },
    )


OPENCODE = ClientProgram(
    name="opencode", title="OpenCode", install="npm install -g opencode-ai", needs_tools=True, start=_start,
    files=_files, least_context=32768,
)  # fmt: skip
