"""Aggregates the events of a request into one answer, for clients that do not stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mullama.chat.types import (
    Answer,
    AnswerPart,
    ApprovalNeeded,
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
    ToolCallStarted,
    ToolEnded,
    ToolRun,
    ToolsListed,
    ToolStarted,
    Usage,
)
from mullama.struct import Struct, field, replace


class _Run(Struct):
    """Text or reasoning that nothing else has interrupted."""

    thinking: bool
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


class _Parts(Struct):
    """The parts of one choice as its events arrive."""

    parts: list[_Run | AnswerPart] = field(default_factory=list)
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

    def end_call(self, ended: ToolEnded) -> None:
        """Add the result of a call to the call."""
        for place, part in enumerate(self.parts):
            if isinstance(part, ToolRun) and part.ended is None and part.started.id == ended.id:
                self.parts[place] = replace(part, ended=ended)


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
            case ToolStarted():
                self._of(0).parts.append(ToolRun(started=event))
            case ToolEnded():
                self._of(0).end_call(event)
            case ToolsListed() | ApprovalNeeded():
                self._of(0).parts.append(event)
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


def unfold(answer: Answer) -> Iterator[Event]:
    """Yield the events of an answer with one choice, so that an encoder of streams can write it."""
    choice = answer.choices[0]
    yield Started(prompt_tokens=answer.usage.prompt_tokens, warnings=answer.warnings, effective=answer.effective)
    index = 0
    for part in choice.parts:
        match part:
            case ToolCall():
                yield ToolCallStarted(index=index, id=part.id, name=part.name)
                yield ToolCallFinished(index=index, call=part)
                index += 1
            case TextRun(thinking=True):
                yield ThinkingDelta(text=part.text, logprobs=part.logprobs)
            case TextRun():
                yield TextDelta(text=part.text, logprobs=part.logprobs)
            case ToolRun():
                yield part.started
                if part.ended is not None:
                    yield part.ended
            case ToolsListed() | ApprovalNeeded():
                yield part
    if choice.raw or choice.tokens:
        yield Generated(text=choice.raw, tokens=choice.tokens, usage=answer.usage, timings=answer.timings)
    yield Finished(reason=choice.reason, stop_sequence=choice.stop_sequence, outcome=choice.outcome)
    yield Completed(usage=answer.usage, timings=answer.timings, context=answer.context)
