"""What one answer may ask for beyond its text: echo, logprobs, filling in, stop by id, adapters, cells."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mullama.engines.base import Adapter, ContextOptions, Embed, Ended, Piece, Prefix
from mullama.engines.llamacpp.batcher import Pace
from mullama.engines.llamacpp.binding.context import DECODED, NativeBatch
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.prompt_tokens import prompt_tokens
from mullama.engines.llamacpp.text_stream import Detokenizer
from mullama.errors import BadWeights, EngineFailed, Invalid, Kind, Refused, Unsupported
from tests.engines.engine_driver import Driver, Result, answer, answers, ask, sampling, user
from tests.engines.llamacpp import builders
from tests.engines.near_tie import ALTERNATIVES, QUANTISED, assert_same_answers

OPTIONS = ContextOptions(size=512, parallel=4, threads=1)


@pytest.fixture
def paced(tiny_path: str, load: Callable[..., LlamaEngine]) -> Callable[..., LlamaEngine]:
    """An engine whose contexts have a pace with these settings."""

    def make(**settings: float) -> LlamaEngine:
        engine = load("llamacpp", tiny_path, pace=lambda: Pace(**settings))
        engine.open_context("main", OPTIONS)
        return engine

    return make


def one(engine: LlamaEngine, prompt: str, **changes: Any) -> Result:
    """A greedy answer that can be compared with another."""
    return answer(engine, prompt, logprobs=ALTERNATIVES, **changes)


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    return engine


def test_the_logprobs_of_an_echoed_prompt_are_those_of_generating_it(engine: LlamaEngine) -> None:
    """Scoring text and writing it agree: what was written with some logprobs has them when it is scored."""
    written = answer(engine, user("Who are you?"), logprobs=1, max_tokens=8)
    scored = answer(engine, user("Who are you?") + written.text, logprobs=1, echo=True, max_tokens=0)
    assert scored.echo == user("Who are you?") + written.text
    assert scored.text == ""
    assert scored.ended is not None
    assert len(scored.echo_logprobs) == scored.ended.prompt_tokens
    tail = scored.echo_logprobs[-len(written.logprobs) :]
    assert [entry.id for entry in tail] == [entry.id for entry in written.logprobs]
    for entry, other in zip(tail, written.logprobs, strict=True):
        assert entry.logprob == pytest.approx(other.logprob, abs=QUANTISED)


def test_the_next_step_is_fast_only_while_all_answer(paced: Callable[..., LlamaEngine]) -> None:
    engine = paced(longest=math.inf)  # the result depends on no speed
    assert not engine.next_step_is_fast
    engine.submit(ask(1, user("Count from 1 to 20."), max_tokens=60))
    assert not engine.next_step_is_fast, "a prompt is to be computed"
    while not any(isinstance(output, Piece) for output in engine.step()):
        pass
    engine.step()
    assert engine.next_step_is_fast
    engine.submit(ask(2, user("Who are you?"), max_tokens=4))
    assert not engine.next_step_is_fast, "another prompt is to be computed"
    while any(not isinstance(output, Ended) for output in engine.step()) or engine.busy:
        pass
    assert not engine.next_step_is_fast


def test_a_burst_is_awaited_until_it_may_be_complete(paced: Callable[..., LlamaEngine]) -> None:
    """Prompts that have just come wait a moment for others, as long as there is room for them; one alone does not."""
    engine = paced(wait_share=math.inf, longest=3600.0)
    assert engine.batch_delay == 0.0
    answer(engine, user("Count from 1 to 20, and then from 20 to 1, and then once more."), max_tokens=2)
    for id in range(OPTIONS.parallel):
        assert engine.batch_delay == 0.0 if id < 2 else engine.batch_delay > 3000.0
        engine.submit(ask(id, user("Who are you?"), max_tokens=4))
    assert engine.batch_delay == 0.0, "no other could take part"
    engine.step()
    assert engine.batch_delay == 0.0, "all have begun"


def test_nothing_that_answers_is_held_for_prompts_to_come(paced: Callable[..., LlamaEngine]) -> None:
    engine = paced(wait_share=math.inf, longest=3600.0)
    driver = Driver(engine).submit(ask(1, user("Who are you?"), max_tokens=9))
    while not driver.results[1].text:
        driver.step()
    driver.submit(ask(2, user("How are you?"), max_tokens=2), ask(3, user("Where are you?"), max_tokens=2))
    assert engine.batch_delay == 0.0
    driver.run()


def test_what_is_in_memory_does_not_count_for_the_wait(paced: Callable[..., LlamaEngine]) -> None:
    engine = paced(wait_share=1e6, longest=math.inf)
    said = user("Count from 1 to 20, and then from 20 to 1, and then once more.")
    answer(engine, said, max_tokens=2)
    waits = []
    for id, prompt in enumerate((said, user("What can you tell me about the capital of France and its mayor?"))):
        engine.submit(ask(2 * id, prompt, max_tokens=1))
        engine.submit(ask(2 * id + 1, prompt, max_tokens=1))
        waits.append(engine.batch_delay)
        while engine.busy:
            engine.step()
    assert 0 < waits[0] < waits[1] / 3


def test_a_decode_that_has_just_begun_is_given_up_for_another_prompt(
    paced: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two are computed together then, and say what they say alone."""
    engine = paced(restart_share=math.inf, longest=3600.0)
    prompts = [user("Who are you?"), user("Count from 1 to 20, and then from 20 to 1, and then once more.")]
    alone = [one(engine, prompt, max_tokens=6, cache=False) for prompt in prompts]
    native, sizes, driver = engine._contexts["main"].native, [], Driver(engine)
    decode = native.decode

    def decode_while_another_comes(batch: NativeBatch) -> int:
        sizes.append(batch.count)
        if len(sizes) == 1:
            engine.announce_prompt("main")
            engine.announce_prompt("another context")
            driver.submit(ask(2, prompts[1], max_tokens=6, cache=False, logprobs=ALTERNATIVES))
        return decode(batch)

    monkeypatch.setattr(native, "decode", decode_while_another_comes)
    driver.submit(ask(1, prompts[0], max_tokens=6, cache=False, logprobs=ALTERNATIVES)).run()

    assert_same_answers(engine.facts, [driver.results[id] for id in (1, 2)], alone)
    assert sizes[1] > sizes[0], "the second decode takes both"
    assert [driver.results[id].ended.prompt_tokens for id in (1, 2)] == [sizes[0], sizes[1] - sizes[0]]


