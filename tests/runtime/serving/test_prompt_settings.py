"""Settings for prompts from a manifest."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.errors import Invalid
from mullama.manifest.spec import Model
from mullama.plan.observed import KnownFiles
from mullama.runtime.serving.prompt_settings import model_settings, thinking_levels

SWITCH = "{{ messages[0].content }}{% if enable_thinking is false %}<think></think>{% endif %}<think></think>"
PLAIN = "{{ messages[0].content }}"


def settings(template: str, **fields: Any) -> Any:
    model = Model.model_validate({"from": "builtin:tiny", "template": {"text": template}, **fields})
    return model_settings("m", model, KnownFiles(source="builtin:tiny"))


@pytest.mark.parametrize(
    ("template", "default", "think"),
    [
        (SWITCH, "auto", None),
        (SWITCH, "none", False),
        (SWITCH, "high", True),
        (PLAIN, "auto", None),
        (PLAIN, "none", None),
    ],
)
def test_the_default_reasoning_is_what_the_template_knows(
    template: str, default: str, think: bool | str | None
) -> None:
    assert settings(template, thinking={"default": default}).think == think


def test_an_effort_needs_a_template_with_reasoning() -> None:
    with pytest.raises(Invalid, match=r"m: thinking\.default is low, and the chat template has no reasoning"):
        settings(PLAIN, thinking={"default": "low"})


def test_the_default_is_the_first_level() -> None:
    assert thinking_levels(settings(SWITCH)) == (True, False)
    assert thinking_levels(settings(SWITCH, thinking={"default": "none"})) == (False, True)


def test_arguments_and_calls_come_from_the_manifest() -> None:
    template = PLAIN + "{{ tone }}{{ depth }}"
    made = settings(template, template_arguments={"tone": "dry", "depth": {"a": [1, None]}}, tools={"parallel": False})
    assert made.arguments == (("tone", "dry"), ("depth", {"a": [1, None]}))
    assert made.parallel_calls is False


def test_an_argument_that_the_template_does_not_read_is_refused() -> None:
    with pytest.raises(Invalid, match=r"m: template_arguments\.tone is not an argument of its chat template"):
        settings(PLAIN, template_arguments={"tone": "dry"})
    for reserved in ("messages", "bos_token", "raise_exception", "range"):
        with pytest.raises(Invalid, match="is not an argument"):
            settings(PLAIN + "{{ bos_token }}{{ range(1) }}", template_arguments={reserved: 1})
