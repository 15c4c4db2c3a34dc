"""Streams the answer of a model to the terminal."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext
from mullama.cli.console.terminal import Terminal
from mullama.cli.inference.conversation import media_paths
from mullama.cli.inference.session_log import ChatTurn
from mullama.errors import EngineFailed, Invalid, NotFound, Unavailable
from mullama.struct import Struct, field, replace
from mullama.units import counted, printable, size

if TYPE_CHECKING:
    from mullama.client.http import StreamStop


_SHOWN_ARGUMENTS = 80
"""Characters of the arguments of a call that are shown."""


class StreamedAnswer(Struct):
    """The answer so far."""

    text: str = ""
    thinking: str = ""
    last: Mapping[str, Any] = field(default_factory=dict)
    """The newest line of the stream; the last one has the counts."""


def ask(
    server: FoundServer, body: Mapping[str, Any], answer: StreamedAnswer, stop: StreamStop | None = None
) -> Generator[tuple[str, str], None, None]:
    """Yield ("thinking", "content" or "tool", text) as they arrive, and collect thinking and content in `answer`.

    The text of a tool is a line about the begin or the end of a call that the server makes.

    Raises `EngineFailed` for an error in the stream, `Unavailable` for a stream without an end.
    """
    done = False
    for line in server.client.lines("POST", "/api/models/chat", body, stop=stop):
        if "error" in line:
            raise EngineFailed(f"the answer failed: {line['error']}")
        message = line.get("message") or {}
        if thought := message.get("thinking"):
            answer.thinking += thought
            yield "thinking", thought
        if run := line.get("tool_run"):
            yield "tool", tool_line(run)
        content = message.get("content") or ""
        answer.text += content
        yield "content", content
        answer.last = line
        done = bool(line.get("done"))
    if not done:
        raise Unavailable("the server ended the answer early")


def show(terminal: Terminal, pieces: Iterator[tuple[str, str]], *, thinking: bool) -> None:
    """Print the pieces; `thinking` prints the thinking too, between two markers.

    Calls of tools are lines of their own on a terminal. A pipe gets the answer alone.
    """
    in_thinking, at_begin = False, True
    for kind, text in pieces:
        if kind == "tool":
            if terminal.live:
                if in_thinking:
                    terminal.raw("\n...done thinking.\n")
                    in_thinking, at_begin = False, True
                terminal.dim(text if at_begin else f"\n{text}")
                at_begin = True
            continue
        if kind == "thinking":
            if thinking:
                terminal.raw(text if in_thinking else f"Thinking...\n{text}")
                at_begin = False
                in_thinking = True
            continue
        if in_thinking and text:
            terminal.raw("\n...done thinking.\n\n")
            in_thinking = False
        terminal.raw(text)
        at_begin = text.endswith("\n") if text else at_begin


def tool_line(run: Mapping[str, Any]) -> str:
    """Return the line of a call: `docs/read {"page":7}` at its begin, `docs/read: 2.1 KiB` at its end."""
    name = f"{run.get('server')}/{run.get('name')}"
    if run.get("state") == "started":
        given = json.dumps(run.get("arguments") or {}, ensure_ascii=False, separators=(",", ":"))
        short = given if len(given) <= _SHOWN_ARGUMENTS else f"{given[:_SHOWN_ARGUMENTS]}…"
        return f"{name} {short}"
    failed = ", an error" if run.get("is_error") else ""
    return f"{name}: {size(int(run.get('bytes') or 0))}{failed}"


def media(
    call: CommandContext, prompt: str, named: tuple[str, ...] = (), *, reads: bool = True
) -> tuple[str, tuple[str, ...]]:
    """Return the prompt without the paths of images and sounds that exist, and these files and named ones as base64.

    reads: the model reads images or sounds; for another one, paths in the prompt are text.

    Raises `NotFound` or `Unavailable` for a named file that cannot be read, `Invalid` for one of no known format.
    """
    found: list[str] = []
    for path in media_paths(prompt) if reads else ():
        if (call.folder / Path(path).expanduser()).is_file():
            found.append(path)
            prompt = re.sub(f" ?{re.escape(path)}", "", prompt, count=1)
    return prompt.strip() if found else prompt, tuple(_encoded(call, path) for path in (*named, *found))


def turn_of(call: CommandContext, text: str, named: tuple[str, ...] = (), *, reads: bool = True) -> ChatTurn:
    """Return a question with its images and sounds, and their names and sizes. Arguments and errors as of `media`."""
    question, contents = media(call, text, named, reads=reads)
    paths = [call.folder / Path(name).expanduser() for name in (*named, *media_paths(text))] if contents else []
    files = tuple(f"{printable(p.name)}, {size(p.stat().st_size)}" for p in paths if p.is_file())
    return ChatTurn(question=question, files=files, media=contents)


def answered(turn: ChatTurn, answer: StreamedAnswer, *, stopped: bool = False) -> ChatTurn:
    """Return the question with its answer. stopped: the user ended it."""
    note = "stopped" if stopped else counts(answer.last)
    return replace(turn, answer=answer.text, thinking=answer.thinking, note=note)


def _encoded(call: CommandContext, path: str) -> str:
    try:
        data = (call.folder / Path(path).expanduser()).read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist", hint="-i names an image or a sound", name=path) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    from mullama.chat.media.formats import IMAGES, SOUNDS, format_of, header_of

    # The server checks the file, too, and knows no path.
    if format_of(data) is None:
        raise Invalid(f"{path} is neither an image nor a sound of a known format", hint=f"send {IMAGES}, {SOUNDS}")
    if header_of(data) is None:
        raise Invalid(f"{path} is damaged: its {format_of(data)} header ends early", hint="send the complete file")
    return base64.b64encode(data).decode()


def counts(last: Mapping[str, Any]) -> str:
    """Format the counts: `5 prompt tokens, 4 tokens in 0.50 s, 8.0 tokens/s (stop)`."""
    tokens, spent = int(last.get("eval_count") or 0), float(last.get("eval_duration") or 0) / 1e9
    speed = f", {tokens / spent:.1f} tokens/s" if spent else ""
    prompt = int(last.get("prompt_eval_count") or 0)
    answer = f"{counted(tokens, 'token')} in {spent:.2f} s{speed} ({last.get('done_reason')})"
    return f"{counted(prompt, 'prompt token')}, {answer}"
