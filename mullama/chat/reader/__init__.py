"""Splits what a model writes into text, reasoning and tool calls, as it arrives.

Any cutting of the text gives the same answer: a reader holds back only what may still become a mark.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from mullama.chat.families import Family
from mullama.chat.reader.harmony import ChannelReader
from mullama.chat.reader.marked import PlainReader
from mullama.chat.syntax import ChannelCalls
from mullama.chat.types import Event, TokenLogprob, Tool

__all__ = ["Reader", "read"]


class Reader(Protocol):
    """One choice's text in, its events out."""

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> tuple[Event, ...]:
        """The events that are certain with this further piece."""
        ...

    def finish(self) -> tuple[Event, ...]:
        """What was held back; a call that never became whole comes back as text."""
        ...


def read(
    family: Family,
    new_id: Callable[[], str],
    *,
    tools: Iterable[Tool] = (),
    open_think: bool = False,
    choice: int = 0,
    primed: str = "",
) -> Reader:
    """A reader for one choice; without tools, marks of calls are text.

    open_think: the prompt ended inside the reasoning. primed: text that the prompt already holds of the answer.
    """
    named = {tool.name: tool for tool in tools}
    reader: Reader
    if isinstance(family.calls, ChannelCalls):
        reader = ChannelReader(new_id, named, choice)
    else:
        reader = PlainReader(family, new_id, named, open_think=open_think, choice=choice)
    if primed:
        reader.feed(primed)
    return reader
