"""What the outputs of an engine come to: events in their order, and counts over the choices of one request; pure."""

from __future__ import annotations

from mullama.chat import types as chat
from mullama.chat.reader import Reader
from mullama.engines.base import Begun, Ended, Output, Piece, Prefilled
from mullama.errors import EngineFailed


class Tally:
    """Counts over the choices of one request, and the conversion of engine outputs to events."""

    def __init__(self, choices: int, per_prompt: int, warnings: tuple[str, ...]) -> None:
        self._per_prompt, self._warnings = per_prompt, warnings
        self._ended: dict[int, Ended] = {}
        self._begun: dict[int, Begun] = {}
        self._thinking = [0] * choices
        self._called = [False] * choices
        self.prompt_seconds = self.decode_seconds = 0.0
        self.context: tuple[int, ...] = ()

    def take(self, choice: int, output: Output, reader: Reader) -> list[chat.Event]:
        match output:
            case Begun():
                first = not self._begun
                self._begun[choice] = output
                return [self._started(output)] if first else []
            case Prefilled(done=done, total=total):
                return [chat.Progress(done=done, total=total)]
            case Piece():
                events = list(reader.feed(output.text, output.logprobs))
                for event in events:
                    if isinstance(event, chat.ToolCallFinished):
                        self._called[choice] = True
                if events and isinstance(events[-1], chat.ThinkingDelta):
                    self._thinking[choice] += output.count
                return events
            case Ended():
                return self._end(choice, output, reader)
            case _:
                raise EngineFailed(f"a generation produced a {type(output).__name__}")

    def _started(self, begun: Begun) -> chat.Started:
        return chat.Started(
            prompt_tokens=begun.prompt_tokens, cached_tokens=begun.cached_tokens, warnings=self._warnings
        )

    def _end(self, choice: int, ended: Ended, reader: Reader) -> list[chat.Event]:
        self._ended[choice] = ended
        self.prompt_seconds = max(self.prompt_seconds, ended.prompt_seconds)
        self.decode_seconds = max(self.decode_seconds, ended.decode_seconds)
        self.context = self.context or ended.tokens
        events = list(reader.finish())
        called = self._called[choice] or any(isinstance(e, chat.ToolCallFinished) for e in events)
        reason = chat.StopReason(ended.reason)
        if called and reason is chat.StopReason.STOP:
            reason = chat.StopReason.TOOL_CALLS
        return [*events, chat.Finished(reason=reason, stop_sequence=ended.stop, choice=choice)]

    def usage(self) -> chat.Usage:
        """Each prompt counts once, however many choices were made of it: the first of them computed it."""
        ends = self._ended.values()
        firsts = [e for choice, e in self._ended.items() if choice % self._per_prompt == 0]
        return chat.Usage(
            prompt_tokens=sum(e.prompt_tokens for e in firsts),
            cached_tokens=sum(e.cached_tokens for e in firsts),
            completion_tokens=sum(e.completion_tokens for e in ends),
            reasoning_tokens=sum(self._thinking),
        )
