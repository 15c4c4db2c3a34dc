"""llm: an entry of its `extra-openai-models.yaml`."""

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


def model_id(served: ServedModel) -> str:
    """Return the name of the model in llm."""
    return f"{PROVIDER}/{served.model}"


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    folder = folders.env.get("LLM_USER_PATH") or folders.application("io.datasette.llm")
    model = present(
        model_name=served.model,
        api_base=served.openai,
        api_key_name=PROVIDER if served.key else None,
        supports_tools=served.tools,
        supports_schema=True,
    )
    edits = (Edit(path=(ListEntry("model_id", model_id(served)),), value=model),)
    return (ClientFile(path=f"{folder}/extra-openai-models.yaml", form="yaml", edits=edits),)


def _start(served: ServedModel, key: str) -> StartCommand:
    key_variable = {"OPENAI_API_KEY": key} if served.key else {}  # read where no key of that name is saved
    return StartCommand(words=("llm",), variables={"LLM_MODEL": model_id(served), **key_variable})


def _notes(served: ServedModel) -> tuple[str, ...]:
    found = f"llm -m {model_id(served)} uses it; llm models default {model_id(served)} makes it the default"
    if served.key is None:
        return (found,)
    return (found, f'llm keeps keys in a file of its own: llm keys set {PROVIDER} --value "${served.key}"')


LLM = ClientProgram(
    name="llm", title="llm", install="pip install llm", needs_tools=False, start=_start, files=_files,
    starts_with_files=True, notes=_notes,
)  # fmt: skip
