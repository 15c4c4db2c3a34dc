"""Each medium has one mark in the prompt, in the order of the text, and no text of a message is a mark."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media_marks import MEDIA_MARKER, mark_media, split_prompt
from mullama.chat.model_settings import ModelSettings, settings_for
from mullama.chat.prompt import Prepared, prepare
from mullama.chat.types import ChatRequest, CompletionRequest, MediaPart, Message, Part, TextPart, Tool, text_message
from mullama.errors import Invalid, Unsupported
from mullama.struct import replace
from tests.chat.media.test_formats import PNG, WAV

ONE, TWO = MediaPart(data=PNG, place="a"), MediaPart(kind="audio", data=WAV, place="b")
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"


def model(template: str = TURNS, **more: object) -> ModelSettings:
    return replace(settings_for("m", template), media=("image", "audio"), **more)


def turn(*parts: Part | str, role: str = "user") -> Message:
    content = tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts)
    return Message(role=role, content=content)  # type: ignore[arg-type]


def made(*messages: Message, settings: ModelSettings | None = None, tools: tuple[Tool, ...] = ()) -> Prepared:
    request = ChatRequest(model="m", messages=messages, tools=tools)
    return prepare(request, settings or model(), 0.0, str)


def test_a_mark_stands_where_the_medium_stands() -> None:
    found = made(turn("Look:", ONE, "and hear", TWO, "well", "done"))
    assert found.prompt == f"[user]Look:{found.marker}and hear{found.marker}well\ndone\n"
    assert found.shown == f"[user]Look:{MEDIA_MARKER}and hear{MEDIA_MARKER}well\ndone\n"
    assert [(m.kind, m.data, m.digest) for m in found.media] == [
        ("image", PNG, hashlib.sha256(PNG).hexdigest()),
        ("audio", WAV, hashlib.sha256(WAV).hexdigest()),
    ]


def test_a_conversation_without_media_has_no_marker() -> None:
    found = made(text_message("user", f"{MEDIA_MARKER}?"))
    assert (found.prompt, found.marker, found.media) == (f"[user]{MEDIA_MARKER}?\n", "", ())


def test_the_media_follow_the_order_of_the_template() -> None:
    backwards = model("{% for m in messages | reverse %}{{ m.content }}{% endfor %}")
    found = made(turn(ONE, "1"), turn("A shape.", role="assistant"), turn(TWO, "2"), settings=backwards)
    assert [medium.data for medium in found.media] == [WAV, PNG]


def test_a_template_may_write_a_medium_twice() -> None:
    found = made(turn(ONE), settings=model("{{ messages[0].content }}{{ messages[0].content }}"))
    assert [medium.data for medium in found.media] == [PNG, PNG]


def test_a_template_that_leaves_a_medium_out_is_refused_by_the_place_of_the_medium() -> None:
    first = model("{{ messages[0].content }}")
    with pytest.raises(Unsupported, match="leaves out b") as caught:
        made(turn(ONE), turn("A shape.", role="assistant"), turn(TWO), settings=first)
    assert caught.value.field == "b"


def test_a_go_template_has_marks_too() -> None:
    settings = replace(settings_for("m", "{{ .System }}<u>{{ .Prompt }}", syntax="go"), media=("image",))
    found = made(turn(ONE, "What?"), settings=settings)
    assert found.shown == f"<u>{MEDIA_MARKER}What?"


def test_media_in_the_result_of_a_tool_stay_in_it() -> None:
    found = made(turn("go"), turn("shot:", ONE, role="tool"))
    assert f"shot:{MEDIA_MARKER}" in found.shown


@given(
    st.lists(
        st.text(st.sampled_from("\ue000\ue001\ue0020<_>ax") | st.characters(), max_size=12), min_size=1, max_size=4
    )
)
def test_no_text_of_a_message_is_a_mark(texts: list[str]) -> None:
    settings = model(system="\ue000 is taken", arguments=(("documents", ["\ue001"]),))
    tools = (Tool(name="t", description="\ue002"),)
    found = made(*(turn(text, ONE) for text in texts), settings=settings, tools=tools)
    assert found.prompt.count(found.marker) == len(texts) == len(found.media)  # type: ignore[union-attr]
    assert not any(found.marker in text for text in (*texts, "\ue000\ue001\ue002"))


def test_generate_puts_its_media_before_its_prompt() -> None:
    request = CompletionRequest(model="m", prompts=("What?",), raw=False, media=(ONE, TWO))
    found = prepare(request, model(), 0.0, str)
    assert found.shown == f"[user]{MEDIA_MARKER}{MEDIA_MARKER}What?\n"
    assert [medium.data for medium in found.media] == [PNG, WAV]


def test_a_raw_prompt_marks_its_media_itself() -> None:
    request = CompletionRequest(model="m", prompts=(f"a{MEDIA_MARKER}b",), media=(ONE,))
    found = prepare(request, model(), 0.0, str)
    assert (found.prompts, found.shown) == ((f"a{found.marker}b",), f"a{MEDIA_MARKER}b")
    with pytest.raises(Invalid, match="the prompt has 1 times"):
        split_prompt(f"a{MEDIA_MARKER}b", (ONE, TWO))
    with pytest.raises(Unsupported, match="one prompt"):
        prepare(replace(request, prompts=("a", "b")), model(), 0.0, str)
    with pytest.raises(Unsupported, match="no suffix"):
        prepare(replace(request, suffix="b"), model(), 0.0, str)


@pytest.mark.parametrize(
    ("media", "part", "ability"), [((), ONE, "vision"), (("audio",), ONE, "vision"), (("image",), TWO, "audio")]
)
def test_a_kind_that_the_model_does_not_read_is_refused(media: tuple[str, ...], part: MediaPart, ability: str) -> None:
    settings = replace(model(), media=media)
    for request in (
        ChatRequest(model="m", messages=(turn(part),)),
        CompletionRequest(model="m", prompts=("x",), raw=False, media=(part,)),
    ):
        with pytest.raises(Unsupported, match=f"does not support {ability}") as caught:
            prepare(request, settings, 0.0, str)
        assert caught.value.field == part.place


def test_messages_without_media_are_the_same_messages() -> None:
    messages = (turn("a"), turn("b"))
    assert mark_media(messages, ())[0] == messages
