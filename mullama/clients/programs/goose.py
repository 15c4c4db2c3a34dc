"""Goose: a provider in a file of its own, and its name in `config.yaml`."""

from __future__ import annotations

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

_DEFAULT_CONTEXT = 128_000  # the field is required, and this is the number that Goose takes for an unknown model


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    is_windows = folders.platform == "win32"
    folder = folders.application("Block/goose/config") if is_windows else f"{folders.config}/goose"
    provider: dict[str, JSONValue] = {
        "name": PROVIDER,
        "engine": "openai",
        "display_name": PROVIDER,
        "description": "Models of mullama",
        "api_key_env": served.key or "",
        "base_url": f"{served.openai}/chat/completions",
        "requires_auth": served.key is not None,
        "supports_streaming": True,
    }
    model = {"context_limit": served.context or _DEFAULT_CONTEXT}
    return (
        ClientFile(
            path=f"{folder}/custom_providers/{PROVIDER}.json",
            form="jsonc",
            edits=(
                *(Edit(path=(name,), value=value) for name, value in provider.items()),
                Edit(path=("models",), value=[{"name": served.model, **model}]),
            ),
        ),
        ClientFile(
            path=f"{folder}/config.yaml",
            form="yaml",
            edits=(
                Edit(path=("GOOSE_PROVIDER",), value=PROVIDER),
                Edit(path=("GOOSE_MODEL",), value=served.model),
            ),
        ),
    )


def _start(served: ServedModel, key: str) -> StartCommand:
    found = present(
        GOOSE_PROVIDER="openai", GOOSE_MODEL=served.model, OPENAI_HOST=served.url, OPENAI_API_KEY=key,
        OPENAI_BASE_PATH="v1/chat/completions", GOOSE_CONTEXT_LIMIT=served.context,
    )  # fmt: skip
    return StartCommand(words=("goose",), variables={name: str(value) for name, value in found.items()})


GOOSE = ClientProgram(
    name="goose", title="Goose", install="see https://goose-docs.ai/docs/getting-started/installation/",
    needs_tools=True, start=_start, files=_files, least_context=32768,
)  # fmt: skip
