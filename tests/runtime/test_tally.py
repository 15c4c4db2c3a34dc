"""What the outputs of an engine come to, with a reader that says what it is told to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mullama.chat import types as chat
from mullama.engines.base import Begun, Embedded, Ended, Piece, Prefilled
from mullama.errors import EngineFailed
from mullama.runtime.generation import _bounded, _seeded
from mullama.runtime.tally import Tally


class Reads:
    """A reader that has one event for each piece, and some for the end."""

    def __init__(self, *last: chat.Event) -> None:
        self._last = last

    def feed(self, text: str, logprobs: Sequence[chat.TokenLogprob] = ()) -> list[chat.Event]:
        return [chat.ThinkingDelta(text=text) if text.startswith("hm") else chat.TextDelta(text=text)]

    def finish(self) -> list[chat.Event]:
        return list(self._last)


CALL = chat.ToolCallFinished(index=0, call=chat.ToolCall(id="c", name="f", arguments={}))


def take(tally: Tally, choice: int, *outputs: object, reader: Reads | None = None) -> list[chat.Event]:
    return [event for output in outputs for event in tally.take(choice, output, reader or Reads())]  # type: ignore[arg-type]


def test_a_request_starts_once_however_many_choices_it_has() -> None:
    tally = Tally(2, 2, ("a warning",))

    first = take(tally, 0, Begun(id=1, prompt_tokens=5, cached_tokens=3))
    second = take(tally, 1, Begun(id=2, prompt_tokens=5, cached_tokens=5))

    assert [*first, *second] == [chat.Started(prompt_tokens=5, cached_tokens=3, warnings=("a warning",))]


@pytest.mark.parametrize(
    ("reason", "last", "told"),
    [
        ("stop", (), "stop"),
        ("length", (), "length"),
        ("stop", (CALL,), "tool_calls"),
        ("length", (CALL,), "length"),
        ("stop_sequence", (), "stop_sequence"),
    ],
)
def test_an_end_says_why_and_a_call_is_a_reason_of_its_own(
    reason: str, last: tuple[chat.Event, ...], told: str
) -> None:
    tally = Tally(1, 1, ())

    events = take(tally, 0, Ended(id=1, reason=reason, stop="!"), reader=Reads(*last))  # type: ignore[arg-type]

    assert events[:-1] == list(last)
    assert events[-1] == chat.Finished(reason=chat.StopReason(told), stop_sequence="!", choice=0)


def test_a_prompt_counts_once_and_every_answer_counts() -> None:
    """Two prompts with two choices each: the first choice of a prompt computed it."""
    tally = Tally(4, 2, ())
    for choice, (prompt, cached) in enumerate([(10, 2), (10, 10), (7, 0), (7, 7)]):
        ended = Ended(id=choice, reason="stop", prompt_tokens=prompt, cached_tokens=cached, completion_tokens=3)
        take(tally, choice, Piece(id=choice, text="hm", count=2), Piece(id=choice, text="so", count=1), ended)

    assert tally.usage() == chat.Usage(prompt_tokens=17, cached_tokens=2, completion_tokens=12, reasoning_tokens=8)


def test_the_slowest_choice_is_what_the_request_took() -> None:
    tally = Tally(2, 2, ())
    for choice, seconds in enumerate((2.0, 1.0)):
        take(tally, choice, Ended(id=choice, reason="stop", prompt_seconds=seconds, decode_seconds=2 * seconds))

    assert (tally.prompt_seconds, tally.decode_seconds) == (2.0, 4.0)


def test_progress_is_passed_on_and_what_is_no_generation_is_refused() -> None:
    tally = Tally(1, 1, ())

    assert take(tally, 0, Prefilled(id=1, done=1, total=2)) == [chat.Progress(done=1, total=2)]
    with pytest.raises(EngineFailed, match="a Embedded"):
        take(tally, 0, Embedded(id=1, vectors=(), tokens=0))


@pytest.mark.parametrize(
    ("asked", "ceiling", "most"),
    [(None, None, None), (-1, None, None), (-2, 9, 9), (None, 9, 9), (5, 9, 5), (50, 9, 9), (0, 9, 0)],
)
def test_a_client_cannot_ask_for_more_than_the_manifest_allows(
    asked: int | None, ceiling: int | None, most: int | None
) -> None:
    assert _bounded(asked, ceiling) == most


@pytest.mark.parametrize(("seed", "choice", "given"), [(7, 0, 7), (7, 2, 9), (-1, 2, -1), (2**32 - 1, 1, 0)])
def test_choices_differ_by_their_seed(seed: int, choice: int, given: int) -> None:
    assert _seeded(chat.Sampling(seed=seed), choice).seed == given
