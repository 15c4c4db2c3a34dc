"""Open WebUI: variables of its environment; its other settings are in a database."""

from __future__ import annotations

from mullama.clients.base import ClientProgram, ServedModel, StartCommand


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(
        words=("open-webui", "serve"),
        variables={
            "OPENAI_API_BASE_URLS": served.openai,
            "OPENAI_API_KEYS": key,
            "ENABLE_OPENAI_API": "True",
            "ENABLE_OLLAMA_API": "False",
            "DEFAULT_MODELS": served.model,
        },
    )


def _notes(served: ServedModel) -> tuple[str, ...]:
    return (
        "Open WebUI has no configuration file: mullama launch open-webui starts it with the address of the server. "
        "Values that were saved on its admin page count before that; ENABLE_PERSISTENT_CONFIG=False ignores them",
    )


OPEN_WEBUI = ClientProgram(
    name="open-webui", title="Open WebUI", install="pip install open-webui", needs_tools=False, start=_start,
    notes=_notes,
)  # fmt: skip
