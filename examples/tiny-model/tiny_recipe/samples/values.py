"""The values that samples are made of: one exchange, one training sample, one probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One user turn and what follows it up to the next user turn; `thought` belongs to the first answer."""

    messages: list[Message]
    thought: str

    @property
    def question(self) -> str:
        return str(self.messages[0]["content"])

    @property
    def answer(self) -> Message:
        return self.messages[1]

    @property
    def reply(self) -> str:
        return str(self.answer["content"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A conversation to learn from, or with `text` a plain document.

    With `thought`, the last message is thought about first. `length` is the row, in tokens, that the
    conversation was written to fill.
    """

    messages: list[Message] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    thought: str | None = None
    text: str | None = None
    length: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A held-out question: the conversation up to the answer (or a bare prompt), and the answer wanted."""

    ability: str
    messages: list[Message]
    want: Message
    tools: list[Tool] = field(default_factory=list)
    thinking: bool = False
    prompt: str | None = None

    @property
    def question(self) -> str:
        """What the user asked, or the bare prompt."""
        if self.prompt is not None:
            return self.prompt
        return str(next(m["content"] for m in reversed(self.messages) if m["role"] == "user"))


def talk(question: str, answer: str, thought: str = "") -> Exchange:
    """One question and its answer in words."""
    return Exchange(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        thought or f"The user says: {question} I answer directly.",
    )
