"""Guesses change no answer: greedy texts, seeded draws, constraints, logprobs and penalties are those without."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mullama.chat.types import Constraint, DraftLimits
from mullama.engines.base import ContextOptions, DraftOptions, Engine, Generate
from mullama.engines.llamacpp.binding.context import NO_CELLS
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.speculation.drafter import Ask, DecodedPart, Guesses
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answers, ask, sampling, user
from tests.engines.llamacpp.builders import BUILDERS
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

PLAIN = ContextOptions(size=384, parallel=4, threads=1)
NGRAM = replace(PLAIN, draft=DraftOptions(kind="ngram"))
REPEATED = "one two three four five six one two three four five six one two three"
PROMPTS = [REPEATED, "1 2 3 4 5 6 7 8 1 2 3 4 5", user("How are you?"), user("What is 3 plus 4?")]

pytestmark = pytest.mark.usefixtures("guessing")


def jobs(**changes: Any) -> list[Generate]:
    settings = {"logprobs": ALTERNATIVES, "max_tokens": 40} | changes
    return [ask(i, prompt, **settings) for i, prompt in enumerate(PROMPTS)]


def run(engine: Engine, options: ContextOptions, *work: Generate) -> list[Result]:
    engine.open_context("main", options)
    results = answers(engine, *work)
    engine.close_context("main")
    return results


def guesses(results: list[Result]) -> tuple[int, int]:
    """The guessed and the accepted tokens of all results."""
    ended = [result.ended for result in results if result.ended]
    return sum(e.draft_tokens for e in ended), sum(e.draft_accepted for e in ended)


@pytest.fixture(params=["tiny", *BUILDERS])
def path(request: pytest.FixtureRequest, tiny_path: str, random_model: Callable[[str], str]) -> str:
    """The built-in model, and a random one of each kind of memory: plain, sliding window, recurrent."""
    return tiny_path if request.param == "tiny" else random_model(request.param)


class Oracle:
    """Guesses what was answered before, with a mistake in most drafts."""

    free = True
    evidence = 0
    each = 0.0

    def __init__(self, answered: list[Result]) -> None:
        self._texts = [result.ended.tokens for result in answered if result.ended]
        self._dice = random.Random(3)

    def decoded(self, parts: Sequence[DecodedPart], skip: int) -> None:
        pass

    def propose(self, asks: Sequence[Ask]) -> list[Guesses]:
        return [self._propose(ask) for ask in asks]

    def _propose(self, ask: Ask) -> Guesses:
        guesses = list(self._texts[ask.key][len(ask.tokens) :][: min(ask.most, self._dice.randrange(1, 9))])
        wrong = self._dice.randrange(9)
        if wrong < len(guesses):
            guesses[wrong] ^= 1
        return Guesses(tokens=tuple(guesses), evidence=24)

    def end(self, key: int) -> None:
        pass

    def close(self) -> None:
        pass


def test_greedy_answers_of_every_kind_of_memory_are_those_without(
    path: str, memory: str, load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", path)
    expected = run(engine, PLAIN, *jobs(want_tokens=True))
    engine.open_context("main", NGRAM)
    speculator = engine._contexts["main"]._speculator
    assert speculator is not None
    speculator._drafter = Oracle(expected)
    found = answers(engine, *jobs())
    assert_same_answers(engine.facts, found, expected)
    guessed, accepted = guesses(found)
    assert guessed > accepted > 20, "both outcomes occur"
    assert engine.stats().sequences_busy == 0
    for result in found:
        assert result.ended is not None
        assert sum(result.ended.draft_accepted_at) == result.ended.draft_accepted


def test_a_draft_in_a_sliding_window_stays_in_one_physical_batch(
    random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """llama.cpp reuses cells outside the window between physical batches, and a draft there could not be taken back."""
    engine = load("llamacpp", random_model("window"))
    small = {"batch": 16, "ubatch": 6}
    expected = run(engine, replace(PLAIN, **small), *jobs(want_tokens=True))
    engine.open_context("main", replace(NGRAM, **small))
    context = engine._contexts["main"]
    assert context._speculator is not None
    context._speculator._drafter = Oracle(expected)
    counts, decode = [], context.native.decode

    def counted(batch: Any) -> int:
        if any(c.draft for c in context._running.values()):
            counts.append(batch.count)
        return decode(batch)

    context.native.decode = counted  # type: ignore[method-assign]
    assert_same_answers(engine.facts, answers(engine, *jobs()), expected)
    assert counts
    assert max(counts) <= 6


def test_a_later_turn_shares_what_a_guessed_answer_left_in_memory(
    path: str, memory: str, load: Callable[..., LlamaEngine]
) -> None:
    """Wrong guesses that stayed in memory would change the second answer."""
    engine = load("llamacpp", path)
    engine.open_context("main", NGRAM)
    first = answers(engine, ask(1, REPEATED, max_tokens=20, ignore_eos=True))[0]
    later = REPEATED + first.text + user("And then?")
    shared = answers(engine, ask(2, later, logprobs=ALTERNATIVES, max_tokens=20))
    fresh = answers(engine, ask(3, later, logprobs=ALTERNATIVES, max_tokens=20, cache=False))
    assert_same_answers(engine.facts, shared, fresh)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": sampling(temperature=1.0, seed=5)},
        {"sampling": sampling(temperature=0.7, seed=6, top_k=5, repeat_penalty=1.3, presence_penalty=0.5)},
        {"constraint": Constraint(grammar="start: /(one |two |three |four )+/")},
        {"logprobs": 2, "post_sampling": True, "sampling": sampling(temperature=0.9, seed=7)},
        {"logprobs": None, "stop": ("five",)},
    ],
    ids=["draws", "penalties", "constraint", "probabilities", "stop"],
)
def test_what_a_request_asks_for_holds_with_guesses(
    changes: dict[str, Any], tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    """One request at a time: the rounding of a batch could change a draw."""
    engine = load("llamacpp", tiny_path)
    expected, found = [], []
    for job in jobs(**changes):
        expected += run(engine, PLAIN, job)
        found += run(engine, NGRAM, job)
    assert guesses(found)[0] > 0
    same = [e.text == f.text for e, f in zip(expected, found, strict=True)]
    assert sum(same) >= len(same) - 1, "a rounding may change a draw, not several"


def test_draws_of_many_seeds_are_those_without_guesses(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """Equal texts for equal seeds imply equal distributions; the rounding of a longer batch may change a few."""
    engine = load("llamacpp", tiny_path)
    engine.open_context("plain", PLAIN)
    engine.open_context("main", NGRAM)
    texts: dict[str, list[str]] = {"plain": [], "main": []}
    counts = []
    for seed in range(16):
        settings = {"sampling": sampling(temperature=2.0, top_p=1.0, seed=seed), "max_tokens": 16}
        for context, made in texts.items():
            result = answers(engine, ask(1, REPEATED, context=context, **settings))
            made.append(result[0].text)
            counts.append(guesses(result))
    equal = [one == other for one, other in zip(*texts.values(), strict=True)]
    assert sum(equal) > 13
    assert len(set(texts["plain"])) > 8, "the draws differ"
    assert sum(guessed for guessed, _ in counts) > sum(accepted for _, accepted in counts) > 0


@pytest.mark.parametrize(
    ("limits", "most", "some"),
    [
        (DraftLimits(most=0), 0, False),
        (DraftLimits(most=2), 2, True),
        (DraftLimits(least=60), 0, False),
        (DraftLimits(min_probability=0.999), 0, False),
    ],
)
def test_a_request_may_limit_its_guesses(
    limits: DraftLimits, most: int, some: bool, tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", tiny_path)
    ended = run(engine, NGRAM, *jobs(draft=limits))[0].ended
    assert ended is not None
    assert (ended.draft_tokens > 0) == some
    assert ended.draft_tokens <= ended.drafts * most


@pytest.mark.parametrize(("until", "some"), [(1, False), (2, True)])
def test_no_guesses_beside_more_requests_than_declared(
    until: int, some: bool, tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(PLAIN, draft=DraftOptions(kind="ngram", until_parallel=until)))
    driver = Driver(engine).submit(*jobs(max_tokens=20)[:2])
    driver.run()
    assert (guesses(list(driver.results.values()))[0] > 0) == some


def test_guesses_that_find_no_cells_are_dropped(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """A full cache ends the guesses, not the request."""
    engine = load("llamacpp", tiny_path)
    expected = run(engine, PLAIN, *jobs())
    engine.open_context("main", NGRAM)
    native = engine._contexts["main"].native
    seen: list[bool] = []
    decode = native.decode

    def full_for_guesses(batch: Any) -> int:
        guessed = any(c.draft for c in engine._contexts["main"]._running.values())
        seen.append(guessed)
        return NO_CELLS if guessed and seen.count(True) % 2 else decode(batch)

    native.decode = full_for_guesses  # type: ignore[method-assign]
    assert_same_answers(engine.facts, answers(engine, *jobs()), expected)
    assert seen.count(True) >= 2
