"""Sessions over WebSockets: runs the work that a dialect's session asks for, and sends its messages in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from functools import partial
from typing import IO, TYPE_CHECKING, Any, assert_never, cast

from mullama.chat import inventory, types
from mullama.chat.transcription import SoundFile, Transcribed, TranscriptEvent, TranscriptionRequest
from mullama.dialects.base import Endpoint
from mullama.dialects.sessions import (
    CancelAnswer,
    Emit,
    OpenSession,
    Session,
    SessionAction,
    SessionFacts,
    SpeechDetector,
    StartAnswer,
    StartTranscript,
)
from mullama.errors import Denied, Internal, Invalid, MullamaError, TooLarge, Unavailable, Unsupported
from mullama.offload import compute
from mullama.runtime.base import Access, Caller, Service
from mullama.server.http.body import BodyBudget, BodyShare, parse_body
from mullama.server.http.exchange import Exchange, Message
from mullama.server.http.limits import MIB, Bounds
from mullama.server.http.strict_json import to_json
from mullama.server.inflight import Inflight
from mullama.server.keys import key_of_digest
from mullama.struct import Struct, replace
from mullama.units import size

if TYPE_CHECKING:
    from mullama.manifest.spec import SessionBounds
    from mullama.server.http.websocket import WebSocket

_log = logging.getLogger(__name__)

_UNSENT = MIB  # bytes of messages that wait for the client, before work for it waits
_HEAD = 4096  # bytes of a file that show its format
_MOST_WORK = 8  # answers and transcripts of one session at a time


class Sessions(Struct, kw_only=True):
    """The sessions of one app, which hold their connections for long."""

    service: Service
    pool: BodyBudget
    inflight: Inflight
    bounds: Bounds
    open: int = 0
    """Sessions now."""

    async def serve(self, endpoint: Endpoint, exchange: Exchange, operation: OpenSession) -> None:
        """Hold a session until its client or the server ends it. An error before its begin has a status."""
        assert endpoint.session is not None
        limits = self.service.access().manifest.server.limits.sessions
        if self.open >= limits.count:
            raise Unavailable(
                f"the server has {self.open} sessions",
                hint="try again later, or raise server.limits.sessions.count in the manifest",
                retry_after=5.0,
            )
        self.open += 1
        try:
            facts = await self._facts(exchange, operation)
            await asyncio.to_thread(_prepare_detector)
            from mullama.server.http.websocket import accept  # most servers hold no session

            socket = accept(exchange, endpoint.subprotocols, self.pool.share(), self.bounds)
            with self.pool.share() as share:
                running = RunningSession(self, exchange, endpoint.session(facts), socket, share, limits)
                await running.run()
        finally:
            self.open -= 1

    async def _facts(self, exchange: Exchange, operation: OpenSession) -> SessionFacts:
        access = self.service.access()
        limits = access.manifest.server.limits
        abilities: Sequence[str] = ()
        if operation.model:
            card = await self.service.answer(inventory.ShowModel(model=operation.model), exchange.caller)
            abilities = cast(inventory.ModelCard, card).capabilities
        return SessionFacts(
            id=exchange.id,
            model=operation.model,
            transcribes=operation.transcribes,
            hears="audio" in abilities,
            transcriber=_only_transcriber(access, exchange.caller),
            most_sound=min(limits.media.sound, limits.sessions.memory // 2),
            longest_turn=limits.sessions.turn,
            detector=partial(_detector, _detector_name(access, operation.model)),
        )


class RunningSession:
    """One session: reads the messages of its client, and runs answers and transcripts beside it."""

    def __init__(
        self,
        sessions: Sessions,
        exchange: Exchange,
        session: Session,
        socket: WebSocket,
        share: BodyShare,
        limits: SessionBounds,
    ) -> None:
        self._service, self._bounds, self._inflight = sessions.service, sessions.bounds, sessions.inflight
        self._exchange, self._session, self._socket, self._share = exchange, session, socket, share
        self._caller, self._limits = exchange.caller, limits
        self._access = self._service.access()
        self._calls = asyncio.Lock()  # a large message is processed in a thread
        self._work: dict[str, asyncio.Task[None]] = {}
        self._done = asyncio.Event()  # work ended
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._sent = asyncio.Event()
        self._to_send = asyncio.Event()
        self._answers = 0

    async def run(self) -> None:
        """Hold the session, and close the connection with the reason of its end."""
        from mullama.server.http.websocket import BAD_DATA, GOING_AWAY, INTERNAL, POLICY, TOO_BIG, SocketClosed

        code, reason = GOING_AWAY, "the server is stopping"
        sender = asyncio.create_task(self._send())
        try:
            # The watcher of the connection is the socket: only the end of a drain ends this block from outside.
            async with self._inflight.track(self._exchange.redirected(_never, _nowhere)):
                await self._converse()
        except SocketClosed:
            return
        except TimeoutError:
            code, reason = POLICY, f"no message arrived for {self._limits.idle:g} s"
        except MullamaError as error:
            self._exchange.notes.error = error
            self._perform(self._session.refused(error))
            codes = {Denied: POLICY, TooLarge: TOO_BIG, Invalid: BAD_DATA}
            code = next((code for kind, code in codes.items() if isinstance(error, kind)), GOING_AWAY)
            reason = error.message
        except Exception as error:  # noqa: BLE001 - a bug ends the session, not the server
            _log.error("request %s failed in its session", self._exchange.request_id, exc_info=error)
            self._exchange.notes.error = Internal("an internal error ended the session")
            code, reason = INTERNAL, f"an internal error: request {self._exchange.request_id}"
        finally:
            await self._end(sender, code, reason)

    async def _end(self, sender: asyncio.Task[None], code: int, reason: str) -> None:
        """End the work, send what waits for the client, and close."""
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)
        try:
            async with asyncio.timeout(self._bounds.flush):
                while self._unsent and not sender.done():
                    self._sent.clear()
                    await self._sent.wait()
        except TimeoutError:
            pass
        sender.cancel()
        self._socket.close(code, reason)
        self._exchange.finished = True
        self._exchange.notes.bytes_in, self._exchange.bytes_out = self._socket.bytes_in, self._socket.bytes_out
        await self._socket.wait_closed()

    async def _converse(self) -> None:
        from mullama.server.http.websocket import Leaving

        await self._call(self._session.opened)
        try:
            while True:
                await self._read()
        except Leaving:
            while self._session.busy and self._work:
                self._done.clear()
                await self._done.wait()

    async def _read(self) -> None:
        """Process the next message of the client."""
        try:
            async with asyncio.timeout(self._limits.idle):
                message = await self._socket.receive()
        except TimeoutError:
            if self._session.busy:
                return
            raise
        await self._call(lambda: self._received(message), len(message))
        if self._session.held > self._limits.memory:
            raise TooLarge(
                f"the session keeps more than {size(self._limits.memory)}",
                hint="begin another session, or raise server.limits.sessions.memory in the manifest",
            )
        self._share.hold(self._session.held)

    def _received(self, message: bytes) -> Sequence[SessionAction]:
        try:
            body = parse_body(message, self._bounds.depth)
        except MullamaError as error:
            return self._session.refused(error)
        return self._session.received(body)

    async def _call(self, work: Callable[[], Sequence[SessionAction]], size: int = 0) -> None:
        """Run one method of the session and perform its actions; wait while the client does not read."""
        async with self._calls:
            self._perform(await compute(size, work))
        while self._unsent_bytes > _UNSENT:
            self._sent.clear()
            await self._sent.wait()

    def _perform(self, actions: Sequence[SessionAction]) -> None:
        for action in actions:
            match action:
                case Emit(message=message):
                    data = to_json(message)
                    self._unsent.append(data)
                    self._unsent_bytes += len(data)
                    self._to_send.set()
                case StartAnswer():
                    self._start(action.id, self._answer(action))
                case StartTranscript():
                    self._start(action.id, self._transcribe(action))
                case CancelAnswer(id=id):
                    if (task := self._work.get(id)) is not None:
                        task.cancel()
                case _:
                    assert_never(action)

    def _start(self, id: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work[id] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._work.pop(id, None)
            self._done.set()

        task.add_done_callback(ended)

    async def _send(self) -> None:
        while True:
            while self._unsent:
                data = self._unsent.popleft()
                await self._socket.send(data)
                self._unsent_bytes -= len(data)
                self._sent.set()
            self._to_send.clear()
            await self._to_send.wait()

    # Work

    async def _answer(self, action: StartAnswer) -> None:
        try:
            await self._admit(action.request)
            async with aclosing(cast(Any, self._service.events(action.request, self._numbered()))) as stream:
                async for events in stream:
                    self._note(events)
                    await self._call(partial(self._session.answered, action.id, events))
        except Exception as error:  # noqa: BLE001 - a bug ends the answer, not the session
            failed = self._public(error)
            await self._call(lambda: self._session.answer_failed(action.id, failed))

    async def _transcribe(self, action: StartTranscript) -> None:
        try:
            with await asyncio.to_thread(_on_disk, action.sound) as file:
                request = TranscriptionRequest(
                    model=action.model,
                    sound=SoundFile(file=file, size=len(action.sound), head=action.sound[:_HEAD], name="turn.wav"),
                    language=action.language,
                    prompt=action.prompt or "",
                    stream=True,
                )
                await self._admit(request)
                async with aclosing(cast(Any, self._service.transcribe(request, self._numbered()))) as stream:
                    async for events in stream:
                        await self._transcribed(action.id, events)
        except Exception as error:  # noqa: BLE001 - a bug ends the transcript, not the session
            failed = self._public(error)
            await self._call(lambda: self._session.transcript_failed(action.id, failed))

    async def _transcribed(self, id: str, events: Sequence[types.Started | TranscriptEvent]) -> None:
        """Hand over events of a transcript."""
        for event in events:
            if isinstance(event, types.TextDelta) and event.text:
                await self._call(partial(self._session.transcribed, id, event.text, done=False))
            elif isinstance(event, Transcribed):
                self._add_usage(event.usage)
                whole, seconds = event.transcript.text.strip(), event.transcript.duration
                await self._call(partial(self._session.transcribed, id, whole, done=True, seconds=seconds))

    async def _admit(self, request: types.ChatRequest | TranscriptionRequest) -> None:
        """Check the key and the rate limits of one answer or transcript."""
        if len(self._work) > _MOST_WORK:
            raise Unavailable(f"the session has {_MOST_WORK} answers and transcripts in progress")
        self._check_key()
        admission = self._service.admit(request, self._caller)
        if admission is None:
            return
        await self._call(lambda: self._session.limited(admission.report))
        if admission.refusal is not None:
            raise admission.refusal

    def _check_key(self) -> None:
        """Take over the rights of the key as they are now. Raises `Denied` for one that the manifest has no more."""
        from mullama.server.http.websocket import POLICY

        access = self._service.access()
        if access is self._access:
            return
        try:
            self._caller = _caller_now(self._exchange, access)
        except Denied as error:
            self._socket.close(POLICY, error.message)
            raise
        self._access = access

    def _numbered(self) -> Caller:
        """Return the caller with a request id of its own."""
        self._answers += 1
        return replace(self._caller, request_id=f"{self._caller.request_id}.{self._answers}")

    def _note(self, events: Sequence[types.Event]) -> None:
        if events and isinstance(completed := events[-1], types.Completed):
            self._add_usage(completed.usage)

    def _add_usage(self, usage: types.Usage) -> None:
        notes = self._exchange.notes
        notes.prompt_tokens = (notes.prompt_tokens or 0) + usage.prompt_tokens
        notes.completion_tokens = (notes.completion_tokens or 0) + usage.completion_tokens

    def _public(self, error: Exception) -> MullamaError:
        """Return the error to send. One that is not a `MullamaError` is a bug: its details go to the log only."""
        if isinstance(error, MullamaError):
            return error
        _log.error("request %s failed in its session", self._exchange.request_id, exc_info=error)
        return Internal("an internal error", hint=f"the server's log has the details of {self._exchange.request_id}")


def _caller_now(exchange: Exchange, access: Access) -> Caller:
    """Return the caller of a session with the rights that its key has now. Raises `Denied` without such a key."""
    caller = exchange.caller
    if exchange.listener.kind == "control" or not access.keys:
        return caller
    key = key_of_digest(exchange.key_digest, access.keys)
    if key is None or not ("infer" in key.roles or "admin" in key.roles):
        raise Denied("the key of this session is no longer valid", hint="connect again with another key")
    return replace(caller, key=key.name, models=key.models, roles=key.roles, priority=key.priority)


def _on_disk(sound: bytes) -> IO[bytes]:
    """Return a file without a name that has the sound: a process of its own decodes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(sound)
    file.flush()
    return file


def _only_transcriber(access: Access, caller: Caller) -> str:
    """Return the model of the task transcription, "" where the caller may use none or several."""
    models = access.manifest.models.items()
    names = [name for name, model in models if model.task == "transcription" and caller.may_use(name)]
    return names[0] if len(names) == 1 else ""


def _prepare_detector() -> None:
    with contextlib.suppress(ModuleNotFoundError):  # a session of texts needs none
        from mullama.server.speech_detection import prepare

        prepare()


def _detector_name(access: Access, name: str) -> str:
    """Return the detector that the model, or else the only one that transcribes, declares."""
    models = access.manifest.models
    model = models.get(name) or next((one for one in models.values() if one.task == "transcription"), None)
    return model.transcription.voice.detector if model is not None else "auto"


def _detector(name: str, threshold: float, silence: int, rate: int) -> SpeechDetector:
    try:
        from mullama.server.speech_detection import SessionSpeechDetector
    except ModuleNotFoundError as error:
        raise Unsupported(
            f"the server cannot find turns in sound: {error.name} is not installed",
            hint="install mullama[engine], or send turn_detection null and input_audio_buffer.commit",
        ) from error
    return SessionSpeechDetector(name, threshold, silence, rate)


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _nowhere(message: Message) -> None:
    pass
