"""A realtime session as a state machine: events of the client and results of the server in, events and work out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mullama.chat.media.wav import wav_file
from mullama.chat.types import ChatRequest, Event, Sampling
from mullama.dialects import fields
from mullama.dialects.media import decoded
from mullama.dialects.openai.errors import code_of, envelope, message_of
from mullama.dialects.openai.realtime.answers import AnswerWriter, CancelReason, WireEvent
from mullama.dialects.openai.realtime.item_order import ROOT, ItemOrder
from mullama.dialects.openai.realtime.items import (
    MOST_ITEMS,
    ConversationItem,
    SoundPart,
    read_item,
    turns_of,
)
from mullama.dialects.openai.realtime.settings import SessionSettings, TranscriptSettings
from mullama.dialects.openai.realtime.sounds import InputBuffer
from mullama.dialects.openai.request_fields import METADATA
from mullama.dialects.rate_limits import RateReport
from mullama.dialects.sessions import (
    Boundary,
    CancelAnswer,
    Emit,
    SessionAction,
    SessionFacts,
    SpeechDetector,
    StartAnswer,
    StartTranscript,
)
from mullama.errors import Conflict, Invalid, MullamaError, Unsupported
from mullama.names import JSONValue
from mullama.struct import Struct, replace

_EVENT_ID = fields.text("event_id", 512)
_ITEM_ID = fields.text("item_id", 64)
_PREVIOUS = fields.text("previous_item_id", 64)
_RESPONSE_ID = fields.text("response_id", 128)
_CONVERSATION = fields.choice("conversation", ("auto", "none"))
_INPUT = fields.many("input", fields.to_record, {"type": "object"}, MOST_ITEMS)
_LEAST_COMMIT = 100  # milliseconds


class _Wanted(Struct, frozen=True, kw_only=True):
    """A response that is to be generated."""

    settings: SessionSettings
    stored: bool = True
    items: tuple[ConversationItem, ...] | None = None
    """The items to answer; None for the conversation."""
    metadata: JSONValue = None
    turns: frozenset[str] = frozenset()
    """The items of the speech that it answers; empty for one that the client asked for."""


class _Turn(Struct, frozen=True, kw_only=True):
    """The turn of a speaker who speaks."""

    item: str
    begin: int
    """Milliseconds, with the sound before the speech that belongs to it."""


class RealtimeSession:
    """Implements `dialects.sessions.Session` for OpenAI's realtime events."""

    def __init__(self, facts: SessionFacts) -> None:
        self._facts = facts
        transcript = TranscriptSettings(model=facts.transcriber) if facts.transcriber else None
        self._settings = SessionSettings(
            model=facts.model,
            kind="transcription" if facts.transcribes else "realtime",
            transcript=transcript if facts.transcribes or not facts.hears else None,
        )
        self._counter = 0
        self._items = ItemOrder()
        self._buffer = self._new_buffer()
        self._detector: SpeechDetector | None = None
        self._origin = 0  # the time of the first sample that the detector has seen
        self._turn: _Turn | None = None
        self._answers: dict[str, AnswerWriter] = {}
        self._wanted: list[_Wanted] = []
        self._hearing: set[str] = set()  # items whose transcripts are in progress
        self._out: list[SessionAction] = []

    # Calls of the server

    @property
    def busy(self) -> bool:
        return bool(self._answers or self._wanted or self._hearing)

    @property
    def held(self) -> int:
        return self._items.size + len(self._buffer)

    def opened(self) -> Sequence[SessionAction]:
        self._emit("session.created", session=self._shown())
        return self._taken()

    def received(self, message: JSONValue) -> Sequence[SessionAction]:
        cause: str | None = None
        try:
            body = fields.Body(message)
            cause = body.get(_EVENT_ID)
            kind = body.need(fields.text("type", 128))
            handler = _HANDLERS.get(kind)
            if handler is None:
                known = ", ".join(_HANDLERS)
                raise Invalid(f"type: there is no event {kind!r}", hint=f"the events are {known}", field="type")
            handler(self, body)
        except MullamaError as error:
            self._error(error, cause)
        return self._taken()

    def refused(self, error: MullamaError) -> Sequence[SessionAction]:
        self._error(error, None)
        return self._taken()

    def limited(self, report: RateReport) -> Sequence[SessionAction]:
        limits: list[JSONValue] = [
            {"name": unit, "limit": w.limit, "remaining": w.remaining, "reset_seconds": w.reset}
            for unit, w in report.windows
        ]
        self._emit("rate_limits.updated", rate_limits=limits)
        return self._taken()

    def answered(self, id: str, events: Sequence[Event]) -> Sequence[SessionAction]:
        writer = self._answers.get(id)
        if writer is not None:
            for event in events:
                self._written(writer, writer.feed(event))
        return self._taken()

    def answer_failed(self, id: str, error: MullamaError) -> Sequence[SessionAction]:
        writer = self._answers.get(id)
        if writer is not None:
            self._written(writer, writer.fail(error))
        return self._taken()

    def transcribed(self, id: str, text: str, *, done: bool, seconds: float = 0.0) -> Sequence[SessionAction]:
        if id not in self._hearing:
            return ()
        place: WireEvent = {"item_id": id, "content_index": 0}
        if not done:
            self._emit("conversation.item.input_audio_transcription.delta", **place, delta=text)
            return self._taken()
        self._hearing.discard(id)
        usage: JSONValue = {"type": "duration", "seconds": seconds}
        self._emit("conversation.item.input_audio_transcription.completed", **place, transcript=text, usage=usage)
        if (item := self._items.get(id)) is not None:
            self._items.put(item.heard(text, keep=self._facts.hears))
        if not text.strip():
            self._forget(id)
        self._continue()
        return self._taken()

    def transcript_failed(self, id: str, error: MullamaError) -> Sequence[SessionAction]:
        if id in self._hearing:
            self._hearing.discard(id)
            shown = {name: envelope(error)[name] for name in ("type", "code", "message", "param")}
            kind = "conversation.item.input_audio_transcription.failed"
            self._emit(kind, item_id=id, content_index=0, error=shown)
            self._continue()
        return self._taken()

    # Events of the client

    def _update(self, body: fields.Body) -> None:
        before = self._settings
        self._settings = before.updated(body.raw("session"))
        if self._settings.format != before.format:
            self._buffer, self._detector, self._turn = self._new_buffer(), None, None
        if self._settings.turns != before.turns:
            self._detector, self._turn = None, None
        self._emit("session.updated", session=self._shown())
        self._continue()

    def _append(self, body: fields.Body) -> None:
        place = "audio"
        samples = self._settings.format.samples(decoded(fields.to_text(body.raw(place), place), place))
        if self._turn is not None and len(self._buffer) + len(samples) > self._buffer.most:
            self._bound(Boundary(starts=False, at=self._buffer.end - self._origin))  # the longest turn
            self._detector = None
        self._buffer.add(samples)
        if self._settings.turns is None:
            return
        if self._detector is None:
            self._detector = self._new_detector()
            self._origin = self._buffer.end - len(samples) * 500 // self._buffer.rate
        for boundary in self._detector.feed(samples):
            self._bound(boundary)
        if self._turn is None and self._settings.turns is not None:
            # Enough for the begin of a turn, which the detector reports late.
            self._buffer.keep(self._buffer.end - self._settings.turns.prefix_padding_ms - _LATEST_REPORT)

    def _bound(self, boundary: Boundary) -> None:
        """Begin or end a turn of the speaker."""
        turns = self._settings.turns
        if turns is None:
            return
        at = self._origin + boundary.at
        if boundary.starts and self._turn is None:
            self._turn = _Turn(item=self._new_id("item"), begin=max(self._buffer.begin, at - turns.prefix_padding_ms))
            begin = self._turn.begin
            self._emit("input_audio_buffer.speech_started", audio_start_ms=begin, item_id=self._turn.item)
            if turns.interrupt_response:
                self._interrupt("turn_detected")
        elif not boundary.starts and self._turn is not None:
            turn, self._turn = self._turn, None
            end = min(at + _TRAIL, self._buffer.end)
            self._emit("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=turn.item)
            self._commit_sound(turn.item, turn.begin, end)
            if turns.create_response and self._settings.answers:
                self._want(_Wanted(settings=self._settings, turns=frozenset({turn.item})))
            else:
                self._continue()

    def _commit(self, body: fields.Body) -> None:
        length = self._buffer.end - self._buffer.begin
        if length < _LEAST_COMMIT:
            raise Invalid(
                f"the input audio buffer has {length} ms of sound, and {_LEAST_COMMIT} ms are the least to commit",
                hint="append sound first; while the server finds turns it commits them itself",
            )
        turn, self._turn, self._detector = self._turn, None, None
        item = turn.item if turn else self._new_id("item")
        self._commit_sound(item, turn.begin if turn else self._buffer.begin, self._buffer.end)
        self._continue()

    def _commit_sound(self, id: str, begin: int, end: int) -> None:
        previous = self._items.last
        self._emit("input_audio_buffer.committed", item_id=id, previous_item_id=previous)
        sound = SoundPart(samples=self._buffer.take(begin, end), rate=self._buffer.rate)
        self._add(ConversationItem(id=id, role="user", parts=(sound,)), previous)

    def _clear(self, body: fields.Body) -> None:
        self._buffer.clear()
        self._detector, self._turn = None, None
        self._emit("input_audio_buffer.cleared")
        self._continue()

    def _create_item(self, body: fields.Body) -> None:
        item = read_item(body.raw("item"), "item", self._new_id("item"), self._settings.format)
        self._items.require_room(item.id)
        previous = body.get(_PREVIOUS)
        if previous is not None and previous != ROOT:
            self._items.find(previous, "previous_item_id")
        self._add(item, self._items.last if previous is None else previous)

    def _retrieve(self, body: fields.Body) -> None:
        item = self._items.find(body.need(_ITEM_ID), "item_id")
        self._emit("conversation.item.retrieved", item=item.shown(sounds=True))

    def _delete(self, body: fields.Body) -> None:
        item = self._items.find(body.need(_ITEM_ID), "item_id")
        self._items.remove(item)
        self._hearing.discard(item.id)
        self._emit("conversation.item.deleted", item_id=item.id)
        self._continue()

    def _truncate(self, body: fields.Body) -> None:
        self._items.find(body.need(_ITEM_ID), "item_id")
        raise Unsupported(
            "conversation.item.truncate cuts spoken answers, and answers are texts here",
            hint="delete the item, or create one with the text that counts", field="item_id",
        )  # fmt: skip

    def _create_response(self, body: fields.Body) -> None:
        if not self._settings.answers:
            raise Unsupported("response.create: a session of the type transcription gives no answers", field="type")
        given = body.child("response") or fields.Body({}, "response")
        stored = given.get(_CONVERSATION) != "none"
        items: tuple[ConversationItem, ...] | None = None
        if (inputs := given.get(_INPUT)) is not None:
            items = tuple(self._input_item(value, f"response.input[{i}]") for i, value in enumerate(inputs))
        if stored and self._active() is not None:
            raise Conflict(
                "the conversation has an active response", hint="wait for response.done, or send response.cancel"
            )
        metadata = given.get(METADATA)
        self._want(_Wanted(settings=self._settings.over(given), stored=stored, items=items, metadata=metadata))

    def _input_item(self, value: JSONValue, path: str) -> ConversationItem:
        body = fields.Body(value, path)
        if body.raw("type") == "item_reference":
            return self._items.find(body.need(fields.text("id", 64)), body.at("id"))
        return read_item(value, path, self._new_id("item"), self._settings.format)

    def _cancel(self, body: fields.Body) -> None:
        named = body.get(_RESPONSE_ID)
        writer = self._answers.get(named) if named else self._active()
        if writer is None and named is None and self._wanted:
            self._wanted.clear()
        elif writer is None:
            name = f"there is no active response {named!r}" if named else "there is no active response to cancel"
            raise Invalid(name, field="response_id" if named else None)
        else:
            self._cancel_answer(writer, "client_cancelled")
            self._continue()

    # Items

    def _add(self, item: ConversationItem, previous: str | None) -> None:
        """Put an item after another one, and begin its transcript."""
        self._items.insert(item, previous)
        place: WireEvent = {"previous_item_id": None if previous == ROOT else previous, "item": item.shown()}
        self._emit("conversation.item.added", **place)
        self._emit("conversation.item.done", **place)
        if item.unheard:
            self._hear(item)

    def _hear(self, item: ConversationItem) -> None:
        settings = self._settings.transcript
        if settings is None:
            return
        self._hearing.add(item.id)
        sound = next(part for part in item.parts if isinstance(part, SoundPart) and part.transcript is None)
        self._out.append(
            StartTranscript(
                id=item.id, model=settings.model, sound=wav_file(sound.samples, rate=sound.rate),
                language=settings.language, prompt=settings.prompt,
            )
        )  # fmt: skip

    # Responses

    def _active(self) -> AnswerWriter | None:
        return next((writer for writer in self._answers.values() if writer.stored), None)

    def _want(self, wanted: _Wanted) -> None:
        """Generate a response as soon as possible."""
        if wanted.stored:  # it answers everything that an earlier one would have answered
            earlier = [other for other in self._wanted if other.stored]
            self._wanted = [other for other in self._wanted if not other.stored]
            if wanted.turns:
                wanted = replace(wanted, turns=wanted.turns.union(*(other.turns for other in earlier)))
        self._wanted.append(wanted)
        self._continue()

    def _continue(self) -> None:
        """Begin the responses that nothing holds up."""
        waiting, self._wanted = self._wanted, []
        for wanted in waiting:
            items = self._items.all if wanted.items is None else wanted.items
            if self._held_up(wanted, items):
                self._wanted.append(wanted)
            else:
                self._start(wanted, items)

    def _forget(self, turn: str) -> None:
        """Answer no turn without a word: it was a noise."""
        waiting, self._wanted = self._wanted, []
        for wanted in waiting:
            left = wanted.turns - {turn}
            if left or not wanted.turns:
                self._wanted.append(replace(wanted, turns=left))

    def _held_up(self, wanted: _Wanted, items: Sequence[ConversationItem]) -> bool:
        """Return whether a response waits for another one, for the speaker, or for a transcript in its prompt."""
        if wanted.stored and self._active() is not None:
            return True
        if wanted.turns and self._turn is not None:  # the turn continues after a pause, or a noise interrupts it
            return True
        return not self._facts.hears and any(item.id in self._hearing for item in items)

    def _start(self, wanted: _Wanted, items: Sequence[ConversationItem]) -> None:
        settings = wanted.settings
        try:
            if not self._facts.hears and any(item.unheard for item in items):
                raise self._deaf(items)
            messages = turns_of(items, settings.instructions, hears=self._facts.hears)
            if not messages:
                raise Invalid("the conversation is empty", hint="send conversation.item.create first")
        except MullamaError as error:
            self._error(error, None)
            return
        writer = AnswerWriter(
            self._new_id("resp"),
            stored=wanted.stored,
            head={
                "conversation_id": f"conv_{self._facts.id}" if wanted.stored else None,
                "output_modalities": ["text"],
                "max_output_tokens": "inf" if settings.max_tokens is None else settings.max_tokens,
                "metadata": wanted.metadata,
            },
        )
        self._answers[writer.id] = writer
        self._send(writer.created())
        self._out.append(
            StartAnswer(
                id=writer.id,
                request=ChatRequest(
                    model=settings.model,
                    stream=True,
                    messages=messages,
                    tools=settings.tools,
                    tool_choice=settings.tool_choice,
                    max_tokens=settings.max_tokens,
                    sampling=Sampling(temperature=settings.temperature),
                    think=settings.think,
                    think_optional=True,
                    details=True,
                    truncate=True,
                    conversation=self._facts.id,
                ),
            )
        )

    def _deaf(self, items: Sequence[ConversationItem]) -> Unsupported:
        if self._settings.transcript is None:
            return Unsupported(
                f"the model '{self._settings.model}' does not read sound, and no model transcribes it",
                hint="set session.audio.input.transcription.model, or declare a model with `task: transcription`",
            )
        id = next(item.id for item in items if item.unheard)
        return Unsupported(f"the item {id} has no transcript", hint="delete it, or send its text")

    def _written(self, writer: AnswerWriter, events: Iterator[WireEvent]) -> None:
        """Send events of a response, and add its items to the conversation."""
        for event in events:
            kind, item = event["type"], None
            if writer.stored and kind in ("response.output_item.added", "response.output_item.done"):
                item = writer.items[_index(event)]
            previous = self._items.last
            if kind == "response.output_item.done" and item is not None:
                self._items.put(item)
                self._emit("conversation.item.done", previous_item_id=self._items.before(item.id), item=item.shown())
            self._send(event)
            if kind == "response.output_item.added" and item is not None:
                self._items.put(item)
                self._emit("conversation.item.added", previous_item_id=previous, item=item.shown())
        if writer.done:
            self._answers.pop(writer.id, None)
            self._continue()

    def _interrupt(self, reason: CancelReason) -> None:
        if (writer := self._active()) is not None:
            self._cancel_answer(writer, reason)

    def _cancel_answer(self, writer: AnswerWriter, reason: CancelReason) -> None:
        self._out.append(CancelAnswer(id=writer.id))
        del self._answers[writer.id]
        self._written(writer, writer.cancel(reason))

    # Messages

    def _new_id(self, prefix: str) -> str:
        self._counter += 1
        return f"{prefix}_{self._facts.id[:16]}{self._counter:06x}"

    def _emit(self, kind: str, **members: JSONValue) -> None:
        self._send({"type": kind, **members})

    def _send(self, event: WireEvent) -> None:
        self._out.append(Emit(message={"type": event["type"], "event_id": self._new_id("event"), **event}))

    def _error(self, error: MullamaError, cause: str | None) -> None:
        """Send an error; cause: the `event_id` of the message that it answers."""
        shown = envelope(error)
        code = "conversation_already_has_active_response" if isinstance(error, Conflict) else code_of(error)
        self._emit(
            "error",
            error={
                "type": shown["type"], "code": code, "message": message_of(error),
                "param": shown["param"], "event_id": cause,
            },
        )  # fmt: skip

    def _taken(self) -> Sequence[SessionAction]:
        taken, self._out = self._out, []
        return taken

    def _shown(self) -> dict[str, JSONValue]:
        return self._settings.shown(f"sess_{self._facts.id}")

    def _new_buffer(self) -> InputBuffer:
        rate = self._settings.format.rate
        return InputBuffer(rate, min(self._facts.most_sound, 2 * int(self._facts.longest_turn * rate)))

    def _new_detector(self) -> SpeechDetector:
        turns = self._settings.turns
        assert turns is not None
        return self._facts.detector(turns.threshold, turns.silence_duration_ms, self._buffer.rate)


_TRAIL = 200  # milliseconds after speech that belong to its turn: words end softly
_LATEST_REPORT = 500  # milliseconds after which a detector reports a begin of speech, at most


def _index(event: WireEvent) -> int:
    index = event["output_index"]
    assert isinstance(index, int)
    return index


_HANDLERS: Mapping[str, Callable[[RealtimeSession, fields.Body], Any]] = {
    "session.update": RealtimeSession._update,
    "input_audio_buffer.append": RealtimeSession._append,
    "input_audio_buffer.commit": RealtimeSession._commit,
    "input_audio_buffer.clear": RealtimeSession._clear,
    "conversation.item.create": RealtimeSession._create_item,
    "conversation.item.retrieve": RealtimeSession._retrieve,
    "conversation.item.delete": RealtimeSession._delete,
    "conversation.item.truncate": RealtimeSession._truncate,
    "response.create": RealtimeSession._create_response,
    "response.cancel": RealtimeSession._cancel,
}
