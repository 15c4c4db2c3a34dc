"""The choice of the model behind a route."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.request_rules import GivenParameters, RequestRules
from mullama.chat.types import ChatRequest, CompletionRequest, EmbedRequest, Message, text_message
from mullama.errors import (
    BadWeights,
    Busy,
    ContextOverflow,
    EngineFailed,
    Invalid,
    ModelUnavailable,
    MullamaError,
    NotFound,
    Refused,
    TimedOut,
    Unavailable,
)
from mullama.runtime.routing import Candidate, Routing, candidates, choose, conversation_key, failure_class
from mullama.struct import replace

weights = st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any)


def keys(count: int) -> list[bytes]:
    """The keys of as many conversations."""
    chats = (ChatRequest(model="r", messages=(text_message("user", f"question {n}"),)) for n in range(count))
    return [conversation_key(chat, None) for chat in chats]


KEYS = keys(10_000)
FEW = KEYS[:200]


def targets(shares: list[int]) -> tuple[tuple[str, int], ...]:
    return tuple((f"m{n}", share) for n, share in enumerate(shares))


@pytest.mark.parametrize("shares", [[90, 10], [1, 1], [1, 2, 3], [99, 1], [1, 0], [5, 5, 5, 5], [1_000_000, 250_000]])
def test_of_10000_conversations_each_model_gets_its_share_within_one_percent(shares: list[int]) -> None:
    found = Counter(choose(targets(shares), key) for key in KEYS)
    for name, share in targets(shares):
        assert abs(found[name] / len(KEYS) - share / sum(shares)) < 0.01


@given(weights)
def test_every_target_has_its_share_within_the_error_of_the_draw(shares: list[int]) -> None:
    """Five standard deviations of the binomial distribution, and one conversation."""
    found = Counter(choose(targets(shares), key) for key in KEYS[:1000])
    for name, share in targets(shares):
        p = share / sum(shares)
        assert abs(found[name] - 1000 * p) <= 5 * math.sqrt(1000 * p * (1 - p)) + 1
        assert share or not found[name]


@given(weights, st.permutations(range(8)))
def test_the_order_of_the_targets_changes_nothing(shares: list[int], order: list[int]) -> None:
    one = targets(shares)
    other = tuple(one[place] for place in order if place < len(one))
    assert [choose(one, key) for key in FEW] == [choose(other, key) for key in FEW]


@given(weights, st.integers(0, 7), st.integers(1, 1000))
def test_a_raised_weight_moves_conversations_to_that_model_only(shares: list[int], place: int, more: int) -> None:
    place %= len(shares)
    raised = [share + more * (n == place) for n, share in enumerate(shares)]
    for key in FEW:
        before, after = choose(targets(shares), key), choose(targets(raised), key)
        assert after in (before, f"m{place}")


def routes(*made: Routing) -> dict[str, Routing]:
    return {route.name: route for route in made}


def test_the_fallbacks_follow_in_order_and_each_model_is_tried_once() -> None:
    inner = Routing(name="inner", targets=(("b", 1),), fallback=("c", "a"))
    outer = Routing(name="outer", targets=(("a", 1),), fallback=("inner", "b", "d"))
    found = candidates(outer, routes(inner, outer), FEW[0])
    assert [candidate.model for candidate in found] == ["a", "b", "c", "d"]


def test_a_fallback_that_is_not_usable_may_be_the_last_one() -> None:
    inner = Routing(name="inner", targets=(("b", 1),), fallback=("c",))
    outer = Routing(name="outer", targets=(("a", 1), ("x", 1)), fallback=("inner", "d", "a"))
    busy, gone = {"b", "x"}, {"c"}

    def usable(model: str) -> bool:
        return model not in busy | gone

    found = candidates(outer, routes(inner, outer), FEW[0], usable, lambda model: model not in gone)
    assert [candidate.model for candidate in found] == ["a", "d", "b"]  # x is no fallback


def test_a_fallback_route_adds_its_rules_below_those_of_the_route_that_was_named() -> None:
    cold, brief = GivenParameters(think=False), GivenParameters(max_tokens=9, think=True)
    inner = Routing(name="inner", targets=(("b", 1),), rules=RequestRules(force=brief))
    outer = Routing(name="outer", targets=(("a", 1),), fallback=("inner",), rules=RequestRules(force=cold))
    assert candidates(outer, routes(inner, outer), FEW[0]) == (
        Candidate(model="a", rules=RequestRules(force=cold)),
        Candidate(model="b", rules=RequestRules(force=GivenParameters(max_tokens=9, think=False))),
    )


def conversation(*texts: str, **more: object) -> ChatRequest:
    roles = ("user", "assistant") * len(texts)
    turns = tuple(text_message(role, text) for role, text in zip(roles, texts, strict=False))  # type: ignore[arg-type]
    return ChatRequest(model="r", messages=turns, **more)  # type: ignore[arg-type]


def test_the_requests_of_a_conversation_share_its_key() -> None:
    begin = conversation("Hello")
    later = conversation("Hello", "Hi.", "And?")
    assert conversation_key(begin, "k") == conversation_key(later, "k")
    assert conversation_key(begin, "k") != conversation_key(begin, "other")
    assert conversation_key(begin, "k") != conversation_key(conversation("Hello!"), "k")
    system = Message(role="system", content=text_message("system", "Be brief.").content)
    assert conversation_key(replace(begin, messages=(system, *begin.messages)), "k") != conversation_key(begin, "k")


def test_a_name_of_the_conversation_wins_over_the_user_and_the_user_over_the_text() -> None:
    named = [conversation(text, conversation="c", user=text) for text in "ab"]
    of_user = [conversation(text, user="u") for text in "ab"]
    for pair in (named, of_user):
        assert conversation_key(pair[0], None) == conversation_key(pair[1], None)
    assert conversation_key(named[0], None) != conversation_key(of_user[0], None)


def test_prompts_share_the_key_of_their_beginning_and_vectors_that_of_their_api_key() -> None:
    long = "x" * 5000
    one, other = (CompletionRequest(model="r", prompts=(long + end,)) for end in "ab")
    assert conversation_key(one, None) == conversation_key(other, None)
    assert conversation_key(CompletionRequest(model="r", prompts=((1, 2, 3),)), None)
    vectors = [EmbedRequest(model="r", inputs=(text,)) for text in "ab"]
    assert conversation_key(vectors[0], "k") == conversation_key(vectors[1], "k")


FAILURES: list[tuple[MullamaError, str | None]] = [
    (Busy("full"), "overloaded"),
    (TimedOut("late"), "timeout"),
    (Unavailable("away"), "unavailable"),
    (EngineFailed("died"), "unavailable"),
    (ModelUnavailable(NotFound("no file")), "unavailable"),
    (Refused("no memory"), "unavailable"),
    (BadWeights("damaged"), "unavailable"),
    (ContextOverflow(9, 8), None),
    (Invalid("wrong"), None),
    (NotFound("no such model"), None),
]


@pytest.mark.parametrize(("error", "expected"), FAILURES)
def test_a_failure_of_the_model_has_a_class_and_a_fault_of_the_request_has_none(
    error: MullamaError, expected: str | None
) -> None:
    assert failure_class(error) == expected
