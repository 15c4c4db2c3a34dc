"""Asks a model and prints its answer as it is made."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mullama.cli.api_client.discover import FoundServer, find, is_remote, load_manifest
from mullama.cli.app.context import CommandContext
from mullama.cli.console.terminal import Terminal
from mullama.cli.inference.conversation import image_paths
from mullama.cli.models.declared import declared, model_of
from mullama.cli.models.load import no_source
from mullama.errors import EngineFailed, Unavailable


@dataclass(slots=True)
class StreamedAnswer:
    """What came so far; `last` is the line with the counts."""

    text: str = ""
    thinking: str = ""
    last: Mapping[str, Any] = field(default_factory=dict)


def ask(server: FoundServer, body: Mapping[str, Any], answer: StreamedAnswer) -> Iterator[tuple[str, str]]:
    """("thinking" | "content", text) as they come; an end without `done` is an error. Fills `answer`."""
    done = False
    for line in server.client.lines("POST", "/api/models/chat", body):
        if "error" in line:
            raise EngineFailed(f"the answer broke off: {line['error']}")
        message = line.get("message") or {}
        if thought := message.get("thinking"):
            answer.thinking += thought
            yield "thinking", thought
        content = message.get("content") or ""
        answer.text += content
        yield "content", content
        answer.last = line
        done = bool(line.get("done"))
    if not done:
        raise Unavailable("the server ended the answer in the middle")


def require_possible(call: CommandContext, name: str) -> None:
    """Raise `NotFound` before a server is started for a model that neither it nor any source can know."""
    if is_remote(call) or find(call, lambda: load_manifest(call)) is not None or not no_source(name):
        return
    model_of(declared(call).manifest, name)


def show(terminal: Terminal, pieces: Iterator[tuple[str, str]], *, thinking: bool) -> None:
    """Print the pieces; thoughts stand between two marks, where they are wanted."""
    within = False
    for kind, text in pieces:
        if kind == "thinking":
            if thinking:
                terminal.raw(text if within else f"Thinking...\n{text}")
                within = True
            continue
        if within and text:
            terminal.raw("\n...done thinking.\n\n")
            within = False
        terminal.raw(text)


def pictures(call: CommandContext, prompt: str, named: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The pictures that are named, and those whose paths stand in the prompt and are files; base64."""
    inside = tuple(p for p in image_paths(prompt) if (call.folder / Path(p).expanduser()).is_file())
    paths = [call.folder / Path(path).expanduser() for path in (*named, *inside)]
    return tuple(base64.b64encode(path.read_bytes()).decode() for path in paths)


def counts(last: Mapping[str, Any]) -> str:
    """`5 prompt tokens, 4 tokens in 0.50 s, 8.0 tokens/s (stop)`."""
    tokens, spent = int(last.get("eval_count") or 0), float(last.get("eval_duration") or 0) / 1e9
    speed = f", {tokens / spent:.1f} tokens/s" if spent else ""
    prompt = int(last.get("prompt_eval_count") or 0)
    return f"{prompt} prompt tokens, {tokens} tokens in {spent:.2f} s{speed} ({last.get('done_reason')})"
