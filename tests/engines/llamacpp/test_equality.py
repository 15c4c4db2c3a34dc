"""Greedy answers do not depend on other work of the engine: batches, sharing, restarts, interruptions."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.engines.base import ContextOptions, Engine, Generate, Prefix
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answer, answers, ask, sampling, user
from tests.engines.llamacpp.builders import BUILDERS
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

QUESTIONS = ["How are you?", "What is 3 plus 4?", "How many minutes are in 2 hours?", "Who are you?", "Say something."]
SYSTEM = (
    "<|im_start|>system\nYou are a small model. You answer in one short sentence, you never make up facts, and when "
    "you do not know something you say so plainly.<|im_end|>\n"
)
OPTIONS = ContextOptions(size=384, parallel=4, threads=1)


@pytest.fixture(params=["tiny", *BUILDERS])
def path(request: pytest.FixtureRequest, tiny_path: str, random_model: Callable[[str], str]) -> str:
    """The built-in model, and a random one of each kind of memory: plain, sliding window, recurrent."""
    return tiny_path if request.param == "tiny" else random_model(request.param)


def job(id: int, prompt: str, **changes: Any) -> Generate:
    """A greedy job that can be compared."""
    return ask(id, prompt, logprobs=ALTERNATIVES, **changes)


def one(engine: Engine, prompt: str, **changes: Any) -> Result:
    return answers(engine, job(1, prompt, **changes))[0]


def alone(engine: Engine, prompts: list[str], options: ContextOptions = OPTIONS, **changes: Any) -> list[Result]:
    """The answer to each prompt in a context of its own, where nothing can be shared."""
    results = []
    for prompt in prompts:
        engine.open_context("alone", options)
        results.append(one(engine, prompt, context="alone", **changes))
        engine.close_context("alone")
    return results


@pytest.fixture
def engine(path: str, memory: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    return load("llamacpp", path)


def test_batched_answers_are_those_of_each_alone(engine: LlamaEngine) -> None:
    prompts = [user(question) for question in QUESTIONS]
    expected = alone(engine, prompts)
    engine.open_context("main", OPTIONS)
    together = answers(engine, *(job(i, prompt) for i, prompt in enumerate(prompts)))
    assert_same_answers(engine.facts, together, expected)


@pytest.mark.usefixtures("pooled")
def test_answers_over_a_declared_beginning_are_those_without(path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", path)
    prompts = [SYSTEM + user(question) for question in QUESTIONS]
    expected = alone(engine, prompts)
    facts = engine.open_context("main", replace(OPTIONS, prefixes=(Prefix(text=SYSTEM),)))
    assert facts.prefix_tokens > 30
    results = answers(engine, *(job(i, prompt) for i, prompt in enumerate(prompts)))
    assert_same_answers(engine.facts, results, expected)
    for result in results:
        assert result.begun is not None
        assert result.begun.cached_tokens >= facts.prefix_tokens - 1


@pytest.mark.usefixtures("pooled")
def test_the_cells_of_a_declared_beginning_are_held_once(path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", path)
    facts = engine.open_context("main", replace(OPTIONS, prefixes=(Prefix(text=SYSTEM),)))
    driver = Driver(engine).submit(*(ask(i, SYSTEM + user(q)) for i, q in enumerate(QUESTIONS[:4])))
    driver.run(until=lambda: all(r.count for r in driver.results.values()))
    own = sum(r.begun.prompt_tokens - r.begun.cached_tokens + r.count for r in driver.results.values() if r.begun)
    assert engine.stats().cells_used <= facts.prefix_tokens + own


def test_later_turns_share_the_earlier_ones_and_answer_the_same(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    prompt = user(QUESTIONS[0])
    cached = []
    for question in QUESTIONS[1:4]:
        result = one(engine, prompt, max_tokens=8)
        assert_same_answers(engine.facts, [result], alone(engine, [prompt], max_tokens=8))
        assert result.begun is not None
        cached.append(result.begun.cached_tokens)
        prompt += result.text + "<|im_end|>\n" + user(question)
    if engine.facts.can_share:
        assert cached[1] > 15
        assert cached[2] > cached[1]


@pytest.mark.usefixtures("memory")
def test_two_prompts_with_the_same_beginning_compute_it_once(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """The second waits until the first has computed what both begin with."""
    engine = load("llamacpp", tiny_path)
    beginning = SYSTEM * 2
    prompts = [beginning + user(question) for question in QUESTIONS[:3]]
    expected = alone(engine, prompts)
    engine.open_context("main", OPTIONS)
    results = answers(engine, *(job(i, prompt) for i, prompt in enumerate(prompts)))
    assert_same_answers(engine.facts, results, expected)
    cached = [result.begun.cached_tokens for result in results if result.begun]
    assert cached[0] == 0
    assert min(cached[1:]) > 80


def test_a_job_may_decline_what_is_in_memory(engine: LlamaEngine) -> None:
    engine.open_context("main", OPTIONS)
    prompt = SYSTEM + user(QUESTIONS[0])
    first = one(engine, prompt)
    second = one(engine, prompt, cache=False)
    assert second.begun is not None
    assert second.begun.cached_tokens == 0
    assert_same_answers(engine.facts, [second], [first])


@pytest.mark.usefixtures("pooled")
def test_a_beginning_comes_back_from_disk_and_answers_the_same(
    path: str, tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    options = replace(OPTIONS, prefixes=(Prefix(text=SYSTEM),), state_dir=str(tmp_path), state_key="k1")
    prompt = SYSTEM + user(QUESTIONS[1])
    first = load("llamacpp", path)
    assert not first.open_context("main", options).prefix_restored
    expected = one(first, prompt)
    second = load("llamacpp", path)
    facts = second.open_context("main", options)
    assert facts.prefix_restored
    result = one(second, prompt)
    assert_same_answers(second.facts, [result], [expected])
    assert result.begun is not None
    assert result.begun.cached_tokens >= facts.prefix_tokens - 1
    other = load("llamacpp", path)
    assert not other.open_context("main", replace(options, state_key="k2")).prefix_restored
    assert not other.open_context("quantised", replace(options, kv_k="f32")).prefix_restored


@pytest.mark.usefixtures("pooled")
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "garbage", "swap"])
def test_a_damaged_file_costs_time_and_nothing_else(
    damage: str, tiny_path: str, tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    options = replace(OPTIONS, prefixes=(Prefix(text=SYSTEM),), state_dir=str(tmp_path), state_key="k1")
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", options)
    expected = one(engine, SYSTEM + user("How are you?"))
    (file,) = tmp_path.glob("*.prefix")
    whole = file.read_bytes()
    bad = {
        "cut": whole[: len(whole) // 2],
        "flip": whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:],
        "empty": b"",
        "garbage": random.Random(1).randbytes(4096),
        "swap": whole.replace(b'"k1|', b'"k2|').replace(b"k1", b"k3", 1),
    }[damage]
    file.write_bytes(bad)
    fresh = load("llamacpp", tiny_path)
    assert not fresh.open_context("main", options).prefix_restored
    assert_same_answers(fresh.facts, [one(fresh, SYSTEM + user("How are you?"))], [expected])
    assert file.read_bytes() == whole


@pytest.mark.usefixtures("pooled")
def test_a_state_of_another_shape_is_not_taken(
    tiny_path: str, tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    """Even with the right key and checksum, llama.cpp has the last word."""
    from mullama.engines.llamacpp.cache.prefix_file import PrefixFiles

    tokens = list(range(100, 160))
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    prefixes = engine._contexts["main"].prefixes
    prefixes._files = PrefixFiles(str(tmp_path), "k", most_bytes=2**30)
    for state in (b"", b"\x00" * 64, random.Random(2).randbytes(100_000)):
        prefixes._files.save(tokens, state)
        assert not prefixes.declare([tokens])
        Driver(engine).run()
        assert prefixes.complete
        assert answer(engine, user("Who are you?")).text
        prefixes.declare([])


def test_an_interrupted_prompt_is_computed_again_to_the_same_answer(engine: LlamaEngine) -> None:
    prompts = [SYSTEM + user(question) for question in QUESTIONS]
    expected = alone(engine, prompts)
    engine.open_context("main", OPTIONS)
    driver = Driver(engine).submit(*(job(i, prompt) for i, prompt in enumerate(prompts)))
    native = engine._contexts["main"].native
    for _ in range(30):
        native.stop_decode()
        driver.step()
    assert_same_answers(engine.facts, list(driver.run().values()), expected)


def test_running_out_of_cells_forgets_what_is_idle_and_never_what_runs(engine: LlamaEngine) -> None:
    options = ContextOptions(size=256, parallel=2, threads=1)
    prompts = [f"{i} " * 60 + user(QUESTIONS[i % 5]) for i in range(6)]
    expected = alone(engine, prompts, options)
    engine.open_context("main", options)
    for _ in range(2):
        results = answers(engine, *(job(i, prompt) for i, prompt in enumerate(prompts)))
        assert_same_answers(engine.facts, results, expected)
    assert engine.stats().cells_used <= engine.stats().cells_total


@pytest.mark.usefixtures("memory")
def test_a_seed_gives_the_same_text_beside_others(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """Another rounding may change a draw here and there; random numbers that others share would change all of them."""
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    others = [ask(i, user(q), sampling=sampling(temperature=1.5, seed=i)) for i, q in enumerate(QUESTIONS[:3])]
    texts, equal = set(), 0
    for seed in range(8):
        settings = {"sampling": sampling(temperature=1.2, seed=seed), "max_tokens": 12}
        first = answer(engine, user("Tell me a story."), **settings)
        again = answers(engine, *others, ask(9, user("Tell me a story."), **settings))[-1]
        texts.add(first.text)
        equal += first.text == again.text
    assert len(texts) > 5
    assert equal > 4


@pytest.mark.parametrize("kv", ["f32", "bf16", "q8_0", "q4_0"])
def test_a_cache_of_another_type_answers(kv: str, tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    sizes = {}
    for kind in ("f16", kv):
        facts = engine.open_context("main", replace(OPTIONS, kv_k=kind, kv_v=kind, flash="on"))
        sizes[kind] = facts.kv_bytes
        assert answer(engine, user("How are you?")).text
        engine.close_context("main")
    bits = {"f32": 32, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5}[kv]
    assert sizes[kv] == pytest.approx(sizes["f16"] * bits / 16, rel=0.02)
