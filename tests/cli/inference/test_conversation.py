"""Request bodies and settings of a conversation."""

from __future__ import annotations

import pytest

from mullama.cli.app.context import UsageError
from mullama.cli.inference.conversation import Conversation, media_paths, response_format, think_level
from mullama.cli.inference.session_log import ChatTurn


def test_a_request_has_the_earlier_messages_and_the_settings() -> None:
    conversation = Conversation(model="m", system="Be kind.", think="low", keep_alive=5.0, format="json", search=True)
    conversation.add(ChatTurn(question="a", answer="b"))
    conversation.set_parameter("temperature", "0.5")
    conversation.set_parameter("stop", "x", "y")
    assert conversation.body("c", ("pic",)) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c", "images": ["pic"]},
        ],
        "stream": True,
        "options": {"temperature": 0.5, "stop": ["x", "y"]},
        "format": "json",
        "think": "low",
        "keep_alive": 5.0,
        "web_search": True,
    }


def test_without_history_each_question_stands_alone() -> None:
    conversation = Conversation(model="m", remember=False)
    conversation.add(ChatTurn(question="a", answer="b"))
    assert conversation.body("c")["messages"] == [{"role": "user", "content": "c"}]


@pytest.mark.parametrize(("name", "texts"), [("luck", ("1",)), ("seed", ("x",)), ("seed", ("1.5",)), ("top_p", ())])
def test_an_unknown_parameter_or_a_wrong_value_is_refused(name: str, texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Conversation(model="m").set_parameter(name, *texts)


def test_a_saved_model_has_each_setting_in_its_block() -> None:
    conversation = Conversation(model="m", system="S", parameters={"num_ctx": 512, "num_gpu": 3, "seed": 1})
    conversation.add(ChatTurn(question="a", answer="b"))
    assert conversation.declaration() == {
        "from": "m",
        "system": "S",
        "parameters": {"seed": 1},
        "context": {"size": 512},
        "gpu": {"layers": 3},
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    }


def test_levels_and_formats() -> None:
    assert [think_level(t) for t in ("true", "false", "high")] == [True, False, "high"]
    assert response_format("json") == "json"
    assert response_format('{"type": "object"}') == {"type": "object"}
    for wrong in ("luck", "[1]", "{", "[" * 100_000):
        with pytest.raises(UsageError):
            response_format(wrong)
    with pytest.raises(UsageError):
        think_level("much")


@pytest.mark.parametrize(
    ("prompt", "paths"),
    [
        ("what is in ./a.png and /tmp/b.JPG?", ("./a.png", "/tmp/b.JPG")),
        ("see pic.webp, pic.webp, voice.oga and note.opus", ("pic.webp", "voice.oga", "note.opus")),
        ("no picture here. png", ()),
    ],
)
def test_images_are_found_in_a_prompt(prompt: str, paths: tuple[str, ...]) -> None:
    assert media_paths(prompt) == paths
