"""Continue: an entry of `models` in its `config.yaml`, for the editors and for its command `cn`."""

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


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    folder = folders.env.get("CONTINUE_GLOBAL_DIR") or f"{folders.home}/.continue"
    limits = present(contextLength=served.context, maxTokens=served.answer)
    model = present(
        provider="openai",
        model=served.model,
        apiBase=served.openai,
        apiKey=f"${{{{ secrets.{served.key} }}}}" if served.key else NO_KEY,
        roles=["chat", "edit", "apply"],
        capabilities=["tool_use"] if served.tools else None,
        defaultCompletionOptions=limits or None,
    )
    edits = (
        Edit(path=("name",), value="Local Config", only_missing=True),
        Edit(path=("version",), value="1.0.0", only_missing=True),
        Edit(path=("schema",), value="v1", only_missing=True),
        Edit(path=("models", ListEntry("name", f"{PROVIDER} {served.model}")), value=model),
    )
    return (ClientFile(path=f"{folder}/config.yaml", form="yaml", edits=edits),)


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(words=("cn",), variables={served.key: key} if served.key else {})


def _notes(served: ServedModel) -> tuple[str, ...]:
    if served.key is None:
        return ()
    return (f"the editors read the key from ~/.continue/.env: a line {served.key}=KEY, in a file for you alone",)


CONTINUE = ClientProgram(
    name="continue", title="Continue", install="npm install -g @continuedev/cli", needs_tools=False, start=_start,
    files=_files, starts_with_files=True, notes=_notes, least_context=16384,
)  # fmt: skip
