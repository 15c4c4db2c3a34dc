"""The state of a conversation on the terminal: model, system prompt, settings and messages."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mullama.cli.app.context import UsageError
from mullama.cli.inference.session_log import ChatLog, ChatTurn, messages
from mullama.struct import Struct, field

# Parameters of `/set parameter` and of the options of `run`, with their types.
PARAMETERS: Mapping[str, type] = {
    "seed": int, "num_predict": int, "top_k": int, "top_p": float, "min_p": float, "typical_p": float, "num_ctx": int,
    "temperature": float, "repeat_penalty": float, "repeat_last_n": int, "presence_penalty": float,
    "frequency_penalty": float, "num_gpu": int, "stop": str,
}  # fmt: skip
LEVELS = ("true", "false", "low", "medium", "high")
_MEDIA = re.compile(
    r"(?:\.{0,2}/|~/|\b)[^\s'\"]+\.(?:png|jpe?g|gif|bmp|webp|wav|mp3|flac|og[ga]|opus)\b", re.IGNORECASE
)


class Conversation(Struct, kw_only=True):
    """Collects messages and settings; `body` returns the request for the next question."""

    model: str
    system: str | None = None
    """System prompt, None for the model's own."""
    parameters: dict[str, Any] = field(default_factory=dict)
    turns: tuple[ChatTurn, ...] = ()
    """Earlier questions and answers."""
    continues: str | None = None
    """Name of the conversation on disk that it continues."""
    format: Any = None
    """`json`, a JSON Schema, or None for text."""
    think: bool | str | None = None
    """Thinking on or off, or its level; None for the model's default."""
    keep_alive: float | None = None
    """Seconds the model stays loaded after the answer; None for the model's default."""
    search: bool = False
    """Let the model search the web."""
    remember: bool = True
    """Send earlier messages along with the next question."""
    verbose: bool = False
    """Print token counts and speed after each answer."""
    show_thinking: bool = True
    reads_media: bool = True
    """The model reads images or sounds; for another one, paths in a question are text."""

    def use(self, model: Mapping[str, Any]) -> None:
        """Ask this model from now on. model: its card."""
        self.model = model["name"]
        self.reads_media = bool({"vision", "audio"} & set(model.get("capabilities") or ()))

    def body(self, prompt: str, images: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the request for the next question; images are base64."""
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        earlier = messages(self.turns) if self.remember else []
        question: dict[str, Any] = {"role": "user", "content": prompt}
        if images:
            question["images"] = list(images)
        body: dict[str, Any] = {"model": self.model, "messages": [*system, *earlier, question], "stream": True}
        body["options"] = dict(self.parameters)
        if self.format is not None:
            body["format"] = self.format
        if self.think is not None:
            body["think"] = self.think
        if self.keep_alive is not None:
            body["keep_alive"] = self.keep_alive
        if self.search:
            body["web_search"] = True
        return body

    def add(self, turn: ChatTurn) -> None:
        """Append a question with its answer, which may be incomplete."""
        self.turns = (*self.turns, turn)

    def log(self, id: str, now: float) -> ChatLog:
        """Return the conversation as it is kept on disk. now: Unix seconds."""
        return ChatLog(
            id=id, model=self.model, changed=now, system=self.system, parameters=dict(self.parameters), turns=self.turns
        )

    def restore(self, log: ChatLog) -> None:
        """Continue a conversation of the disk with its system prompt and parameters. Its model stays to be used."""
        self.system, self.parameters, self.turns = log.system, dict(log.parameters), log.turns
        self.continues = log.id

    def set_parameter(self, name: str, *texts: str) -> None:
        """Set a parameter from text; raise `UsageError` for an unknown name or a value of the wrong type."""
        kind = PARAMETERS.get(name)
        if kind is None:
            raise UsageError(f"unknown parameter {name!r}", hint=f"use one of {', '.join(PARAMETERS)}")
        if not texts:
            raise UsageError(f"{name} needs a value")
        if name == "stop":
            self.parameters[name] = list(texts)
            return
        try:
            self.parameters[name] = kind(texts[0])
        except ValueError as error:
            raise UsageError(
                f"{name} must be {'an integer' if kind is int else 'a number'}, not {texts[0]!r}"
            ) from error

    def declaration(self) -> dict[str, Any]:
        """Return the conversation as a model of the manifest, for `/save`."""
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
        if earlier := messages(self.turns):
            tree["messages"] = [{"role": m["role"], "content": m["content"]} for m in earlier]
        return tree


def think_level(text: str) -> bool | str:
    """Parse `true`, `false` or a level."""
    if text not in LEVELS:
        raise UsageError(f"unknown thinking level {text!r}", hint=f"use one of {', '.join(LEVELS)}")
    return text == "true" if text in ("true", "false") else text


def response_format(text: str) -> Any:
    """Parse `json` or the text of a JSON Schema."""
    if text == "json":
        return text
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"the format {text[:40]!r} is neither json, nor a file, nor a JSON Schema: {error}",
            hint="the format is that of the answer; the format of weights is read from their file",
        ) from error
    if not isinstance(tree, dict):
        raise UsageError("a JSON Schema must be an object")
    return tree


def media_paths(prompt: str) -> tuple[str, ...]:
    """Return the parts of a prompt that look like paths of images and sounds."""
    return tuple(dict.fromkeys(_MEDIA.findall(prompt)))
