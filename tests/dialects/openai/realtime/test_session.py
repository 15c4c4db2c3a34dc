"""The session as a table: events of a client and results of the server in, events and work out."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from mullama.chat import types
from mullama.chat.types import MediaPart, TextPart
from mullama.dialects.openai.realtime.session import _HANDLERS, RealtimeSession
from mullama.dialects.rate_limits import RateReport, RateWindow
from mullama.dialects.sessions import Boundary, CancelAnswer, Emit, SessionFacts, StartAnswer, StartTranscript
from mullama.errors import Busy, EngineFailed

NAMES = (
    "session", "audio", "input", "format", "type", "rate", "turn_detection", "transcription", "model", "tools", "item",
    "content", "role", "text", "item_id", "response", "previous_item_id", "event_id", "conversation", "instructions",
)  # fmt: skip
NAME = st.sampled_from(NAMES)
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
RATE = 24_000
HEAD = (types.Started(prompt_tokens=5, cached_tokens=2),)
END = (
    types.Finished(reason=types.StopReason.STOP),
    types.Completed(usage=types.Usage(prompt_tokens=5, cached_tokens=2, completion_tokens=2), timings=types.Timings()),
)


class LoudDetector:
    """Speech is every sample that is not zero; a pause of the wanted length ends it."""

    def __init__(self, threshold: float, silence: int, rate: int) -> None:
        self._silence, self._rate = silence, rate
        self._place = self._last = 0
        self._speaking = False

    def feed(self, samples: bytes) -> Sequence[Boundary]:
        found = []
        for at in range(0, len(samples), 2):
            if samples[at : at + 2] != b"\0\0":
                if not self._speaking:
                    found.append(Boundary(starts=True, at=self._place * 1000 // self._rate))
                self._speaking, self._last = True, self._place
            elif self._speaking and (self._place - self._last) * 1000 >= self._silence * self._rate:
                self._speaking = False
                found.append(Boundary(starts=False, at=self._last * 1000 // self._rate))
            self._place += 1
        return found


def sound(milliseconds: int, *, loud: bool = True, rate: int = RATE) -> str:
    return base64.b64encode((b"\x10\x10" if loud else b"\0\0") * (milliseconds * rate // 1000)).decode()


class Driven:
    """A session with the record of what it asked for."""

    def __init__(self, **facts: Any) -> None:
        settings: dict[str, Any] = {
            "hears": False,
            "transcriber": "",
            "transcribes": False,
            "most_sound": 2**20,
            "longest_turn": 600.0,
        }
        self.session = RealtimeSession(
            SessionFacts(id="0" * 24, model="tiny", detector=LoudDetector, **{**settings, **facts})
        )
        self.events: list[dict[str, Any]] = []
        self.work: list[Any] = []
        self.take(self.session.opened())

    def take(self, actions: Sequence[Any]) -> list[dict[str, Any]]:
        fresh = [action.message for action in actions if isinstance(action, Emit)]
        for event in fresh:
            SERVER_EVENT.validate_python(event)
        self.events += fresh
        self.work += [action for action in actions if not isinstance(action, Emit)]
        return fresh

    def send(self, kind: str, **members: Any) -> list[dict[str, Any]]:
        return self.take(self.session.received({"type": kind, **members}))

    def update(self, **members: Any) -> list[dict[str, Any]]:
        return self.send("session.update", session={"type": "realtime", **members})

    def say(self, text: str, **members: Any) -> list[dict[str, Any]]:
        return self.send("conversation.item.create", item=user(text), **members)

    def answer(self, *events: types.Event) -> list[dict[str, Any]]:
        return self.take(self.session.answered(self.started[-1].id, events))

    @property
    def started(self) -> list[StartAnswer]:
        return [one for one in self.work if isinstance(one, StartAnswer)]

    @property
    def transcripts(self) -> list[StartTranscript]:
        return [one for one in self.work if isinstance(one, StartTranscript)]


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def texts(driven: Driven) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in driven.started[-1].request.messages]


def test_a_text_is_answered_in_the_order_of_openai() -> None:
    driven = Driven()
    assert kinds(driven.events) == ["session.created"]
    assert kinds(driven.say("Hi")) == ["conversation.item.added", "conversation.item.done"]
    assert kinds(driven.send("response.create")) == ["response.created"]
    assert texts(driven) == [("user", "Hi")]
    events = driven.answer(*HEAD, types.TextDelta(text="Hel"), types.TextDelta(text="lo"), *END)
    assert kinds(events) == [
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    done = events[-1]["response"]
    assert done["status"] == "completed"
    assert done["output"][0]["content"] == [{"type": "output_text", "text": "Hello"}]
    assert done["usage"]["input_tokens"] == 5
    assert done["usage"]["total_tokens"] == 7
    assert done["usage"]["input_token_details"]["cached_tokens"] == 2
    driven.say("And?")
    driven.send("response.create")
    assert texts(driven) == [("user", "Hi"), ("assistant", "Hello"), ("user", "And?")]
    ids = [event["event_id"] for event in driven.events]
    assert len(set(ids)) == len(ids)


def test_a_function_is_called_and_answered() -> None:
    driven = Driven()
    tool = {"type": "function", "name": "time", "description": "", "parameters": {"type": "object", "properties": {}}}
    shown = driven.update(tools=[tool], tool_choice="required")[0]["session"]
    assert shown["tools"][0]["name"] == "time"
    driven.say("What time is it?")
    driven.send("response.create")
    assert driven.started[0].request.tools[0].name == "time"
    assert driven.started[0].request.tool_choice.mode == "required"
    call = types.ToolCall(id="call_1", name="time", arguments={})
    events = driven.answer(
        *HEAD,
        types.ToolCallStarted(index=0, id="call_1", name="time"),
        types.ToolCallDelta(index=0, text="{}"),
        types.ToolCallFinished(index=0, call=call),
        *END,
    )
    assert "response.function_call_arguments.delta" in kinds(events)
    finished = next(e for e in events if e["type"] == "response.function_call_arguments.done")
    assert (finished["name"], finished["arguments"], finished["call_id"]) == ("time", "{}", "call_1")
    driven.send(
        "conversation.item.create", item={"type": "function_call_output", "call_id": "call_1", "output": "noon"}
    )
    driven.send("response.create", response={"tool_choice": "none"})
    messages = driven.started[-1].request.messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[1].tool_calls[0].name == "time"
    assert messages[2].text == "noon"


def test_speech_becomes_a_turn_and_is_answered_by_its_transcript() -> None:
    driven = Driven(transcriber="ears")
    events = driven.send("input_audio_buffer.append", audio=sound(1000, loud=False))
    assert events == []
    events = driven.send("input_audio_buffer.append", audio=sound(400))
    assert kinds(events) == ["input_audio_buffer.speech_started"]
    assert events[0]["audio_start_ms"] == 700  # 300 ms before the speech
    events = driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    assert kinds(events) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert 1590 <= events[0]["audio_end_ms"] <= 1600
    assert events[2]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    [work] = driven.transcripts
    assert work.model == "ears"
    assert work.sound[:4] == b"RIFF"
    assert abs(len(work.sound) - 44 - 2 * RATE * 0.9) < 2 * RATE * 0.01
    assert driven.started == []  # it waits for the transcript
    assert driven.session.busy
    item = events[0]["item_id"]
    partly = driven.take(driven.session.transcribed(item, "Hel", done=False))
    assert kinds(partly) == ["conversation.item.input_audio_transcription.delta"]
    whole = driven.take(driven.session.transcribed(item, "Hello", done=True, seconds=0.9))
    assert kinds(whole) == ["conversation.item.input_audio_transcription.completed", "response.created"]
    assert texts(driven) == [("user", "Hello")]


def test_a_model_that_hears_gets_the_sound() -> None:
    driven = Driven(hears=True)
    driven.send("input_audio_buffer.append", audio=sound(400))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    [part] = driven.started[0].request.messages[0].content
    assert isinstance(part, MediaPart)
    assert part.kind == "audio"
    assert part.data is not None
    assert driven.transcripts == []


def test_speech_interrupts_the_answer() -> None:
    driven = Driven(hears=True)
    driven.say("Tell me a story")
    driven.send("response.create")
    driven.answer(*HEAD, types.TextDelta(text="Once upon"))
    events = driven.send("input_audio_buffer.append", audio=sound(100))
    assert kinds(events)[0] == "input_audio_buffer.speech_started"
    assert kinds(events)[-1] == "response.done"
    assert events[-1]["response"]["status"] == "cancelled"
    assert events[-1]["response"]["status_details"]["reason"] == "turn_detected"
    assert driven.work[-1] == CancelAnswer(id=driven.started[0].id)
    assert driven.answer(types.TextDelta(text=" a time"), *END) == []  # too late
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    assert [m.role for m in driven.started[-1].request.messages] == ["user", "assistant", "user"]
    assert driven.started[-1].request.messages[1].text == "Once upon"


def test_without_interruption_the_next_answer_waits() -> None:
    driven = Driven(hears=True)
    driven.update(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    driven.say("Tell me a story")
    driven.send("response.create")
    driven.send("input_audio_buffer.append", audio=sound(200))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    assert len(driven.started) == 1
    driven.take(driven.session.answered(driven.started[0].id, (*HEAD, types.TextDelta(text="No."), *END)))
    assert len(driven.started) == 2


def test_turns_that_the_client_ends_itself() -> None:
    driven = Driven(hears=True)
    driven.update(audio={"input": {"turn_detection": None, "format": {"type": "audio/pcmu"}}})
    assert kinds(driven.send("input_audio_buffer.commit")) == ["error"]
    driven.send("input_audio_buffer.append", audio=base64.b64encode(bytes(800)).decode())
    assert kinds(driven.send("input_audio_buffer.commit"))[0] == "input_audio_buffer.committed"
    assert driven.started == []
    driven.send("response.create")
    [part] = driven.started[0].request.messages[0].content
    assert isinstance(part, MediaPart)
    assert part.data is not None
    assert len(part.data) == 44 + 1600
    assert part.data[24:28] == (8000).to_bytes(4, "little")
    driven.send("input_audio_buffer.append", audio=base64.b64encode(bytes(800)).decode())
    assert kinds(driven.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert kinds(driven.send("input_audio_buffer.commit")) == ["error"]


@pytest.mark.parametrize("limit", [{"most_sound": 2 * RATE}, {"longest_turn": 1.0}])
def test_a_very_long_turn_is_ended(limit: dict[str, float]) -> None:
    driven = Driven(hears=True, **limit)
    driven.send("input_audio_buffer.append", audio=sound(600))
    events = driven.send("input_audio_buffer.append", audio=sound(600))
    assert kinds(events)[:2] == ["input_audio_buffer.speech_stopped", "input_audio_buffer.committed"]
    assert events[-1]["type"] in ("input_audio_buffer.speech_started", "response.done")


def test_sound_is_refused_before_a_response_if_nothing_reads_it() -> None:
    driven = Driven()
    driven.send("input_audio_buffer.append", audio=sound(300))
    events = driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    assert events[-1]["type"] == "error"
    assert "task: transcription" in events[-1]["error"]["message"]
    driven.update(audio={"input": {"transcription": {"model": "ears", "language": "de"}}})
    driven.send("input_audio_buffer.append", audio=sound(300))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    assert (driven.transcripts[0].model, driven.transcripts[0].language) == ("ears", "de")


def test_a_failed_transcript_ends_the_wait() -> None:
    driven = Driven(transcriber="ears")
    driven.send("input_audio_buffer.append", audio=sound(300))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    events = driven.take(driven.session.transcript_failed(driven.transcripts[0].id, EngineFailed("it died")))
    assert kinds(events) == ["conversation.item.input_audio_transcription.failed", "error"]
    assert events[0]["error"]["message"] == "it died"
    assert not driven.session.busy


def test_a_session_that_transcribes_only() -> None:
    driven = Driven(transcribes=True, transcriber="ears")
    assert driven.events[0]["session"]["type"] == "transcription"
    driven.send("input_audio_buffer.append", audio=sound(300))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    driven.take(driven.session.transcribed(driven.transcripts[0].id, "Hello", done=True))
    assert driven.started == []
    assert kinds(driven.send("response.create")) == ["error"]


def test_items_are_placed_fetched_and_deleted() -> None:
    driven = Driven()
    driven.say("b")
    first = driven.events[-1]["item"]["id"]
    driven.say("a", previous_item_id="root")
    driven.say("c", previous_item_id=first)
    driven.send("conversation.item.create", item={**user("d"), "id": "mine"})
    driven.send("response.create")
    assert texts(driven) == [("user", text) for text in "abcd"]
    driven.answer(*HEAD, *END)
    assert driven.send("conversation.item.retrieve", item_id="mine")[0]["item"]["content"][0]["text"] == "d"
    assert kinds(driven.send("conversation.item.delete", item_id="mine")) == ["conversation.item.deleted"]
    held = driven.session.held
    assert kinds(driven.send("conversation.item.delete", item_id="mine")) == ["error"]
    assert driven.session.held == held
    driven.send("response.create")
    assert texts(driven) == [("user", text) for text in "abc"]


def test_a_response_beside_the_conversation() -> None:
    driven = Driven()
    driven.say("Hi")
    driven.send("response.create")
    driven.send("response.create", response={"conversation": "none", "input": [user("Title?")], "metadata": {"k": "v"}})
    assert texts(driven) == [("user", "Title?")]
    events = driven.answer(*HEAD, types.TextDelta(text="Hi!"), *END)
    assert "conversation.item.added" not in kinds(events)
    assert events[-1]["response"]["metadata"] == {"k": "v"}
    assert events[-1]["response"]["conversation_id"] is None


def test_settings_of_one_response_are_its_own() -> None:
    driven = Driven()
    driven.update(instructions="Be brief.", max_output_tokens=9)
    driven.say("Hi")
    driven.send("response.create", response={"instructions": "Be loud.", "max_output_tokens": "inf"})
    assert texts(driven)[0] == ("system", "Be loud.")
    assert driven.started[0].request.max_tokens is None
    driven.answer(*HEAD, *END)
    driven.send("response.create")
    assert texts(driven)[0] == ("system", "Be brief.")
    assert driven.started[1].request.max_tokens == 9


def test_the_end_of_a_response() -> None:
    driven = Driven()
    driven.say("Hi")
    driven.send("response.create")
    cut = (types.Finished(reason=types.StopReason.LENGTH), END[1])
    done = driven.answer(*HEAD, types.TextDelta(text="Hel"), *cut)[-1]["response"]
    assert done["status"] == "incomplete"
    assert done["status_details"]["reason"] == "max_output_tokens"
    driven.send("response.create")
    failure = Busy("too many", limited=True)
    done = driven.take(driven.session.answer_failed(driven.started[-1].id, failure))[-1]["response"]
    assert done["status"] == "failed"
    assert done["status_details"]["error"]["code"] == "rate_limit_exceeded"
    driven.send("response.create")
    events = driven.send("response.cancel")
    assert events[-1]["response"]["status_details"]["reason"] == "client_cancelled"
    assert kinds(driven.send("response.cancel")) == ["error"]
    assert not driven.session.busy


def test_rate_limits_are_reported() -> None:
    report = RateReport(requests=RateWindow(limit=10, remaining=9, reset=6.0))
    [event] = Driven().take(Driven().session.limited(report))
    assert event["rate_limits"] == [{"name": "requests", "limit": 10, "remaining": 9, "reset_seconds": 6.0}]


TURNS = {"turn_detection": {"type": "server_vad", "threshold": 2}}


@pytest.mark.parametrize(
    ("event", "param", "words"),
    [
        ({"type": "nonsense"}, "type", "no event"),
        ({}, "type", "required"),
        ({"type": 3}, "type", "a string"),
        ({"type": "session.update"}, None, "session"),
        ({"type": "session.update", "session": {"type": "transcription"}}, "session.type", "keeps its type"),
        ({"type": "session.update", "session": {"model": "other"}}, "session.model", "keeps its model"),
        ({"type": "session.update", "session": {"modalities": ["text"]}}, "session.modalities", "output_modalities"),
        ({"type": "session.update", "session": {"output_modalities": ["audio"]}},
         "session.output_modalities", "spoken"),
        ({"type": "session.update", "session": {"prompt": {"id": "p"}}}, "session.prompt", "instructions"),
        ({"type": "session.update", "session": {"audio": {"input": TURNS}}},
         "session.audio.input.turn_detection.threshold", "between"),
        ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}},
         "session.audio.input.turn_detection.type", "server_vad"),
        ({"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/opus"}}}}},
         "session.audio.input.format.type", "audio/pcm"),
        ({"type": "session.update", "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 1}}}}},
         "session.audio.input.format.rate", "between"),
        ({"type": "session.update", "session": {"audio": {"input": {"transcription": {}}}}},
         "session.audio.input.transcription.model", "required"),
        ({"type": "input_audio_buffer.append"}, "audio", "a string"),
        ({"type": "input_audio_buffer.append", "audio": "*"}, "audio", "base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio", "odd"),
        ({"type": "conversation.item.create"}, None, "item"),
        ({"type": "conversation.item.create", "item": {"type": "mcp_call"}}, "item.type", "message"),
        ({"type": "conversation.item.create", "item": {**user("x"), "role": "bot"}}, "item.role", "user"),
        ({"type": "conversation.item.create", "item": user("x"), "previous_item_id": "y"}, None, "no item 'y'"),
        ({"type": "conversation.item.create",
          "item": {"type": "message", "role": "system", "content": [{"type": "input_audio", "audio": "AAAA"}]}},
         "item.content[0].type", "input_text"),
        ({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1},
         None, "no item"),
        ({"type": "conversation.item.delete"}, "item_id", "required"),
        ({"type": "response.cancel"}, None, "no active response"),
        ({"type": "response.create"}, None, "empty"),
        ({"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "z"}]}}, None, "no item"),
    ],
)  # fmt: skip
def test_a_bad_event_is_answered_with_an_error(event: dict[str, Any], param: str | None, words: str) -> None:
    driven = Driven()
    before = driven.session.held
    *_, error = driven.take(driven.session.received({**event, "event_id": "mine"}))
    assert error["type"] == "error"
    assert words in error["error"]["message"]
    if param is not None:
        assert error["error"]["param"] == param
        assert error["error"]["event_id"] == "mine"
    assert driven.session.held == before
    assert kinds(driven.say("Hi")) == ["conversation.item.added", "conversation.item.done"]


@pytest.mark.parametrize("value", [None, 3, [], "text", {"event_id": 3, "type": "x"}])
def test_a_message_that_is_no_event_is_answered_with_an_error(value: Any) -> None:
    driven = Driven()
    assert kinds(driven.take(driven.session.received(value))) == ["error"]


def test_a_second_response_of_the_conversation_is_refused_while_one_is_active() -> None:
    driven = Driven()
    driven.say("Hi")
    driven.send("response.create")
    [error] = driven.send("response.create", event_id="again")
    assert error["error"]["code"] == "conversation_already_has_active_response"
    assert error["error"]["event_id"] == "again"


def test_an_image_is_sent_to_the_model() -> None:
    driven = Driven()
    image = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": image}]
    driven.send("conversation.item.create", item={"type": "message", "role": "user", "content": parts})
    driven.send("response.create")
    text, picture = driven.started[0].request.messages[0].content
    assert isinstance(text, TextPart)
    assert isinstance(picture, MediaPart)
    assert picture.kind == "image"


def test_a_noise_without_a_word_is_not_answered() -> None:
    driven = Driven(transcriber="ears")
    driven.send("input_audio_buffer.append", audio=sound(300))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    events = driven.take(driven.session.transcribed(driven.transcripts[0].id, " ", done=True))
    assert kinds(events) == ["conversation.item.input_audio_transcription.completed"]
    assert not driven.session.busy
    assert driven.started == []


KINDS = st.sampled_from([*_HANDLERS, "nonsense"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=9,
)


@given(st.lists(st.builds(lambda kind, body: {**body, "type": kind}, KINDS, st.dictionaries(NAME, JSON, max_size=5))))
def test_no_event_breaks_a_session(messages: list[dict[str, Any]]) -> None:
    driven = Driven(hears=True)
    for message in messages:
        driven.take(driven.session.received(message))
    driven.say("Hi")
    assert driven.session.held >= 0


def test_a_turn_whose_speaker_speaks_on_is_answered_once() -> None:
    driven = Driven(transcriber="ears")
    for _ in range(2):
        driven.send("input_audio_buffer.append", audio=sound(300))
        driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    driven.send("input_audio_buffer.append", audio=sound(300))
    for work, text in zip(driven.transcripts, ("Tell me", "a story"), strict=True):
        driven.take(driven.session.transcribed(work.id, text, done=True))
    assert driven.started == [], "the speaker speaks"
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    events = driven.take(driven.session.transcribed(driven.transcripts[-1].id, "", done=True))
    assert kinds(events)[-1] == "response.created", "the third one was a noise"
    assert texts(driven) == [("user", "Tell me"), ("user", "a story")]


def test_a_turn_that_the_client_clears_does_not_hold_up_the_one_before() -> None:
    driven = Driven(transcriber="ears")
    driven.send("input_audio_buffer.append", audio=sound(300))
    driven.send("input_audio_buffer.append", audio=sound(700, loud=False))
    driven.send("input_audio_buffer.append", audio=sound(300))
    driven.take(driven.session.transcribed(driven.transcripts[0].id, "Hello", done=True))
    assert kinds(driven.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared", "response.created"]


def test_calls_of_the_servers_tools_are_hidden_and_separate_the_texts() -> None:
    driven = Driven()
    driven.say("What is on page 1?")
    driven.send("response.create")
    events = driven.answer(
        *HEAD,
        types.TextDelta(text="Let me look."),
        types.ToolStarted(id="call_1", server="docs", name="read", arguments={"page": 1}),
        types.ToolEnded(id="call_1", text="page 1"),
        types.TextDelta(text="It is empty."),
        *END,
    )
    done = [event["text"] for event in events if event["type"] == "response.output_text.done"]
    assert done == ["Let me look.", "It is empty."]
    assert not [event for event in events if "mcp" in event["type"]]
