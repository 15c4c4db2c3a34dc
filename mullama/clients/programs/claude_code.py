"""Claude Code: environment variables in its `settings.json`, or in the environment of the command."""

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

_LEAST_COMPACTED = 100_000
"""The smallest context that Claude Code compacts to, in tokens."""


def _variables(served: ServedModel) -> dict[str, str]:
    found = present(
        ANTHROPIC_BASE_URL=served.url,
        ANTHROPIC_MODEL=served.model,
        ANTHROPIC_DEFAULT_OPUS_MODEL=served.model,
        ANTHROPIC_DEFAULT_SONNET_MODEL=served.model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL=served.model,
        CLAUDE_CODE_SUBAGENT_MODEL=served.model,
        CLAUDE_CODE_AUTO_COMPACT_WINDOW=served.context,
        CLAUDE_CODE_MAX_OUTPUT_TOKENS=served.answer,
        CLAUDE_CODE_ATTRIBUTION_HEADER=0,  # a line that differs in each session, at the start of every prompt
    )
    return {name: str(value) for name, value in found.items()}


def _files(served: ServedModel, folders: UserFolders) -> tuple[ClientFile, ...]:
    folder = folders.env.get("CLAUDE_CONFIG_DIR") or f"{folders.home}/.claude"
    edits = [Edit(path=("env",), value=_variables(served))]
    if served.key is None:
        edits.append(Edit(path=("env", "ANTHROPIC_AUTH_TOKEN"), value=NO_KEY))
    else:
        edits.append(Edit(path=("apiKeyHelper",), value=f"printenv {served.key}"))
    return (ClientFile(path=f"{folder}/settings.json", form="jsonc", edits=tuple(edits)),)


def _start(served: ServedModel, key: str) -> StartCommand:
    return StartCommand(
        words=("claude", "--model", served.model),
        variables={**_variables(served), "ANTHROPIC_AUTH_TOKEN": key},
        without=("ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
    )


def _notes(served: ServedModel) -> tuple[str, ...]:
    if served.context is None or served.context >= _LEAST_COMPACTED:
        return ()
    return (
        f"Claude Code compacts a conversation at {_LEAST_COMPACTED} tokens at the earliest, and the context of "
        f"{served.model} has {served.context}: type /compact before it is full, or raise context.size",
    )


CLAUDE_CODE = ClientProgram(
    name="claude-code", title="Claude Code", install="npm install -g @anthropic-ai/claude-code", needs_tools=True,
    start=_start, files=_files, notes=_notes, least_context=65536,
)  # fmt: skip
