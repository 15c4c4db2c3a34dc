"""The comparison of answers: a near tie is no fault, a clear difference is one."""

from __future__ import annotations

import pytest

from mullama.chat.types import TokenLogprob
from mullama.engines.base import EngineFacts
from tests.engines.engine_driver import Result
from tests.engines.near_tie import EXACT, QUANTISED, assert_same_answers, rounding_of, tokens_compared

END = 99


def facts(parameters: int = 1000, weights_bytes: int = 1100) -> EngineFacts:
    return EngineFacts(
        name="test", version="1", vocabulary=100, train_context=100, embedding_length=8, layers=1,
        parameters=parameters, weights_bytes=weights_bytes, template="", bos_text="", eos_text="", add_bos=False,
        end_tokens=(END,),
    )  # fmt: skip


def compared(left: Result, right: Result, rounding: float = 0.2, ends: tuple[int, ...] = (END,)) -> int:
    return tokens_compared(left, right, rounding=rounding, ends=ends)


def token(id: int, logprob: float, *alternatives: tuple[int, float]) -> TokenLogprob:
    def entry(id: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        return TokenLogprob(id=id, text=f" {id}", bytes=b"", logprob=logprob, top=top)

    return entry(id, logprob, (entry(id, logprob), *(entry(*alternative) for alternative in alternatives)))


def written(*tokens: TokenLogprob) -> Result:
    return Result(text="".join(t.text for t in tokens), count=len(tokens), logprobs=list(tokens))


CLEAR = token(1, -0.1, (2, -3.0))
ONE_AHEAD, TWO_AHEAD = token(1, -0.6, (2, -0.8)), token(2, -0.6, (1, -0.8))


def test_equal_answers_are_compared_to_their_end() -> None:
    assert compared(written(CLEAR, CLEAR), written(CLEAR, CLEAR)) == 2


def test_after_a_near_tie_texts_may_differ() -> None:
    left, right = written(CLEAR, ONE_AHEAD, token(7, -0.1, (8, -9))), written(CLEAR, TWO_AHEAD, token(8, -0.1, (7, -9)))
    assert compared(left, right) == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (CLEAR, token(2, -0.6, (1, -0.8))),
        (token(2, -0.6, (1, -0.8)), CLEAR),
        (CLEAR, token(2, -0.1, (1, -3.0))),
        (ONE_AHEAD, token(3, -0.6, (1, -0.8))),
        (ONE_AHEAD, token(2, -0.6, (3, -0.8))),
    ],
    ids=["clear in one", "clear in the other", "clear in both", "unlikely in one", "unlikely in the other"],
)
def test_a_difference_with_a_clear_gap_is_a_fault(left: TokenLogprob, right: TokenLogprob) -> None:
    with pytest.raises(AssertionError, match=r"token 1: .* is ahead of the other choice by"):
        compared(written(CLEAR, left), written(CLEAR, right))


def test_the_gap_may_be_twice_the_rounding() -> None:
    assert compared(written(ONE_AHEAD), written(TWO_AHEAD), rounding=0.11) == 0
    with pytest.raises(AssertionError, match=r"by 0\.200"):
        compared(written(ONE_AHEAD), written(TWO_AHEAD), rounding=0.09)


def test_the_same_token_with_another_probability_is_a_fault() -> None:
    with pytest.raises(AssertionError, match=r"token 0: the logprobs of ' 1' differ by 0\.500"):
        compared(written(token(1, -0.1)), written(token(1, -0.6)), rounding=0.4)


def test_a_choice_that_is_not_the_likeliest_is_a_fault() -> None:
    second = TokenLogprob(id=2, text=" 2", bytes=b"", logprob=-0.8, top=ONE_AHEAD.top)
    with pytest.raises(AssertionError, match="not the likeliest"):
        compared(written(ONE_AHEAD), written(second))


def test_an_answer_may_end_earlier_where_its_end_is_a_near_tie() -> None:
    ahead = token(1, -0.6, (END, -0.8))
    assert compared(written(CLEAR, ahead), written(CLEAR)) == 1
    for longer, ends in ((token(1, -0.1, (END, -3.0)), (END,)), (ahead, ())):
        with pytest.raises(AssertionError, match="token 1"):
            compared(written(CLEAR), written(CLEAR, longer), ends=ends)


def test_near_ties_must_not_hide_most_of_the_answers() -> None:
    short, left, right = written(CLEAR), written(ONE_AHEAD, CLEAR), written(TWO_AHEAD)
    assert_same_answers(facts(), [written(CLEAR, CLEAR), left], [written(CLEAR, CLEAR), right])
    with pytest.raises(AssertionError, match="after 1 of 3 tokens"):
        assert_same_answers(facts(), [short, left], [short, right])


def test_answers_without_logprobs_cannot_be_compared() -> None:
    with pytest.raises(AssertionError, match="logprobs"):
        compared(Result(text="a", count=1), written(CLEAR))


def test_the_rounding_depends_on_the_bytes_of_a_weight() -> None:
    assert rounding_of(facts(weights_bytes=1063)) == QUANTISED
    assert rounding_of(facts(weights_bytes=2000)) == QUANTISED
    assert rounding_of(facts(weights_bytes=4000)) == EXACT
