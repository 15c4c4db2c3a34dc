"""Events and counts from engine outputs, with a reader that returns given events."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mullama.chat import types as chat
from mullama.engines.base import Begun, Embedded, Ended, Piece, Prefilled
from mullama.errors import EngineFailed
from mullama.runtime.serving.aggregate import Aggregate
from mullama.runtime.serving.completion import _bounded, _seeded
from mullama.struct import replace


class Reads:
    """A reader that has one event for each piece, and some for the end."""

    def __init__(self, *last: chat.Event) -> None:
        self._last = last

    def feed(self, text: str, logprobs: Sequence[chat.TokenLogprob] = ()) -> list[chat.Event]:
        return [chat.ThinkingDelta(text=text) if text.startswith("hm") else chat.TextDelta(text=text)]

    def finish(self, *, cut: bool = False) -> list[chat.Event]:
        return list(self._last)


CALL = chat.ToolCallFinished(index=0, call=chat.ToolCall(id="c", name="f", arguments={}))


def made(jobs: int, *last: chat.Event, per_prompt: int = 1, warnings: tuple[str, ...] = ()) -> Aggregate:
    """The ids of the jobs are 1, 2, …"""
    return Aggregate({1 + choice: Reads(*last) for choice in range(jobs)}, per_prompt, warnings)  # type: ignore[arg-type]


def without_outcome(event: chat.Event) -> chat.Event:
    return replace(event, outcome=None) if isinstance(event, chat.Finished) else event


def test_a_request_starts_once_however_many_choices_it_has() -> None:
    tally = made(2, per_prompt=2, warnings=("a warning",))

    events = tally.take([Begun(id=1, prompt_tokens=5, cached_tokens=3), Begun(id=2, prompt_tokens=5, cached_tokens=5)])

    assert events == [chat.Started(prompt_tokens=5, cached_tokens=3, warnings=("a warning",))]


def test_a_prompt_is_reported_for_each_choice_that_has_it() -> None:
    tally = made(2)
    tally.take([Begun(id=1, prompt_tokens=1, cached_tokens=0, prompt="a")])
    events = tally.take([Begun(id=2, prompt_tokens=1, cached_tokens=0, prompt="b")])
    assert events == [chat.PromptText(text="b", choice=1)]


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
def test_an_end_has_its_reason_and_a_tool_call_another(reason: str, last: tuple[chat.Event, ...], told: str) -> None:
    events = made(1, *last).take([Ended(id=1, reason=reason, stop="!")])  # type: ignore[arg-type]

    assert events[:-1] == list(last)
    assert without_outcome(events[-1]) == chat.Finished(reason=chat.StopReason(told), stop_sequence="!", choice=0)


def test_a_prompt_counts_once_and_every_answer_counts() -> None:
    """Two prompts with two choices each: the first choice of a prompt computed it."""
    tally = made(4, per_prompt=2)
    for id, (prompt, cached) in enumerate([(10, 2), (10, 10), (7, 0), (7, 7)], start=1):
        ended = Ended(id=id, reason="stop", prompt_tokens=prompt, cached_tokens=cached, completion_tokens=3)
        tally.take([Piece(id=id, text="hm", count=2), Piece(id=id, text="so", count=1), ended])

    assert tally.usage() == chat.Usage(prompt_tokens=17, cached_tokens=2, completion_tokens=12, reasoning_tokens=8)


def test_the_slowest_choice_gives_the_time_of_the_request() -> None:
    tally = made(2, per_prompt=2)
    for id, seconds in ((1, 2.0), (2, 1.0)):
        tally.take([Ended(id=id, reason="stop", prompt_seconds=seconds, decode_seconds=2 * seconds)])

    assert (tally.prompt_seconds, tally.decode_seconds) == (2.0, 4.0)


def test_progress_is_passed_on_and_an_embedding_is_refused() -> None:
    tally = made(1)

    assert tally.take([Prefilled(id=1, done=1, total=2)]) == [chat.PromptProgress(done=1, total=2)]
    with pytest.raises(EngineFailed, match="a Embedded"):
        tally.take([Embedded(id=1, vectors=(), tokens=0)])


def test_events_keep_the_order_of_the_outputs_and_name_their_choice() -> None:
    tally = made(2, per_prompt=2)

    events = tally.take([Piece(id=2, text="so", count=1), Ended(id=2, reason="stop")])
    assert not tally.complete
    events += tally.take([Ended(id=1, reason="length")])

    assert tally.complete
    assert [without_outcome(event) for event in events] == [
        chat.TextDelta(text="so"),
        chat.Finished(reason=chat.StopReason.STOP, stop_sequence=None, choice=1),
        chat.Finished(reason=chat.StopReason.LENGTH, stop_sequence=None, choice=0),
    ]


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
