"""A conversation as a person builds it up: model, system prompt, settings and what was said; gives request bodies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mullama.cli.app.context import UsageError

# What `/set parameter` and the options of run know: the type of each.
PARAMETERS: Mapping[str, type] = {
    "seed": int, "num_predict": int, "top_k": int, "top_p": float, "min_p": float, "typical_p": float, "num_ctx": int,
    "temperature": float, "repeat_penalty": float, "repeat_last_n": int, "presence_penalty": float,
    "frequency_penalty": float, "num_gpu": int, "stop": str,
}  # fmt: skip
LEVELS = ("true", "false", "low", "medium", "high")
_IMAGE = re.compile(r"(?:\.{0,2}/|~/|\b)[^\s'\"]+\.(?:png|jpe?g|gif|bmp|webp)\b", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Conversation:
    """messages: as the server takes them. remember: whether what was said is sent along with the next question."""

    model: str
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    format: Any = None
    think: bool | str | None = None
    keep_alive: float | None = None
    remember: bool = True
    verbose: bool = False
    show_thinking: bool = True

    def body(self, prompt: str, images: tuple[str, ...] = ()) -> dict[str, Any]:
        """The request for one more question; images are base64."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        said = self.messages if self.remember else []
        question: dict[str, Any] = {"role": "user", "content": prompt}
        if images:
            question["images"] = list(images)
        body: dict[str, Any] = {"model": self.model, "messages": [*system, *said, question], "stream": True}
        body["options"] = dict(self.parameters)
        if self.format is not None:
            body["format"] = self.format
        if self.think is not None:
            body["think"] = self.think
        if self.keep_alive is not None:
            body["keep_alive"] = self.keep_alive
        return body

    def add(self, prompt: str, answer: str) -> None:
        """Remember a question with its answer, cut off or whole."""
        self.messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]

    def set_parameter(self, name: str, *texts: str) -> None:
        """`UsageError` for a name that is none, or a value of another kind."""
        kind = PARAMETERS.get(name)
        if kind is None:
            raise UsageError(f"unknown parameter {name!r}", hint=f"one of {', '.join(PARAMETERS)}")
        if not texts:
            raise UsageError(f"{name} needs a value")
        if name == "stop":
            self.parameters[name] = list(texts)
            return
        try:
            self.parameters[name] = kind(texts[0])
        except ValueError as error:
            raise UsageError(
                f"{name} is {'a whole number' if kind is int else 'a number'}, not {texts[0]!r}"
            ) from error

    def declaration(self) -> dict[str, Any]:
        """The conversation as a model in the manifest's words, for `/save`."""
        plain = {n: v for n, v in self.parameters.items() if n not in ("num_ctx", "num_gpu")}
        tree: dict[str, Any] = {"from": self.model}
        if self.system is not None:
            tree["system"] = self.system
        if plain:
            tree["parameters"] = plain
        if "num_ctx" in self.parameters:
            tree["context"] = {"size": self.parameters["num_ctx"]}
        if "num_gpu" in self.parameters:
            tree["gpu"] = {"layers": self.parameters["num_gpu"]}
        if self.messages:
            tree["messages"] = [{"role": m["role"], "content": m["content"]} for m in self.messages]
        return tree


def think_level(text: str) -> bool | str:
    """`true`, `false` or a level."""
    if text not in LEVELS:
        raise UsageError(f"--think does not know {text!r}", hint=f"one of {', '.join(LEVELS)}")
    return text == "true" if text in ("true", "false") else text


def response_format(text: str) -> Any:
    """`json`, or a JSON Schema as its text."""
    if text == "json":
        return text
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the format is neither json nor a JSON Schema: {error}") from error
    if not isinstance(tree, dict):
        raise UsageError("a JSON Schema is an object")
    return tree


def image_paths(prompt: str) -> tuple[str, ...]:
    """What looks like the path of a picture in a prompt."""
    return tuple(dict.fromkeys(_IMAGE.findall(prompt)))
