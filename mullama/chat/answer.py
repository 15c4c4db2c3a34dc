"""Aggregates the events of a request into one answer, for clients that do not stream."""

from __future__ import annotations

from collections.abc import Iterable

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
    TextRun,
    ThinkingDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallFinished,
    Usage,
)
from mullama.struct import Struct, field


class _Run(Struct):
    """Text or reasoning that nothing else has interrupted."""

    thinking: bool
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


class _Parts(Struct):
    """The parts of one choice as its events arrive."""

    parts: list[_Run | ToolCall] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finished: Finished | None = None

    def choice(self, index: int) -> Choice:
        end = self.finished
        return Choice(
            index=index,
            parts=tuple(
                TextRun(text="".join(part.text), thinking=part.thinking, logprobs=tuple(part.logprobs))
                if isinstance(part, _Run)
                else part
                for part in self.parts
            ),
            reason=end.reason if end else StopReason.CANCELLED,
            stop_sequence=end.stop_sequence if end else None,
            outcome=end.outcome if end else None,
            raw="".join(self.raw),
            tokens=tuple(self.tokens),
        )

    def run(self, *, thinking: bool) -> _Run:
        """Return the run that further text belongs to."""
        last = self.parts[-1] if self.parts else None
        if not isinstance(last, _Run) or last.thinking != thinking:
            last = _Run(thinking)
            self.parts.append(last)
        return last


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
                run = self._of(event.choice).run(thinking=False)
                run.text.append(event.text)
                run.logprobs.extend(event.logprobs)
            case Generated():
                parts = self._of(event.choice)
                parts.raw.append(event.text)
                parts.tokens.extend(event.tokens)
            case ThinkingDelta():
                run = self._of(event.choice).run(thinking=True)
                run.text.append(event.text)
                run.logprobs.extend(event.logprobs)
            case ToolCallFinished():
                self._of(event.choice).parts.append(event.call)
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
