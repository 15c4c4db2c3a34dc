"""Zed: a provider below `language_models` in its `settings.json`."""

from __future__ import annotations

from mullama.clients.base import (
    PROVIDER,
    ClientFile,
    ClientProgram,
    Edit,
    ListEntry,
    ServedModel,
    StartCommand,
    UserFolders,
    present,
)

KEY_VARIABLE = "MULLAMA_API_KEY"
"""The variable with the key: Zed makes its name of the name of the provider."""
_DEFAULT_CONTEXT = 8_192  # the field is required


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    folder = folders.application("Zed") if folders.platform == "win32" else f"{folders.config}/zed"
    provider = ("language_models", "openai_compatible", PROVIDER)
    model = present(
        display_name=served.model,
        max_tokens=served.context or _DEFAULT_CONTEXT,
        max_output_tokens=served.answer,
        capabilities={"tools": served.tools, "images": False, "parallel_tool_calls": True, "prompt_cache_key": False},
    )
    edits = (
        Edit(path=(*provider, "api_url"), value=served.openai),
        Edit(path=(*provider, "available_models", ListEntry("name", served.model)), value=model),
        Edit(path=("agent", "default_model"), value={"provider": PROVIDER, "model": served.model}),
    )
    return (ClientFile(path=f"{folder}/settings.json", form="jsonc", edits=edits),)


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(words=("zed",), variables={KEY_VARIABLE: key})


def _notes(served: ServedModel) -> tuple[str, ...]:
    if served.key == KEY_VARIABLE:
        return ()
    value = f"${served.key}" if served.key else "none"
    return (f"Zed reads the key from {KEY_VARIABLE}: start it with {KEY_VARIABLE}={value}, or by mullama launch zed",)


ZED = ClientProgram(
    name="zed", title="Zed", install="see https://zed.dev/download", needs_tools=True, start=_start, files=_files,
    starts_with_files=True, notes=_notes, least_context=32768,
)  # fmt: skip
