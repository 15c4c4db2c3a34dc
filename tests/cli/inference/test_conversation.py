"""What a conversation sends, and what it can be told."""

from __future__ import annotations

import pytest

from mullama.cli.app.context import UsageError
from mullama.cli.inference.conversation import Conversation, image_paths, response_format, think_level


def test_a_question_goes_with_what_was_said_and_the_settings() -> None:
    talk = Conversation(model="m", system="Be kind.", think="low", keep_alive=5.0, format="json")
    talk.add("a", "b")
    talk.set_parameter("temperature", "0.5")
    talk.set_parameter("stop", "x", "y")
    assert talk.body("c", ("pic",)) == {
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
    }


def test_without_history_each_question_stands_alone() -> None:
    talk = Conversation(model="m", remember=False)
    talk.add("a", "b")
    assert talk.body("c")["messages"] == [{"role": "user", "content": "c"}]


@pytest.mark.parametrize(("name", "texts"), [("luck", ("1",)), ("seed", ("x",)), ("seed", ("1.5",)), ("top_p", ())])
def test_a_parameter_that_is_none_is_refused(name: str, texts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Conversation(model="m").set_parameter(name, *texts)


def test_what_is_saved_puts_each_setting_in_its_block() -> None:
    talk = Conversation(model="m", system="S", parameters={"num_ctx": 512, "num_gpu": 3, "seed": 1})
    talk.add("a", "b")
    assert talk.declaration() == {
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
    for wrong in ("luck", "[1]", "{"):
        with pytest.raises(UsageError):
            response_format(wrong)
    with pytest.raises(UsageError):
        think_level("much")


@pytest.mark.parametrize(
    ("prompt", "paths"),
    [
        ("what is in ./a.png and /tmp/b.JPG?", ("./a.png", "/tmp/b.JPG")),
        ("see pic.webp, pic.webp", ("pic.webp",)),
        ("no picture here. png", ()),
    ],
)
def test_pictures_are_found_in_a_prompt(prompt: str, paths: tuple[str, ...]) -> None:
    assert image_paths(prompt) == paths
