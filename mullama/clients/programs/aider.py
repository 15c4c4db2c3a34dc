"""Aider: options in its `.aider.conf.yml`, and the size of the context in a file of model metadata."""

from __future__ import annotations

from mullama.clients.base import NO_KEY, ClientFile, ClientProgram, Edit, ServedModel, StartCommand, UserFolders
from mullama.names import JSONValue

KEY_VARIABLE = "OPENAI_API_KEY"
"""The variable with the key that aider reads; its file cannot refer to another one."""


def _name(served: ServedModel) -> str:
    return f"openai/{served.model}"


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    options: dict[str, JSONValue] = {"model": _name(served), "openai-api-base": served.openai}
    if served.key is None:
        options["openai-api-key"] = NO_KEY
    edits = tuple(Edit(path=(name,), value=value) for name, value in options.items())
    found = [ClientFile(path=f"{folders.home}/.aider.conf.yml", form="yaml", edits=edits)]
    if served.context is not None:
        facts: dict[str, JSONValue] = {
            "litellm_provider": "openai", "mode": "chat", "max_input_tokens": served.context,
            "max_output_tokens": served.answer, "input_cost_per_token": 0, "output_cost_per_token": 0,
        }  # fmt: skip
        path = f"{folders.home}/.aider.model.metadata.json"
        found.append(ClientFile(path=path, form="jsonc", edits=(Edit(path=(_name(served),), value=facts),)))
    return tuple(found)


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(
        words=("aider", "--model", _name(served), "--openai-api-base", served.openai, "--no-show-model-warnings"),
        variables={KEY_VARIABLE: key},
    )


def _notes(served: ServedModel) -> tuple[str, ...]:
    if served.key in (None, KEY_VARIABLE):
        return ()
    return (f"aider reads the key from {KEY_VARIABLE}: export {KEY_VARIABLE}=${served.key}",)


AIDER = ClientProgram(
    name="aider", title="Aider", install="pip install aider-chat", needs_tools=False, start=_start, files=_files,
    notes=_notes, least_context=16384,
)  # fmt: skip
