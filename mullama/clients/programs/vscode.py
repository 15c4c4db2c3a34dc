"""VS Code: an entry of its `chatLanguageModels.json`, as its command "Chat: Manage Language Models" writes it."""

from __future__ import annotations

from mullama.clients.base import (
    NO_KEY,
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
from mullama.names import JSONValue

_DEFAULT_CONTEXT = 8_192  # both limits are required


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    context = served.context or _DEFAULT_CONTEXT
    answer = served.answer or _DEFAULT_CONTEXT // 4
    group = ListEntry("name", PROVIDER)
    model: dict[str, JSONValue] = {
        "name": served.model,
        "url": f"{served.openai}/chat/completions",
        "toolCalling": served.tools,
        "vision": False,
        "maxInputTokens": context - answer,
        "maxOutputTokens": answer,
    }
    settings = present(
        vendor="customendpoint", apiType="chat-completions", apiKey=NO_KEY if served.key is None else None
    )
    edits = (
        Edit(path=(group,), value=settings),
        Edit(path=(group, "models", ListEntry("id", served.model)), value=model),
    )
    path = f"{folders.application('Code')}/User/chatLanguageModels.json"
    return (ClientFile(path=path, form="jsonc", edits=edits),)


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(words=("code",))


def _notes(served: ServedModel) -> tuple[str, ...]:
    if served.key is None:
        return ()
    return (f"VS Code keeps keys itself: enter that of {served.key} with Chat: Manage Language Models, {PROVIDER}",)


VSCODE = ClientProgram(
    name="vscode", title="VS Code", install="see https://code.visualstudio.com/download", needs_tools=True,
    start=_start, files=_files, starts_with_files=True, notes=_notes, least_context=32768,
)  # fmt: skip
