"""`mullama transcribe`: write down the speech of sound files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from mullama.chat.media.formats import header_of
from mullama.chat.transcription import Segment
from mullama.chat.transcription.subtitles import srt, vtt
from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.inference.upload import form_pieces
from mullama.cli.models.load import default_model, resolve_model
from mullama.cli.server.ensure import ensure_server, instance_options
from mullama.errors import EngineFailed, Invalid, NotFound, Unavailable
from mullama.struct import Struct
from mullama.units import counted

_FORMATS = {"text": ".txt", "srt": ".srt", "vtt": ".vtt", "json": ".json", "verbose_json": ".json"}
_HEAD = 1 << 16
_STANDARD_INPUT = "-"


def transcribe_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("files", nargs="+", metavar="FILE", help="sound files; - is standard input")
    parser.add_argument("-m", "--model", metavar="NAME", help="the model (default: the one for transcription)")
    parser.add_argument(
        "--format", choices=tuple(_FORMATS), default="text", help="text, subtitles, or JSON (default: text)"
    )
    parser.add_argument("--language", metavar="CODE", help="language of the speech, such as en (default: any)")
    parser.add_argument("--prompt", metavar="TEXT", help="names and words that may occur")
    parser.add_argument("--translate", action="store_true", help="translate the speech into English")
    parser.add_argument("-t", "--temperature", type=float, metavar="T", help="sampling temperature (default: 0)")
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="file for the transcript; a folder for those of several files"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def transcribe(call: CommandContext) -> int:
    """Print or save the transcript of each file."""
    options = call.options
    if options.files.count(_STANDARD_INPUT) > 1:
        raise UsageError("standard input is one file", hint="name - once")
    output = None if options.output is None else call.folder / Path(options.output).expanduser()
    if output is not None and len(options.files) > 1 and not output.is_dir():
        raise UsageError(f"{options.output} is no folder, and there are several files", hint="name a folder with -o")
    with ExitStack() as stack:
        opened = [(name, stack.enter_context(_opened(call, name))) for name in options.files]
        server = ensure_server(call)
        model = resolve_model(call, server, options.model or _model(server))["name"]
        for name, file in opened:
            text = _formatted(_transcript(call, server, model, name, file), options.format)
            if output is None:
                heading = f"{name}:\n" if len(opened) > 1 and options.format == "text" else ""
                call.terminal.raw(heading + text)
            else:
                _save(output / (Path(name).stem + _FORMATS[options.format]) if output.is_dir() else output, text)
    return DONE


def _opened(call: CommandContext, name: str) -> BinaryIO:
    if name == _STANDARD_INPUT:
        source: BinaryIO = call.terminal.source.buffer
        return source
    try:
        return (call.folder / Path(name).expanduser()).open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"{name} does not exist", hint="FILE is a sound, or - for standard input", name=name) from error
    except OSError as error:
        raise Unavailable(f"{name} cannot be read: {error.strerror}") from error


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from error


def _model(server: FoundServer) -> str:
    """Return the only model for transcription, else the only one that hears, else the default model.

    Raises `UsageError` for several of which none is the default model.
    """
    listed = server.client.get("/api/models").get("models") or ()
    models = [model for model in listed if not model.get("route_of")]
    for ability, verb in (("transcription", "transcribe"), ("audio", "hear")):
        found = [model for model in models if ability in (model.get("capabilities") or ())]
        names = [str(model["name"]) for model in found]
        used = names if len(names) == 1 else [str(model["name"]) for model in found if model.get("is_default")]
        if used:
            return used[0]
        if names:
            raise UsageError(f"several models {verb}: {', '.join(names)}", hint="name one with -m")
    return default_model(server)


class _Progress(Struct):
    """Progress of one file on the error stream: a line that is written again on a terminal, else one at the end."""

    call: CommandContext
    name: str
    total: float
    """Seconds of the sound; 0 if the file does not tell."""
    begun: float

    def show(self, heard: float) -> None:
        terminal = self.call.terminal
        if self.call.options.quiet or not terminal.err_animated:
            return
        share = f"{min(100, round(100 * heard / self.total))} %, " if self.total else ""
        terminal.err.write(f"\r\x1b[K{self.name}: {share}{heard:.0f} s")
        terminal.err.flush()

    def end(self, transcript: Mapping[str, Any]) -> None:
        terminal = self.call.terminal
        if terminal.err_animated:
            terminal.err.write("\r\x1b[K")
            terminal.err.flush()
        if not self.call.options.quiet:
            duration, spent = float(transcript["duration"]), time.monotonic() - self.begun
            segments = counted(len(transcript["segments"]), "segment")
            terminal.note(f"{self.name}: {duration:.1f} s of sound in {spent:.1f} s, {segments}")


def _transcript(
    call: CommandContext, server: FoundServer, model: str, name: str, file: BinaryIO
) -> dict[str, Any]:  # fmt: skip
    """Return the last event of a transcription: the members of `verbose_json`."""
    options = call.options
    fields = {
        "model": model, "stream": "true", "response_format": "verbose_json", "language": options.language,
        "prompt": options.prompt, "temperature": options.temperature,
    }  # fmt: skip
    if options.translate:
        fields.pop("language")
        if options.language:
            raise UsageError("--translate recognises the language", hint="leave --language out")
    given = {key: str(value) for key, value in fields.items() if value is not None}
    head = file.read(_HEAD)
    header = header_of(head)
    # Of a WAV file the header is read with its first bytes alone, so its duration is theirs.
    total = header.seconds if header is not None and header.format == "flac" else 0.0
    progress = _Progress(call, name, total, time.monotonic())
    kind, pieces = form_pieces(given, name, head, file)
    path = f"/api/models/{'translate' if options.translate else 'transcribe'}"
    progress.show(0.0)
    for event in _checked(name, server.client.sent_events(path, pieces, kind)):
        if event.get("type") == "transcript.text.segment":
            progress.show(float(event["end"]))
        elif event.get("type") == "transcript.text.done":
            progress.end(event)
            return event
    raise Unavailable("the server ended the transcript early")


def _checked(name: str, events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the events; raise the error of the server with the name of the file."""
    try:
        for event in events:
            if "error" in event:
                raise EngineFailed(f"{name}: {event['error'].get('message')}")
            yield event
    except Invalid as error:
        raise Invalid(f"{name}: {error.message}", hint=error.hint) from error


def _formatted(transcript: Mapping[str, Any], form: str) -> str:
    if form == "text":
        return f"{transcript['text']}\n"
    if form in ("json", "verbose_json"):
        shown = {"text": transcript["text"]} if form == "json" else {
            key: value for key, value in transcript.items() if key != "type"
        }  # fmt: skip
        return json.dumps(shown, ensure_ascii=False) + "\n"
    segments = [
        Segment(index=item["id"], start=item["start"], end=item["end"], text=item["text"])
        for item in transcript["segments"]
    ]
    return srt(segments) if form == "srt" else vtt(segments)
