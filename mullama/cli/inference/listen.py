"""`mullama listen`: speak with a model. The server finds the turns, transcribes them where needed, and answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext, Parser, UsageError, manifest_options, server_options
from mullama.cli.app.exit_codes import DONE, ERROR
from mullama.cli.inference.sound_source import PIECE, SoundSource, check_rate, file_source, microphone, raw_source
from mullama.cli.inference.spoken import SETTINGS, Spoken, SpokenLine
from mullama.cli.models.load import default_model, resolve_model
from mullama.cli.server.ensure import ensure_server
from mullama.errors import Invalid, MullamaError, Unavailable

_SILENCE_MS = 500  # of a pause that ends a turn
_TAIL = 1.5  # seconds of silence after the end of a sound, which end its last turn


def listen_options(parser: Parser) -> None:
    manifest_options(parser)
    server_options(parser)
    parser.add_argument(
        "source", nargs="?", metavar="FILE|-",
        help="a sound file (WAV; MP3, FLAC and OGG with mullama[audio]), or - for raw samples from standard input: "
        "16 bit, little-endian, one channel (default: the microphone)",
    )  # fmt: skip
    parser.add_argument("-m", "--model", metavar="NAME", help="a model or a route (default: the default model)")
    parser.add_argument(
        "--transcription", metavar="NAME", help="the model that transcribes, for one that does not hear"
    )
    parser.add_argument("--language", metavar="CODE", help="the language of the speech, such as de")
    parser.add_argument("--system", metavar="TEXT", help="system prompt of the conversation")
    parser.add_argument("-n", "--max-tokens", type=int, metavar="N", help="maximum number of tokens of an answer")
    parser.add_argument(
        "--rate", type=int, default=16_000, metavar="HZ",
        help="samples of one second of the microphone and of raw samples (default: 16000)",
    )  # fmt: skip
    parser.add_argument(
        "--pause", type=int, default=_SILENCE_MS, metavar="MS", help="silence that ends a turn (default: 500)"
    )
    parser.add_argument("--no-interrupt", action="store_true", help="let each answer end, also while you speak")


def listen(call: CommandContext) -> int:
    """Hold the conversation until the sound ends or Ctrl-C. The exit code is 1 if a turn had an error."""
    with ExitStack() as resources:
        source = _source(call, call.options.source, resources)
        check_rate(source.rate)
        server = ensure_server(call)
        talk = Talk(call, server, source)
        talk.run()
    return ERROR if talk.errors else DONE


def _source(call: CommandContext, name: str | None, resources: ExitStack) -> SoundSource:
    if name is None:
        return microphone(call.options.rate, resources)
    if name != "-":
        return file_source(call.folder / Path(name).expanduser(), resources)
    if call.terminal.source.isatty():
        raise UsageError("- reads raw samples from a pipe, and the standard input is a terminal")
    return raw_source(call.terminal.source.buffer, call.options.rate)


class Talk:
    """One conversation: a thread sends the sound, and this one shows what comes back."""

    def __init__(self, call: CommandContext, server: FoundServer, source: SoundSource) -> None:
        self._call, self._server, self._source = call, server, source
        self._model = str(resolve_model(call, server, call.options.model or default_model(server))["name"])
        self._spoken = Spoken()
        self._changed = threading.Condition()
        self._sent_updates = 0
        self._over = False  # all sound is sent and answered
        self.errors = 0
        """Errors that were shown."""
        self._failure: MullamaError | None = None

    def run(self) -> None:
        """Send and show until the end."""
        from mullama.cli.api_client.socket import event_socket

        path = f"/v1/realtime?{urlencode({'model': self._model})}"
        with event_socket(self._server.client, path) as socket:
            sender = threading.Thread(target=self._send, args=(socket,), daemon=True)
            with self._shown() as show:
                sender.start()
                try:
                    self._receive(socket, show)
                except KeyboardInterrupt:
                    socket.close()
        if self._failure is not None:
            raise self._failure
        if not self._spoken.turns:
            self._call.terminal.note("no speech was found in the sound")

    def _receive(self, socket: Any, show: Callable[[list[SpokenLine]], None]) -> None:
        try:
            for event in socket.events():
                with self._changed:
                    lines = self._spoken.feed(event)
                    errors, self._spoken.errors = self._spoken.errors, []
                    self._changed.notify_all()
                show(lines)
                self.errors += len(errors)
                for error in errors:
                    self._call.terminal.note(f"error: {error}")
        except Unavailable as error:
            with self._changed:
                over, self._over = self._over, True
                self._changed.notify_all()
            if not over and self._failure is None:
                self._failure = error

    # The other thread

    def _send(self, socket: Any) -> None:
        """Send the sound. A recorded sound waits for each answer."""
        try:
            self._configure(socket)
            for piece in self._source.pieces:
                self._append(socket, piece)
            silence = bytes(2 * int(self._source.rate * PIECE))
            for _ in range(int((_TAIL + self._call.options.pause / 1000) / PIECE)):
                self._append(socket, silence)
            self._settle(socket)
            self._wait(lambda: not self._spoken.pending)
        except MullamaError as error:
            with self._changed:
                if not self._over and self._failure is None:
                    self._failure = error
        except OSError as error:
            self._failure = Unavailable(f"the sound cannot be read: {error.strerror or error}")
        finally:
            with self._changed:
                self._over = True
            socket.close()

    def _configure(self, socket: Any) -> None:
        options = self._call.options
        sound: dict[str, Any] = {
            "format": {"type": "audio/pcm", "rate": self._source.rate},
            "turn_detection": {
                "type": "server_vad", "silence_duration_ms": options.pause,
                "interrupt_response": not (options.no_interrupt or self._source.paced),
            },
        }  # fmt: skip
        asked = {"model": options.transcription, "language": options.language}
        if any(asked.values()):
            sound["transcription"] = {name: value for name, value in asked.items() if value}
        session: dict[str, Any] = {"type": "realtime", "audio": {"input": sound}}
        if options.system:
            session["instructions"] = options.system
        if options.max_tokens:
            session["max_output_tokens"] = options.max_tokens
        socket.send("session.update", event_id=SETTINGS, session=session)
        self._sent_updates += 1
        self._wait(lambda: self._spoken.updates or self._spoken.refused)
        if self._spoken.refused:
            raise Invalid(self._spoken.refused)

    def _append(self, socket: Any, piece: bytes) -> None:
        from base64 import b64encode

        socket.send("input_audio_buffer.append", audio=b64encode(piece).decode("ascii"))
        if self._source.paced:
            self._settle(socket)
            self._wait(lambda: not self._spoken.pending)

    def _settle(self, socket: Any) -> None:
        """Wait until the server has processed everything: it confirms changes in their order among the sounds."""
        socket.send("session.update", session={"type": "realtime"})
        self._sent_updates += 1
        wanted = self._sent_updates
        self._wait(lambda: self._spoken.updates >= wanted)

    def _wait(self, ready: Callable[[], object]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: bool(ready()) or self._over)

    # Display

    @contextmanager
    def _shown(self) -> Iterator[Callable[[list[SpokenLine]], None]]:
        """Show complete lines, and on a terminal also the lines and the state of the moment."""
        terminal, spoken = self._call.terminal, self._spoken

        def plain(lines: list[SpokenLine]) -> None:
            for line in lines:
                terminal.line(f"{line.speaker}: {line.text}")
            terminal.out.flush()

        if not terminal.live:
            yield plain
            return
        with terminal.view.talk(lambda: ([(s.speaker, s.text) for s in spoken.current], spoken.state)) as say:

            def live(lines: list[SpokenLine]) -> None:
                for line in lines:
                    say(line.speaker, line.text)

            yield live
