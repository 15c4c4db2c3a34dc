"""Samples and probes as the text that the model sees, by the chat template that ships in the model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tiny_recipe.samples.values import Probe, Sample

CHAT_TEMPLATE = (Path(__file__).parent.parent / "chat_template.jinja").read_text(encoding="utf-8")
THOUGHT_END = "</think>\n\n"


@cache
def template() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE)


def rendered(sample: Sample) -> str:
    """The whole sample; the thought, where there is one, comes before the last answer."""
    if sample.text is not None:
        return sample.text + "<|endoftext|>"
    whole = template().render(messages=sample.messages, tools=sample.tools)
    if sample.thought is None:
        return whole
    answer = whole[whole.rindex(THOUGHT_END) + len(THOUGHT_END) :]
    prompt = template().render(
        messages=sample.messages[:-1], tools=sample.tools, add_generation_prompt=True, enable_thinking=True
    )
    return f"{prompt}<think>\n{sample.thought}\n{THOUGHT_END}{answer}"


def prompt_of(probe: Probe) -> str:
    if probe.prompt is not None:
        return probe.prompt
    return template().render(
        messages=probe.messages, tools=probe.tools, add_generation_prompt=True, enable_thinking=probe.thinking
    )
