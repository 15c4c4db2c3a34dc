"""Guesses by the weights' own layer (nextn): answers are those without; a file or library that lacks it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mullama.chat.types import DraftLimits
from mullama.engines.base import DraftOptions, WeightsOptions
from mullama.engines.llamacpp.binding import nextn
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.errors import Unsupported
from mullama.struct import replace
from tests.engines.engine_driver import answers, ask, user
from tests.engines.llamacpp.speculation.test_answers import PLAIN, guesses, jobs, run
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

MTP = replace(PLAIN, draft=DraftOptions(kind="mtp", tokens=4))

pytestmark = pytest.mark.usefixtures("guessing")


@pytest.fixture
def engine(random_model: Callable[[str], str], load: Callable[..., LlamaEngine]) -> LlamaEngine:
    """A hybrid model whose nextn layer guesses most tokens right."""
    return load("llamacpp", random_model("nextn"), options=WeightsOptions(drafting=True))


def test_answers_are_those_without_and_most_guesses_are_right(engine: LlamaEngine) -> None:
    expected = run(engine, PLAIN, *jobs(max_tokens=16))
    found = run(engine, MTP, *jobs(max_tokens=16))
    assert_same_answers(engine.facts, found, expected)
    guessed, accepted = guesses(found)
    assert guessed > 20
    assert accepted > guessed / 2


def test_a_prompt_of_several_batches_and_a_later_turn(engine: LlamaEngine) -> None:
    """The layer reads a long prompt in parts, and has no memory of what a request shares with an earlier one."""
    small = replace(MTP, batch=16, ubatch=16)
    prompt = user("How are you? " * 8)
    engine.open_context("plain", replace(PLAIN, batch=16, ubatch=16))
    engine.open_context("main", small)
    for turn in range(2):
        wanted = {"max_tokens": 16, "logprobs": ALTERNATIVES}
        expected = answers(engine, ask(2 * turn, prompt, context="plain", **wanted))
        found = answers(engine, ask(2 * turn + 1, prompt, **wanted))
        assert_same_answers(engine.facts, found, expected)
        assert guesses(found)[1] > 4
        prompt += found[0].text


def test_a_time_without_guesses_may_be_longer_than_a_batch(engine: LlamaEngine) -> None:
    """The layer reads the tokens of that time in parts: those of all requests together fit into no batch."""
    options = replace(PLAIN, batch=16, ubatch=16)
    work = [
        ask(id, user("How are you?"), max_tokens=most, logprobs=ALTERNATIVES) for id, most in enumerate((20, 40, 40))
    ]
    expected = run(engine, options, *work)
    draft = DraftOptions(kind="mtp", tokens=4, until_parallel=2)
    found = run(engine, replace(options, draft=draft), *work)
    assert_same_answers(engine.facts, found, expected)
    assert [guesses([result])[0] > 4 for result in found] == [False, True, True]


def test_requests_without_guesses_leave_the_layer_to_the_others(engine: LlamaEngine) -> None:
    engine.open_context("main", MTP)
    none = DraftLimits(most=0)
    for turn in range(6):  # more than the layer has sequences
        assert guesses(answers(engine, ask(turn, user("How are you?"), max_tokens=4, draft=none))) == (0, 0)
    assert guesses(answers(engine, *jobs(max_tokens=8)))[1] > 4


def test_weights_without_the_layer_are_refused(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    with pytest.raises(Unsupported, match="the weights have 0 layers that predict further tokens"):
        engine.open_context("main", MTP)
    engine.open_context("main", PLAIN)
    assert answers(engine, *jobs()[:1])[0].text


def test_where_the_choice_is_automatic_the_text_is_guessed_from_instead(
    tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", tiny_path)
    automatic = replace(PLAIN, draft=DraftOptions(kind="mtp", tokens=4, automatic=True))
    assert guesses(run(engine, automatic, *jobs()))[1] > 4


def test_a_library_without_the_functions_is_refused_by_their_name(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(nextn._STAGED, "states", "llama_get_nothing")
    nextn._functions.cache_clear()
    with pytest.raises(Unsupported, match=r"this build of llama\.cpp does not export llama_get_nothing"):
        engine.open_context("main", MTP)
    monkeypatch.undo()
    nextn._functions.cache_clear()
