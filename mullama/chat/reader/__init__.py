"""Splits the output of a model into text, reasoning and tool calls, as it arrives.

The result does not depend on how the text is cut into pieces: a reader holds back only a possible beginning of a mark.
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
    """Turns the text of one choice into events."""

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> tuple[Event, ...]:
        """Return the events that are certain with this further piece."""
        ...

    def finish(self, *, cut: bool = False) -> tuple[Event, ...]:
        """Return the events of the held-back text. A call that has begun ends with what there is of its arguments.

        cut: a limit ended the answer, so the beginning of a call without a name is not text of the model.
        """
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
    """Return a reader for one choice. Without tools, marks of calls are text.

    open_think: the prompt ends inside the reasoning. primed: text of the answer that the prompt already contains.
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
