"""The llama.cpp engine: echo, logprobs, filling in, adapters, threads, facts, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mullama.engines.base import Adapter, ContextOptions, Embed, Prefix
from mullama.engines.llamacpp.contention import ProcessorMeter, ProcessorTimes
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.prompt_tokens import prompt_tokens
from mullama.errors import BadWeights, Invalid, Kind, Refused, Unsupported
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answer, answers, ask, sampling, user
from tests.engines.llamacpp import builders
from tests.engines.near_tie import ALTERNATIVES, QUANTISED, assert_same_answers

OPTIONS = ContextOptions(size=512, parallel=4, threads=1)


def one(engine: LlamaEngine, prompt: str, **changes: Any) -> Result:
    """A greedy answer that can be compared with another."""
    return answer(engine, prompt, logprobs=ALTERNATIVES, **changes)


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    return engine


def test_the_lines_of_the_native_log_are_sent_of_loads_of_contexts_and_of_failures(
    tiny_path: str, load: Callable[..., LlamaEngine], tmp_path: Path
) -> None:
    lines: list[str] = []
    engine = load("llamacpp", tiny_path, log=lines.append)
    assert any("llama_model_loader: loaded meta data" in line for line in lines)
    lines.clear()
    engine.open_context("main", OPTIONS)
    assert any("KV buffer size" in line for line in lines)

    (tmp_path / "broken.gguf").write_bytes(Path(tiny_path).read_bytes()[:5000])
    lines.clear()
    with pytest.raises(BadWeights):
        load("llamacpp", str(tmp_path / "broken.gguf"), log=lines.append)
    assert any("error loading model" in line for line in lines)
    lines.clear()
    load("llamacpp", tiny_path)
    assert lines == []


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
    tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    file = random_model("adapter")
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


def test_an_adapter_file_that_was_replaced_is_loaded_again(
    tiny_path: str, tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    file, prompt = tmp_path / "adapter.gguf", user("How are you?")

    def options(digest: str) -> ContextOptions:
        return replace(OPTIONS, adapters=(Adapter(path=str(file), digest=digest, scale=2.0),))

    found = {}
    for digest, seed in (("a", 3), ("b", 4)):
        builders.adapter(file, seed=seed)
        engine = load("llamacpp", tiny_path)
        engine.open_context(digest, options(digest))
        found[digest] = one(engine, prompt, context=digest)
    assert found["a"].text != found["b"].text
    builders.adapter(file, seed=3)
    engine.open_context("a", options("a"))  # beside the context that still uses the file as it was
    assert_same_answers(engine.facts, [one(engine, prompt, context="a")], [found["a"]])
    assert_same_answers(engine.facts, [one(engine, prompt, context="b")], [found["b"]])


@pytest.mark.usefixtures("pooled")
def test_a_beginning_computed_with_another_scale_is_not_used_again(
    tiny_path: str, random_model: Callable[[str], str], tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    system = "<|im_start|>system\nYou are a careful assistant that answers in a few plain words.<|im_end|>\n"
    options = replace(
        OPTIONS,
        adapters=(Adapter(path=random_model("adapter"), scale=1.5),),
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


@pytest.mark.usefixtures("memory")
def test_requests_with_other_scales_are_decoded_apart_and_share_nothing(
    tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    file, prompt = random_model("adapter"), user("How are you? " * 12)
    alone = load("llamacpp", tiny_path)
    wanted = []
    for number, scale in enumerate((0.0, 1.0, 2.0)):
        alone.open_context(f"c{number}", replace(OPTIONS, adapters=(Adapter(path=file, scale=scale),)))
        wanted.append(one(alone, prompt, context=f"c{number}"))
    assert len({result.text for result in wanted}) == 3
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", replace(OPTIONS, adapters=(Adapter(path=file, scale=1.0),)))
    for _ in range(2):  # the second time, what the first one left in memory is there to be shared
        sets: tuple[tuple[float, ...] | None, ...] = ((0.0,), None, (2.0,))
        found = answers(
            engine, *(ask(n, prompt, scales=scales, logprobs=ALTERNATIVES) for n, scales in enumerate(sets))
        )
        assert_same_answers(engine.facts, found, wanted)
    before = engine.stats().cached_tokens
    assert before >= 3 * 16
    answer(engine, prompt, scales=(3.0,))
    assert engine.stats().cached_tokens == before


def test_a_wrong_number_of_scales_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(Invalid, match="1 scales for 0 adapters"):
        engine.retune_context("main", threads=1, scales=(1.0,))
    failed = answer(engine, "a", scales=(1.0,)).failed
    assert failed is not None
    assert failed.message == "1 scales for 0 adapters"


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


def test_a_prompt_of_control_tokens_ends_like_any_other(engine: LlamaEngine) -> None:
    result = answer(engine, "<|im_end|><|endoftext|><|im_start|>", max_tokens=4)
    assert result.ended is not None


def test_a_penalty_counts_the_prompt(engine: LlamaEngine) -> None:
    plain = answer(engine, user("How are you?"), max_tokens=12).text
    heavy = sampling(temperature=0.0, repeat_penalty=5.0, repeat_last_n=-1)
    assert answer(engine, user("How are you?"), sampling=heavy, max_tokens=12).text != plain


@pytest.mark.parametrize(("declared", "beside", "alone"), [(0, 1, 4), (3, 3, 3)])
def test_threads_follow_the_use_of_the_processor_unless_the_manifest_sets_them(
    declared: int, beside: int, alone: int, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.engines.llamacpp.engine.usable_cores", lambda: 4)
    busy = [40.0]
    read = partial(ProcessorTimes, busy=0.0, polite=0.0, own=0.0, delayed=0.0)
    engine._meter = ProcessorMeter(4, lambda at: read(at=at), lambda: busy[0], 4)
    engine.open_context("auto", ContextOptions(size=512, threads=declared))
    native = engine._contexts["auto"].native

    assert answer(engine, user("Who are you?"), context="auto", max_tokens=2).ended is not None
    assert native.threads == (beside, beside)
    assert bool(engine.remark)
    busy[0], engine._meter._due, engine._meter._times = 1.0, 0.0, None
    assert answer(engine, user("Who are you?"), context="auto", max_tokens=2).ended is not None
    assert native.threads == (alone, alone)
    assert engine.remark == ""


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
