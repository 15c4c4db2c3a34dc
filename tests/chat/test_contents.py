"""Contents of a conversation before a template reads them: control tokens broken, reasoning in its own field."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.model_settings import settings_for
from mullama.chat.template import ChatInput, Thinking, protected
from mullama.chat.token_texts import JOINTS, TokenTexts
from mullama.chat.types import Message, TextPart, text_message

MARKS = Thinking(open="<think>\n", close="</think>")
TEXTS = TokenTexts(["<|im_end|>", "<think>", "</think>"])
J = chr(JOINTS[0])
SPLITS = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{% if '</think>' in m.content %}{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)


def answer(text: str, thinking: str | None = None) -> Message:
    return Message(role="assistant", content=(TextPart(text=text),) if text else (), thinking=thinking)


@pytest.mark.parametrize(
    ("message", "thinking", "text"),
    [
        (answer("write </think> to end it"), None, f"write <{J}/think> to end it"),
        (answer("<think>\na\n</think>\n\nb"), "a", "b"),
        (answer("<think>a</think>b </think> c"), "a", f"b <{J}/think> c"),
        (answer("<think></think>b"), None, "b"),
        (answer("<think>a</think>"), "a", ""),
        (answer("say <think> and </think>"), None, f"say <{J}think> and <{J}/think>"),
        (answer("<think>never closed"), None, f"<{J}think>never closed"),
        (answer("<think>a</think>b", "own"), "own", f"<{J}think>a<{J}/think>b"),
        (answer("<think>a <|im_end|></think>b"), f"a <{J}|im_end|>", "b"),
        (text_message("user", "<think>a</think>b"), None, f"<{J}think>a<{J}/think>b"),
    ],
)
def test_only_reasoning_before_the_text_is_reasoning(message: Message, thinking: str | None, text: str) -> None:
    chat, joint = protected(ChatInput(messages=(message,)), TEXTS, MARKS, "")
    assert (chat.messages[0].thinking, chat.messages[0].text) == (thinking, text)
    assert joint == (J if J in f"{thinking}{text}" else "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<think>\na", "<think>\na"),
        ("<think>\na</think>b", "<think>\na</think>b"),
        ("<think>a <|im_end|></think>b <think>", f"<think>a <{J}|im_end|></think>b <{J}think>"),
        ("a </think>", f"a <{J}/think>"),
    ],
)
def test_an_answer_to_continue_keeps_the_marks_of_its_reasoning(text: str, wanted: str) -> None:
    chat, _ = protected(ChatInput(messages=(answer(text),), continue_final=True), TEXTS, MARKS, "")
    assert chat.messages[0].text == wanted


def test_without_marks_an_answer_stays_as_it_is() -> None:
    chat = ChatInput(messages=(answer("<think>a</think>b"),))
    assert protected(chat, TokenTexts(["<|im_end|>"]), None, "") == (chat, "")


def test_the_joint_is_in_no_content_and_not_in_the_template() -> None:
    messages = (text_message("user", f"<|im_end|>{J}"),)
    _, joint = protected(ChatInput(messages=messages), TEXTS, None, f"source {chr(JOINTS[1])}")
    assert joint == chr(JOINTS[2])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("write </think> to end it", "[assistant]write </think> to end it"),
        ("<think>a</think>b", "[assistant]<think>a</think>b"),
        ("b", "[assistant]b"),
    ],
)
def test_a_replayed_answer_loses_nothing(text: str, shown: str) -> None:
    rendered = settings_for("m", SPLITS).render(ChatInput(messages=(answer(text),)))
    assert rendered.text.replace(rendered.joint, "") == shown


@pytest.mark.parametrize("syntax", ["jinja", "go"])
def test_both_kinds_of_templates_are_protected(syntax: str) -> None:
    sources: dict[str, Any] = {
        "jinja": "{% for m in messages %}{{ m.content }}{% endfor %}",
        "go": "{{ range .Messages }}{{ .Content }}{{ end }}",
    }
    settings = settings_for("m", sources[syntax], syntax=syntax, control=("<|im_end|>",))
    rendered = settings.render(ChatInput(messages=(text_message("user", "a<|im_end|>"),)))
    assert (rendered.text, rendered.joint) == (f"a<{J}|im_end|>", J)
