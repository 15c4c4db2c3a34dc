"""Gemma 3 behind a real server: a base model whose layers see 512 tokens, and every sixth one all of them."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import pytest

from benches.real_models import GEMMA3
from tests.e2e.stack import Stack, serving
from tests.official_clients import openai
from tests.real.conftest import real_file
from tests.real.scored_answers import ScoredAnswer

pytestmark = pytest.mark.real

MOST = 16
# Some 700 tokens, more than the window; the beginning must be repeated at the end by the layers that see all.
STORY = "The keeper of the lighthouse wrote down the weather of every day in a long book. " * 40
PROMPTS = [f"{STORY}\nOn the {day} day, the weather was" for day in ("first", "second", "third", "last")]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    model = {"from": str(real_file(GEMMA3.name)), "context": {"size": 2048}, "parameters": {"temperature": 0}}
    with serving(tmp_path_factory.mktemp("gemma3"), {"gemma": model}) as found:
        yield found


@pytest.fixture(scope="module")
def gpt(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=240) as client:
        yield client


def complete(gpt: openai.OpenAI, prompt: str, **changes: object) -> ScoredAnswer:
    found = gpt.completions.create(
        model="gemma", prompt=prompt, max_tokens=MOST, logprobs=2, extra_body={"cache_prompt": False, **changes}
    )
    choice = found.choices[0]
    assert choice.logprobs is not None
    likely = [sorted(top.values(), reverse=True) for top in choice.logprobs.top_logprobs or []]
    return ScoredAnswer(
        text=choice.text,
        tokens=tuple(choice.logprobs.tokens or ()),
        gaps=tuple(top[0] - top[1] if len(top) > 1 else 0.0 for top in likely),
    )


@pytest.fixture(scope="module")
def answers(gpt: openai.OpenAI) -> list[ScoredAnswer]:
    """Each prompt alone, with nothing in memory."""
    return [complete(gpt, prompt) for prompt in PROMPTS]


def test_a_base_model_continues_a_text(gpt: openai.OpenAI) -> None:
    text = "One, two, three, four, five, six, seven, eight,"
    assert complete(gpt, text).text.strip().startswith("nine")


def test_a_stream_is_the_whole_answer(gpt: openai.OpenAI, answers: list[ScoredAnswer]) -> None:
    with gpt.completions.create(model="gemma", prompt=PROMPTS[0], max_tokens=MOST, stream=True) as stream:
        answers[0].assert_same("".join(chunk.choices[0].text for chunk in stream if chunk.choices))


def test_prompts_beyond_the_window_are_answered_together_as_alone(
    gpt: openai.OpenAI, answers: list[ScoredAnswer]
) -> None:
    def one(prompt: str) -> str:
        return gpt.completions.create(model="gemma", prompt=prompt, max_tokens=MOST).choices[0].text

    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as threads:
        for expected, text in zip(answers, threads.map(one, PROMPTS), strict=True):
            expected.assert_same(text)


def test_a_repeated_prompt_and_its_continuation_use_what_is_in_memory(gpt: openai.OpenAI) -> None:
    prompt = PROMPTS[0]
    first = gpt.completions.create(model="gemma", prompt=prompt, max_tokens=MOST)
    longer = prompt + first.choices[0].text + " and then"
    expected = complete(gpt, longer)
    gpt.completions.create(model="gemma", prompt=prompt, max_tokens=MOST)
    continued = gpt.completions.create(model="gemma", prompt=longer, max_tokens=MOST)
    expected.assert_same(continued.choices[0].text)


def test_counts_have_the_token_that_begins_a_text(gpt: openai.OpenAI) -> None:
    found = gpt.completions.create(model="gemma", prompt="Hello", max_tokens=1)
    assert found.usage is not None
    assert found.usage.prompt_tokens == 2
