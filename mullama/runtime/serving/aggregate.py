"""Converts engine outputs to events and counts over the choices of one request. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from mullama.chat import types as chat
from mullama.chat.reader import Reader
from mullama.engines.base import Begun, Ended, Output, Piece, PieceDetails, Prefilled
from mullama.errors import EngineFailed
from mullama.struct import replace


class Places(Protocol):
    """Numbers the places of the choices that decode together."""

    def begin(self, choice: int, begun: Begun) -> None: ...

    def end(self, choice: int) -> int:
        """Return the number of the place, which is free now; -1 for a choice that never began."""
        ...


class Aggregate:
    """The conversion of one request's outputs to events, with its counts.

    readers: the reader of each choice by the id of its job, in order of the choices. per_prompt: choices of one prompt.
    effective: the settings of the answer. progress: report the cached tokens as the first progress of each prompt.
    """

    def __init__(
        self,
        readers: Mapping[int, Reader],
        per_prompt: int,
        warnings: tuple[str, ...],
        *,
        effective: chat.Effective | None = None,
        progress: bool = False,
        places: Places | None = None,
    ) -> None:
        self._readers, self._per_prompt, self._warnings = readers, per_prompt, warnings
        self._effective, self._progress, self._places = effective, progress, places
        self._choices = {job: choice for choice, job in enumerate(readers)}
        self._begun: dict[int, Begun] = {}
        self._counts = dict.fromkeys(readers, 0)
        self._ended: dict[int, Ended] = {}
        self._called: set[int] = set()
        self._thinking = 0
        self.prompt_seconds = self.decode_seconds = 0.0
        self.context: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """True once every choice has ended."""
        return len(self._ended) == len(self._readers)

    @property
    def ends(self) -> Iterable[Ended]:
        """The ends of the choices so far."""
        return self._ended.values()

    def generated(self, choice: int) -> int:
        """Return the tokens of a choice so far."""
        return list(self._counts.values())[choice]

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
                return self._begin(output)
            case Prefilled():
                return self._prefilled(output)
            case Ended():
                return self._end(output)
            case _:
                raise EngineFailed(f"a completion produced a {type(output).__name__}")

    def _read(self, piece: Piece) -> Sequence[chat.Event]:
        if not piece.echo:
            self._counts[piece.id] += piece.count
        events = self._readers[piece.id].feed(piece.text, piece.logprobs)
        self._notice_calls(piece.id, events)
        if events and isinstance(events[-1], chat.ThinkingDelta):
            self._thinking += piece.count
        return events if piece.details is None else [self._detailed(piece, piece.details), *events]

    def _detailed(self, piece: Piece, details: PieceDetails) -> chat.Generated:
        begun = self._begun[piece.id]
        return chat.Generated(
            text=piece.text,
            tokens=details.tokens,
            usage=chat.Usage(
                prompt_tokens=begun.prompt_tokens,
                cached_tokens=begun.cached_tokens,
                completion_tokens=self._counts[piece.id],
            ),
            timings=chat.Timings(prompt=details.prompt_seconds, decode=details.decode_seconds),
            choice=self._choices[piece.id],
        )

    def _begin(self, begun: Begun) -> Sequence[chat.Event]:
        first = not self._begun
        self._begun[begun.id] = begun
        choice = self._choices[begun.id]
        if self._places is not None:
            self._places.begin(choice, begun)
        events: list[chat.Event] = []
        if first:
            events.append(
                chat.Started(
                    prompt_tokens=begun.prompt_tokens,
                    cached_tokens=begun.cached_tokens,
                    warnings=self._warnings,
                    effective=self._effective,
                )
            )
        if begun.prompt:
            events.append(chat.PromptText(text=begun.prompt, choice=choice))
        if self._progress and choice % self._per_prompt == 0:
            cached = begun.cached_tokens
            events.append(chat.PromptProgress(done=cached, total=begun.prompt_tokens, cached=cached, choice=choice))
        return events

    def _prefilled(self, output: Prefilled) -> Sequence[chat.Event]:
        choice = self._choices[output.id]
        begun = self._begun.get(output.id)
        return [
            chat.PromptProgress(
                done=output.done,
                total=output.total,
                cached=begun.cached_tokens if begun else 0,
                seconds=output.seconds,
                choice=choice,
            )
        ]

    def _end(self, ended: Ended) -> Sequence[chat.Event]:
        self._ended[ended.id] = ended
        self.prompt_seconds = max(self.prompt_seconds, ended.prompt_seconds)
        self.decode_seconds = max(self.decode_seconds, ended.decode_seconds)
        self.context = self.context or ended.tokens
        reason = chat.StopReason(ended.reason)
        events = self._readers[ended.id].finish(cut=reason is not chat.StopReason.STOP)
        self._notice_calls(ended.id, events)
        if ended.id in self._called and reason is chat.StopReason.STOP:
            reason = chat.StopReason.TOOL_CALLS
        choice, outcome = self._choices[ended.id], self._outcome(ended)
        return [*events, chat.Finished(reason=reason, stop_sequence=ended.stop, choice=choice, outcome=outcome)]

    def _outcome(self, ended: Ended) -> chat.ChoiceOutcome:
        begun = self._begun.get(ended.id)
        return chat.ChoiceOutcome(
            usage=_usage((ended,), (ended,)),
            timings=chat.Timings(prompt=ended.prompt_seconds, decode=ended.decode_seconds),
            held_tokens=ended.held_tokens,
            prompt=begun.prompt if begun else "",
            slot=-1 if self._places is None else self._places.end(self._choices[ended.id]),
        )

    def _notice_calls(self, job: int, events: Sequence[chat.Event]) -> None:
        for event in events:
            if isinstance(event, chat.ToolCallFinished):
                self._called.add(job)

    def spent(self) -> chat.Usage:
        """Return the usage so far, with that of choices that have not ended."""
        done = self.usage()
        unfinished = [begun for id, begun in self._begun.items() if id not in self._ended]
        firsts = [begun for begun in unfinished if self._choices[begun.id] % self._per_prompt == 0]
        return replace(
            done,
            prompt_tokens=done.prompt_tokens + sum(begun.prompt_tokens for begun in firsts),
            cached_tokens=done.cached_tokens + sum(begun.cached_tokens for begun in firsts),
            completion_tokens=done.completion_tokens + sum(self._counts[begun.id] for begun in unfinished),
        )

    def usage(self) -> chat.Usage:
        """Return the usage. Each prompt counts once: its first choice computed it for the others."""
        ends = self._ended.values()
        firsts = [ended for ended in ends if self._choices[ended.id] % self._per_prompt == 0]
        return _usage(firsts, ends, self._thinking)


def _usage(firsts: Iterable[Ended], ends: Iterable[Ended], thinking: int = 0) -> chat.Usage:
    """Return the sums over answers; `firsts` are those whose prompt counts."""
    return chat.Usage(
        prompt_tokens=sum(e.prompt_tokens for e in firsts),
        cached_tokens=sum(e.cached_tokens for e in firsts),
        completion_tokens=sum(e.completion_tokens for e in ends),
        reasoning_tokens=thinking,
        draft_tokens=sum(e.draft_tokens for e in ends),
        draft_accepted=sum(e.draft_accepted for e in ends),
    )
