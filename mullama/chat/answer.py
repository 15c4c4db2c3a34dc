"""Aggregates the events of a request into one answer, for clients that do not stream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mullama.chat.types import (
    Answer,
    Choice,
    Completed,
    Effective,
    Event,
    Finished,
    Generated,
    Started,
    StopReason,
    TextDelta,
    ThinkingDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallFinished,
    Usage,
)


@dataclass(slots=True)
class _Parts:
    """The parts of one choice as its events arrive."""

    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finished: Finished | None = None

    def choice(self, index: int) -> Choice:
        end = self.finished
        return Choice(
            index=index,
            text="".join(self.text),
            thinking="".join(self.thinking),
            tool_calls=tuple(self.calls),
            reason=end.reason if end else StopReason.CANCELLED,
            stop_sequence=end.stop_sequence if end else None,
            logprobs=tuple(self.logprobs),
            outcome=end.outcome if end else None,
            raw="".join(self.raw),
            tokens=tuple(self.tokens),
        )


class Fold:
    """Aggregates events; `answer` may be called at any time. A call without its end event is omitted."""

    def __init__(self) -> None:
        self._parts: dict[int, _Parts] = {}
        self._warnings: tuple[str, ...] = ()
        self._effective: Effective | None = None
        self._completed = Completed(usage=Usage(), timings=Timings())

    def feed(self, event: Event) -> None:
        """Add one event."""
        match event:
            case Started():
                self._warnings, self._effective = event.warnings, event.effective
            case TextDelta():
                parts = self._of(event.choice)
                parts.text.append(event.text)
                parts.logprobs.extend(event.logprobs)
            case Generated():
                parts = self._of(event.choice)
                parts.raw.append(event.text)
                parts.tokens.extend(event.tokens)
            case ThinkingDelta():
                self._of(event.choice).thinking.append(event.text)
            case ToolCallFinished():
                self._of(event.choice).calls.append(event.call)
            case Finished():
                self._of(event.choice).finished = event
            case Completed():
                self._completed = event
            case _:
                pass

    @property
    def answer(self) -> Answer:
        """Return all choices so far, in order."""
        return Answer(
            choices=tuple(self._parts[index].choice(index) for index in sorted(self._parts)),
            usage=self._completed.usage,
            timings=self._completed.timings,
            context=self._completed.context,
            warnings=self._warnings,
            effective=self._effective,
        )

    def _of(self, choice: int) -> _Parts:
        return self._parts.setdefault(choice, _Parts())


def fold(events: Iterable[Event]) -> Answer:
    """Return the answer that these events form."""
    folding = Fold()
    for event in events:
        folding.feed(event)
    return folding.answer