@pytest.mark.parametrize("why", ["old", "answering", "full"])
def test_no_other_decode_is_given_up_for_a_prompt(
    paced: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    engine = paced(restart_share=0.0 if why == "old" else math.inf, longest=3600.0)
    answer(engine, user("Count from 1 to 20, and then from 20 to 1, and then once more."), max_tokens=2)
    assert engine._contexts["main"]._pace.restart_window(16) > 0 or why == "old"
    driver = Driver(engine)
    if why == "answering":
        driver.submit(ask(9, user("Who are you?"), max_tokens=40))
        while not driver.results[9].text:
            driver.step()
    native, statuses = engine._contexts["main"].native, list[int]()
    decode = native.decode

    def decode_while_another_comes(batch: NativeBatch) -> int:
        engine.announce_prompt("main")
        statuses.append(decode(batch))
        return statuses[-1]

    monkeypatch.setattr(native, "decode", decode_while_another_comes)
    for id in range(OPTIONS.parallel if why == "full" else 1):
        driver.submit(ask(id, user("How are you?"), max_tokens=2, cache=False))
    driver.run()
    assert set(statuses) == {DECODED}


def test_a_long_echoed_prompt_is_scored_whole(engine: LlamaEngine) -> None:
    prompt = "the cat sat on the mat. " * 30
    result = answer(engine, prompt, logprobs=0, echo=True, max_tokens=0)
    assert result.echo == prompt
    assert result.ended is not None
    assert len(result.echo_logprobs) == result.ended.prompt_tokens > 100
    assert all(math.isfinite(entry.logprob) for entry in result.echo_logprobs[1:])


def test_logprobs_of_a_greedy_answer_are_the_best_ones(engine: LlamaEngine) -> None:
    result = answer(engine, user("How are you?"), logprobs=4)
    for entry in result.logprobs:
        assert entry.top[0].id == entry.id
        assert [t.logprob for t in entry.top] == sorted((t.logprob for t in entry.top), reverse=True)
        assert sum(math.exp(t.logprob) for t in entry.top) <= 1.0001


def test_ignoring_the_end_goes_on_to_the_limit(engine: LlamaEngine) -> None:
    result = answer(engine, user("How are you?"), ignore_eos=True, max_tokens=60)
    assert result.ended is not None
    assert result.ended.reason == "length"
    assert result.ended.completion_tokens == 60


def test_the_middle_is_filled_in_between_prefix_and_suffix(engine: LlamaEngine) -> None:
    result = answer(engine, "def add(a, b):\n    return ", suffix="\n\nprint(add(1, 2))", want_tokens=True)
    assert result.ended is not None
    names = [
        engine.tokenize(f"<|fim_{n}|>", add_special=False, parse_special=True)[0]
        for n in ("prefix", "suffix", "middle")
    ]
    places = [result.ended.tokens.index(token) for token in names]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[2] == result.ended.prompt_tokens - 1


def test_control_tokens_in_a_suffix_are_only_text(engine: LlamaEngine) -> None:
    result = answer(engine, "a", suffix="<|im_end|>", want_tokens=True, max_tokens=1)
    end = engine.tokenize("<|im_end|>", add_special=False, parse_special=True)[0]
    assert result.ended is not None
    assert end not in result.ended.tokens[: result.ended.prompt_tokens]


def test_a_model_without_those_tokens_refuses_a_suffix(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    engine._vocabulary.fim_middle = -1
    with pytest.raises(Unsupported, match="fill in"):
        prompt_tokens(ask(1, "a", suffix="b"), engine._vocabulary, 100)


def test_too_many_stop_strings_fail(engine: LlamaEngine) -> None:
    result = answer(engine, "a", stop=tuple(str(i) for i in range(100)))
    assert result.failed is not None
    assert result.failed.kind is Kind.INVALID


def test_a_text_context_gives_vectors_when_asked(engine: LlamaEngine) -> None:
    (result,) = answers(engine, Embed(id=1, context="main", inputs=("a b", "c")))
    assert result.embedded is not None
    assert len(result.embedded.vectors) == 2
    assert answer(engine, user("Hi")).text


def test_a_vector_context_refuses_text(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(OPTIONS, embedding=True))
    result = answer(engine, "a")
    assert result.failed is not None
    assert "vectors" in result.failed.message


def test_an_adapter_changes_answers_by_its_scale(
    tiny_path: str, made: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    file = made("adapter")
    engine = load("llamacpp", tiny_path)
    engine.open_context("plain", OPTIONS)
    engine.open_context("zero", replace(OPTIONS, adapters=(Adapter(path=file, scale=0.0),)))
    engine.open_context("full", replace(OPTIONS, adapters=(Adapter(path=file, scale=2.0),)))
    prompt = user("How are you?")
    plain, zero, full = (one(engine, prompt, context=name) for name in ("plain", "zero", "full"))
    assert zero.text == plain.text
    assert full.text != plain.text
    engine.retune_context("full", threads=1, scales=(0.0,))
    assert one(engine, prompt, context="full").text == plain.text
    engine.retune_context("full", threads=1, scales=(2.0,))
    assert_same_answers(engine.facts, [one(engine, prompt, context="full")], [full])


@pytest.mark.usefixtures("pooled")
def test_a_beginning_computed_with_another_scale_is_not_used_again(
    tiny_path: str, made: Callable[[str], str], tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    system = "<|im_start|>system\nYou are a careful assistant that answers in a few plain words.<|im_end|>\n"
    options = replace(
        OPTIONS,
        adapters=(Adapter(path=made("adapter"), scale=1.5),),
        prefixes=(Prefix(text=system),),
        state_dir=str(tmp_path / "states"),
        state_key="k",
    )
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", options)
    full = one(engine, system + user("How are you?"))
    engine.retune_context("main", threads=1, scales=(0.0,))
    Driver(engine).run()
    engine.open_context("plain", OPTIONS)
    plain = answer(engine, system + user("How are you?"), context="plain").text
    assert answer(engine, system + user("How are you?")).text == plain != full.text
    fresh = load("llamacpp", tiny_path)
    assert fresh.open_context("main", options).prefix_restored
    assert_same_answers(fresh.facts, [one(fresh, system + user("How are you?"))], [full])


def test_a_wrong_number_of_scales_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(Invalid, match="1 scales for 0 adapters"):
        engine.retune_context("main", threads=1, scales=(1.0,))


def test_a_file_that_is_no_adapter_is_refused(engine: LlamaEngine, tmp_path: Path, tiny_path: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no adapter")
    for path in (str(tmp_path / "bad.gguf"), tiny_path, "/nowhere.gguf"):
        with pytest.raises(BadWeights, match="adapter"):
            engine.open_context("other", replace(OPTIONS, adapters=(Adapter(path=path),)))
    assert engine.stats().contexts == ("main",)


def test_threads_change_on_a_live_context(engine: LlamaEngine) -> None:
    before = answer(engine, user("How are you?")).text
    engine.retune_context("main", threads=2, scales=())
    assert answer(engine, user("How are you?")).text == before


def test_a_context_that_cannot_be_is_refused_with_the_reason(engine: LlamaEngine) -> None:
    with pytest.raises(Refused, match=r"flash|V cache"):
        engine.open_context("other", replace(OPTIONS, kv_v="q8_0", flash="off"))
    with pytest.raises(Refused, match="parallel"):
        engine.open_context("other", replace(OPTIONS, parallel=300))
    assert engine.stats().contexts == ("main",)
    assert answer(engine, user("Hi")).text


def test_weights_are_told_as_they_are(engine: LlamaEngine) -> None:
    facts = engine.facts
    assert facts.layers == 7
    assert facts.embedding_length == 256
    assert facts.parameters == 5_607_168
    assert facts.weights_bytes == pytest.approx(5_968_896, rel=0.01)
    assert facts.template.startswith("{%-")
    assert {engine.detokenize((t,)) for t in facts.end_tokens} == {b"<|endoftext|>", b"<|im_end|>"}


def test_a_broken_file_says_why_it_cannot_be_loaded(tmp_path: Path, load: Callable[..., LlamaEngine]) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\x00" * 100)
    with pytest.raises(BadWeights, match=r"bad\.gguf"):
        load("llamacpp", str(tmp_path / "bad.gguf"))


def test_weights_in_parts_are_loaded_in_order(tmp_path: Path, tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """The parts may have any name, as in a store that names files by their digest."""
    builders.split(Path(tiny_path), [tmp_path / "aaa", tmp_path / "zzz"])
    whole, parts = load("llamacpp", tiny_path), load("llamacpp", str(tmp_path / "aaa"), str(tmp_path / "zzz"))
    for engine in (whole, parts):
        engine.open_context("main", OPTIONS)
    assert answer(whole, user("How are you?")).text == answer(parts, user("How are you?")).text


def test_undecodable_octets_cost_linear_time() -> None:
    """Tokens that never form a character are held back once each, and come out as replacement characters."""

    def run(count: int) -> float:
        stream = Detokenizer(("never",))
        started = time.process_time()
        for _ in range(count):
            stream.add(b"\xf0\x9f")
            stream.take()
        stream.finish()
        return time.process_time() - started

    run(1000)
    short, long = (min(run(count) for _ in range(5)) for count in (8_000, 80_000))  # the least disturbed of some
    assert long < 40 * max(short, 0.001)


def test_a_prompt_of_control_tokens_ends_like_any_other(engine: LlamaEngine) -> None:
    result = answer(engine, "<|im_end|><|endoftext|><|im_start|>", max_tokens=4)
    assert result.ended is not None


def test_a_penalty_counts_the_prompt(engine: LlamaEngine) -> None:
    plain = answer(engine, user("How are you?"), max_tokens=12).text
    heavy = sampling(temperature=0.0, repeat_penalty=5.0, repeat_last_n=-1)
    assert answer(engine, user("How are you?"), sampling=heavy, max_tokens=12).text != plain


def test_a_long_prompt_never_stalls_a_running_answer(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """While a long prompt is computed, the running answer says something in every step."""
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(OPTIONS, size=1024))
    driver = Driver(engine).submit(ask(1, user("Say something."), ignore_eos=True, max_tokens=400))
    driver.run(until=lambda: driver.results[1].count > 3)
    driver.submit(ask(2, "word " * 700, max_tokens=1))
    steps = 0
    while not driver.results[2].done:
        before = driver.results[1].count
        driver.step()
        steps += 1
        assert driver.results[1].count == before + 1
    assert steps >= 2
    assert [p.done for p in driver.results[2].progress] == sorted(p.done for p in driver.results[2].progress)


def test_several_choices_of_one_prompt_compute_it_once(engine: LlamaEngine) -> None:
    """The jobs of one request come together; the prompt is computed by the first, shared by the others."""
    prompt = "the cat sat on the mat. " * 20 + user("Tell me a story.")
    jobs = [ask(i, prompt, sampling=sampling(temperature=1.0, seed=i)) for i in range(4)]
    results = answers(engine, *jobs)
    total = results[0].begun
    assert total is not None
    computed = [r.begun.prompt_tokens - r.begun.cached_tokens for r in results if r.begun]
    assert computed == [total.prompt_tokens, 1, 1, 1]
    assert len({result.text for result in results}) > 1


def test_a_decode_that_fails_ends_its_requests_and_no_others(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = engine._contexts["main"].native
    good = native.decode

    def fails(batch: object) -> int:
        raise EngineFailed("llama_decode failed with -3")

    driver = Driver(engine).submit(ask(1, user("How are you?")))
    driver.step()
    monkeypatch.setattr(native, "decode", fails)
    driver.step()
    failed = driver.results[1].failed
    assert failed is not None
    assert failed.kind is Kind.UNAVAILABLE
    monkeypatch.setattr(native, "decode", good)
    assert answer(engine, user("How are you?")).text


def test_an_interrupt_ends_a_decode_that_computes_a_prompt(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    """From another thread, while the native code runs; the work is done again, and the other answers lose nothing."""
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(OPTIONS, size=1024))
    context = engine._contexts["main"]
    prompt = "the cat sat on the mat. " * 80 + user("How are you?")
    expected = answer(engine, prompt, max_tokens=5, cache=False).text
    aborted = []

    def interrupt() -> None:
        while not aborted:
            if context._interruptible:
                engine.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        driver, tries = Driver(engine), 0
        while not aborted and tries < 200:  # the other thread may get no turn while a prompt is computed
            tries += 1
            driver.submit(ask(tries, prompt, max_tokens=5, cache=False))
            while not aborted and not driver.results[tries].done:
                driver.step()
                if context._aborted:
                    aborted.append(True)
    finally:
        aborted.append(False)
        thread.join()
    assert aborted[0], "no decode was interrupted"
    engine.interrupt()
    assert driver.run()[tries].text == expected


def test_threads_follow_the_part_of_the_cores_that_is_left(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of four cores stay two while another computes, and are one beside three others; then two again."""
    monkeypatch.setattr("mullama.engines.llamacpp.engine.usable_cores", lambda: 4)
    engine.open_context("wide", ContextOptions(size=512, threads=2))
    native = engine._contexts["wide"].native
    seen = []
    for rank, of in ((0, 2), (3, 4), (0, 1)):
        engine.share_cores(rank, of)
        seen.append(native.threads)
        assert answer(engine, user("Who are you?"), context="wide", max_tokens=2).ended is not None
    assert seen == [(2, 2), (1, 1), (2, 2)]
