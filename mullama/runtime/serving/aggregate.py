"""Converts engine outputs to events and counts over the choices of one request. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mullama.chat import types as chat
from mullama.chat.reader import Reader
from mullama.engines.base import Begun, Ended, Output, Piece, Prefilled
from mullama.errors import EngineFailed


class Aggregate:
    """The conversion of one request's outputs to events, with its counts.

    readers: the reader of each choice by the id of its job, in order of the choices. per_prompt: choices of one prompt.
    """

    def __init__(self, readers: Mapping[int, Reader], per_prompt: int, warnings: tuple[str, ...]) -> None:
        self._readers, self._per_prompt, self._warnings = readers, per_prompt, warnings
        self._choices = {job: choice for choice, job in enumerate(readers)}
        self._ended: dict[int, Ended] = {}
        self._called: set[int] = set()
        self._begun = False
        self._thinking = 0
        self.prompt_seconds = self.decode_seconds = 0.0
        self.context: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """True once every choice has ended."""
        return len(self._ended) == len(self._readers)

    def take(self, outputs: Iterable[Output]) -> list[chat.Event]:
        """Return the events that follow from these outputs."""
        events: list[chat.Event] = []
        for output in outputs:
            events += self._events(output)
        return events

    def _events(self, output: Output) -> Sequence[chat.Event]:
        match output:
            case Piece():
                return self._read(output)
            case Begun():
                first, self._begun = not self._begun, True
                return [self._started(output)] if first else []
            case Prefilled(done=done, total=total):
                return [chat.PromptProgress(done=done, total=total)]
            case Ended():
                return self._end(output)
            case _:
                raise EngineFailed(f"a completion produced a {type(output).__name__}")

    def _read(self, piece: Piece) -> Sequence[chat.Event]:
        events = self._readers[piece.id].feed(piece.text, piece.logprobs)
        self._notice_calls(piece.id, events)
        if events and isinstance(events[-1], chat.ThinkingDelta):
            self._thinking += piece.count
        return events

    def _started(self, begun: Begun) -> chat.Started:
        return chat.Started(
            prompt_tokens=begun.prompt_tokens, cached_tokens=begun.cached_tokens, warnings=self._warnings
        )

    def _end(self, ended: Ended) -> Sequence[chat.Event]:
        self._ended[ended.id] = ended
        self.prompt_seconds = max(self.prompt_seconds, ended.prompt_seconds)
        self.decode_seconds = max(self.decode_seconds, ended.decode_seconds)
        self.context = self.context or ended.tokens
        events = self._readers[ended.id].finish()
        self._notice_calls(ended.id, events)
        reason = chat.StopReason(ended.reason)
        if ended.id in self._called and reason is chat.StopReason.STOP:
            reason = chat.StopReason.TOOL_CALLS
        return [*events, chat.Finished(reason=reason, stop_sequence=ended.stop, choice=self._choices[ended.id])]

    def _notice_calls(self, job: int, events: Sequence[chat.Event]) -> None:
        for event in events:
            if isinstance(event, chat.ToolCallFinished):
                self._called.add(job)

    def usage(self) -> chat.Usage:
        """Return the usage. Each prompt counts once: its first choice computed it for the others."""
        ends = self._ended.values()
        firsts = [ended for ended in ends if self._choices[ended.id] % self._per_prompt == 0]
        return chat.Usage(
            prompt_tokens=sum(e.prompt_tokens for e in firsts),
            cached_tokens=sum(e.cached_tokens for e in firsts),
            completion_tokens=sum(e.completion_tokens for e in ends),
            reasoning_tokens=self._thinking,
        )
