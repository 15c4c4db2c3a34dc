"""The contract of the seam: one test for each promise, run with every engine of the table."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from mullama.engines import ENGINES, EXTRAS, find_engine
from mullama.engines.base import ContextOptions, Embed, Engine, Generate, WeightsOptions
from mullama.errors import BadWeights, Conflict, EngineFailed, Invalid, Kind, MullamaError, NotFound, Unsupported
from tests.engines.engine_driver import Driver, answer, answers, ask, sampling, user

OPTIONS = ContextOptions(size=512, parallel=4, threads=1)
SAYING = {"llamacpp": user("How are you?"), "scripted": "count to 40"}  # both answers are clear, see near_tie.py
FILES = {"llamacpp": 1, "scripted": 0}


@pytest.fixture(params=sorted(ENGINES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(name: str, load: Callable[..., Engine], tiny_path: str) -> Engine:
    engine = load(name, *(tiny_path,) * FILES[name])
    engine.open_context("main", OPTIONS)
    return engine


def test_every_engine_of_the_table_has_its_place_in_this_contract() -> None:
    assert set(ENGINES) == set(SAYING) == set(FILES)


def test_an_unknown_engine_is_not_found() -> None:
    with pytest.raises(NotFound, match="nothing"):
        find_engine("nothing")


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "scripted", ("engine", ("json", "no_such_package")))
    with pytest.raises(Unsupported, match=r"scripted is not installed: no package no_such_package ") as raised:
        find_engine("scripted")
    assert "pip install 'mullama[engine]'" in raised.value.hint


def test_an_answer_begins_says_and_ends(engine: Engine, name: str) -> None:
    result = answer(engine, SAYING[name])
    assert result.events[0] == "Begun"
    assert result.events[-1] == "Ended"
    assert result.text
    assert result.ended is not None
    assert result.begun is not None
    assert result.ended.prompt_tokens == result.begun.prompt_tokens > 0
    assert result.ended.completion_tokens == result.count > 0
    assert not engine.busy
    assert engine.step() == []


def test_the_same_prompt_gives_the_same_greedy_answer(engine: Engine, name: str) -> None:
    assert answer(engine, SAYING[name]).text == answer(engine, SAYING[name]).text


def test_an_answer_ends_at_its_limit(engine: Engine, name: str) -> None:
    result = answer(engine, SAYING[name], max_tokens=3)
    assert result.ended is not None
    assert result.ended.reason == "length"
    assert result.ended.completion_tokens == 3


def test_no_token_at_all_can_be_asked_for(engine: Engine, name: str) -> None:
    result = answer(engine, SAYING[name], max_tokens=0)
    assert result.ended is not None
    assert (result.ended.reason, result.ended.completion_tokens, result.text) == ("length", 0, "")


def test_a_stop_string_ends_an_answer_and_is_not_part_of_it(engine: Engine, name: str) -> None:
    whole = answer(engine, SAYING[name]).text
    stop = whole[3:6]
    result = answer(engine, SAYING[name], stop=("never said", stop))
    assert result.ended is not None
    assert (result.ended.reason, result.ended.stop) == ("stop_sequence", stop)
    assert result.text == whole[: whole.index(stop)]


def test_a_cancelled_job_ends_at_the_next_step_and_the_others_go_on(engine: Engine, name: str) -> None:
    driver = Driver(engine).submit(ask(1, SAYING[name]), ask(2, SAYING[name]))
    driver.run(until=lambda: driver.results[1].count > 1)
    engine.cancel(1)
    driver.step()
    ended = driver.results[1].ended
    assert ended is not None
    assert ended.reason == "cancelled"
    results = driver.run()
    assert results[2].ended is not None
    assert results[2].ended.reason != "cancelled"


def test_a_waiting_job_can_be_cancelled(engine: Engine, name: str) -> None:
    driver = Driver(engine).submit(*(ask(i, SAYING[name]) for i in range(9)))
    driver.step()
    engine.cancel(8)
    results = driver.run()
    assert results[8].ended is not None
    assert results[8].ended.reason == "cancelled"
    assert results[8].text == ""
    assert len({results[i].text for i in range(8)}) == 1


def test_cancelling_an_unknown_job_changes_nothing(engine: Engine, name: str) -> None:
    engine.cancel(77)
    assert answer(engine, SAYING[name]).ended is not None


def test_a_prompt_longer_than_the_context_fails_with_both_numbers(engine: Engine) -> None:
    tokens = engine.tokenize("word " * 3000, add_special=False, parse_special=False)
    result = answer(engine, tokens)
    assert result.failed is not None
    assert result.failed.kind is Kind.INVALID
    assert dict(result.failed.numbers) == {"prompt_tokens": len(tokens), "context_size": 512}


def test_an_answer_ends_where_the_context_is_full(engine: Engine, name: str) -> None:
    prompt = "1 " * 160 + SAYING[name] if name == "llamacpp" else "2000 tokens"
    result = answer(engine, prompt, max_tokens=None, ignore_eos=True)
    assert result.ended is not None
    assert result.ended.reason == "length"
    assert result.ended.prompt_tokens + result.ended.completion_tokens == 512


def test_token_ids_out_of_range_fail(engine: Engine) -> None:
    for bad in (-1, engine.facts.vocabulary, 2**40):
        result = answer(engine, (bad,))
        assert result.failed is not None
        assert result.failed.kind is Kind.INVALID
        with pytest.raises(Invalid):
            engine.detokenize((bad,))


def test_an_empty_prompt_of_ids_is_no_crash(engine: Engine) -> None:
    assert answer(engine, ()).done


def test_text_with_a_lone_surrogate_fails(engine: Engine) -> None:
    result = answer(engine, "a\ud800b")
    assert result.failed is not None
    assert result.failed.kind is Kind.INVALID


def test_tokens_are_text_again(engine: Engine) -> None:
    text = "Grüße, 世界! 🙂\n\tdef f(x): return x"
    tokens = engine.tokenize(text, add_special=False, parse_special=False)
    assert engine.detokenize(tokens).decode() == text
    assert b"".join(engine.pieces(tokens)).decode() == text


def test_every_input_gets_a_vector_of_length_one(engine: Engine) -> None:
    job = Embed(
        id=5,
        context="main",
        inputs=("one", "two words", tuple(engine.tokenize("three", add_special=False, parse_special=False))),
    )
    (result,) = answers(engine, job)
    assert result.embedded is not None
    assert len(result.embedded.vectors) == 3
    for vector in result.embedded.vectors:
        assert len(vector) == engine.facts.embedding_length
        assert sum(x * x for x in vector) == pytest.approx(1, abs=1e-4)
    assert result.embedded.tokens > 3


def test_a_job_for_an_unknown_context_fails(engine: Engine, name: str) -> None:
    result = answer(engine, SAYING[name], context="elsewhere")
    assert result.failed is not None
    assert result.failed.kind is Kind.NOT_FOUND


def test_two_contexts_answer_side_by_side(engine: Engine, name: str) -> None:
    engine.open_context("other", OPTIONS)
    jobs = [ask(i, SAYING[name], context="main" if i % 2 else "other") for i in range(6)]
    assert len({result.text for result in answers(engine, *jobs)}) == 1
    assert set(engine.stats().contexts) == {"main", "other"}


def test_a_context_name_is_used_once(engine: Engine) -> None:
    with pytest.raises(Conflict):
        engine.open_context("main", OPTIONS)


def test_closing_a_context_ends_what_runs_in_it_and_twice_does_nothing(engine: Engine, name: str) -> None:
    engine.open_context("other", OPTIONS)
    driver = Driver(engine).submit(ask(1, SAYING[name], context="other"), ask(2, SAYING[name]))
    driver.step()
    engine.close_context("other")
    engine.close_context("other")
    results = driver.run()
    assert results[1].ended is not None
    assert results[1].ended.reason == "cancelled"
    assert results[2].ended is not None
    assert results[2].ended.reason != "cancelled"
    assert engine.stats().contexts == ("main",)


def test_a_closed_context_can_be_opened_again(engine: Engine, name: str) -> None:
    before = answer(engine, SAYING[name]).text
    engine.close_context("main")
    engine.open_context("main", OPTIONS)
    assert answer(engine, SAYING[name]).text == before


def test_closing_an_engine_twice_does_nothing(engine: Engine) -> None:
    engine.close()
    engine.close()
    assert not engine.busy


def test_logprobs_come_with_as_many_alternatives_as_asked(engine: Engine, name: str) -> None:
    result = answer(engine, SAYING[name], logprobs=3, max_tokens=5)
    assert len(result.logprobs) == result.count
    assert "".join(entry.text for entry in result.logprobs) == result.text
    for entry in result.logprobs:
        assert entry.logprob <= 0
        assert len(entry.top) == 3


def test_the_prompt_can_be_echoed(engine: Engine) -> None:
    result = answer(engine, "count to three", echo=True, max_tokens=2)
    assert result.echo == "count to three"
    assert result.count == 2


def test_the_first_token_of_an_echoed_prompt_follows_nothing_and_has_no_logprob(engine: Engine) -> None:
    first, *rest = answer(engine, "count to three", echo=True, logprobs=1, max_tokens=1).echo_logprobs
    assert math.isnan(first.logprob)
    assert first.top == ()
    assert rest
    assert all(entry.logprob <= 0 for entry in rest)


def test_the_tokens_of_prompt_and_answer_can_be_had(engine: Engine) -> None:
    result = answer(engine, "count to three", want_tokens=True, max_tokens=4)
    assert result.ended is not None
    assert engine.detokenize(result.ended.tokens).decode() == "count to three" + result.text


def test_a_step_counts_what_it_did(engine: Engine, name: str) -> None:
    before = engine.stats()
    result = answer(engine, SAYING[name], max_tokens=5)
    after = engine.stats()
    assert after.completion_tokens - before.completion_tokens == 5
    assert result.begun is not None
    assert after.prompt_tokens - before.prompt_tokens == result.begun.prompt_tokens - result.begun.cached_tokens
    assert (after.running, after.waiting, after.sequences_busy) == (0, 0, 0)


def test_weights_that_are_not_there_cannot_be_loaded(name: str) -> None:
    with pytest.raises((BadWeights, EngineFailed)):
        find_engine(name)(("/nowhere/at/all.gguf",), WeightsOptions(), lambda _share: True)


def test_a_load_can_be_stopped(name: str, tiny_path: str) -> None:
    with pytest.raises(MullamaError):
        find_engine(name)((tiny_path,) * FILES[name], WeightsOptions(), lambda _share: False)


def test_settings_that_are_no_numbers_fail(load: Callable[..., Engine], tiny_path: str) -> None:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    for bad in (
        {"temperature": float("nan")},
        {"top_p": float("inf")},
        {"repeat_penalty": 0.0},
        {"logit_bias": ((99999, 1.0),)},
    ):
        result = answer(engine, "hello", sampling=sampling(**bad))
        assert result.failed is not None
        assert result.failed.kind is Kind.INVALID


def test_interrupting_from_outside_never_loses_a_job(engine: Engine, name: str) -> None:
    driver = Driver(engine).submit(*(ask(i, SAYING[name]) for i in range(3)))
    for _ in range(4):
        engine.interrupt()
        driver.step()
    assert len({result.text for result in driver.run().values()}) == 1


def test_prompts_that_come_while_others_are_computed_lose_nothing(engine: Engine, name: str) -> None:
    driver = Driver(engine)
    for id in range(4):
        driver.submit(ask(id, SAYING[name]))
        engine.announce_prompt("main")
        engine.announce_prompt("nowhere")
        driver.step()
    assert len({result.text for result in driver.run().values()}) == 1


def test_declared_beginnings_may_change_on_a_live_context(engine: Engine, name: str) -> None:
    from mullama.engines.base import Prefix

    prefix = "<|im_start|>system\nYou are a careful assistant that answers in few words.<|im_end|>\n"
    before = answer(engine, prefix + SAYING[name]).text
    engine.declare_prefixes("main", (Prefix(text=prefix),))
    Driver(engine).run()
    result = answer(engine, prefix + SAYING[name])
    assert result.text == before
    assert result.begun is not None
    assert result.begun.cached_tokens >= len(engine.tokenize(prefix, add_special=False, parse_special=True)) - 1


def test_details_are_the_ids_of_every_token_and_growing_times(engine: Engine, name: str) -> None:
    plain, detailed = answers(
        engine, ask(1, SAYING[name], want_tokens=True), ask(2, SAYING[name], details=True, want_tokens=True)
    )
    assert plain.details == []
    assert plain.text == detailed.text
    assert detailed.ended is not None
    ids = tuple(token for piece in detailed.details for token in piece.tokens)
    assert ids == detailed.ended.tokens[detailed.ended.prompt_tokens :]
    assert len(ids) == detailed.ended.completion_tokens
    seconds = [piece.decode_seconds for piece in detailed.details]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= detailed.ended.decode_seconds
    assert {piece.prompt_seconds for piece in detailed.details} == {detailed.ended.prompt_seconds}


def test_progress_reaches_the_end_of_the_prompt_if_a_job_wants_it(
    load: Callable[..., Engine], name: str, tiny_path: str
) -> None:
    engine = load(name, *(tiny_path,) * FILES[name])
    engine.open_context("main", ContextOptions(size=512, parallel=4, threads=1, batch=32, ubatch=32))
    long = "count to nine " * 20
    silent, told = (answer(engine, long, cache=False, max_tokens=1, progress=wanted) for wanted in (False, True))
    assert told.begun is not None
    total = told.begun.prompt_tokens
    assert [p.done for p in told.progress][-1] == total
    assert [p.done for p in silent.progress] == [p.done for p in told.progress][:-1]
    assert {p.total for p in told.progress} == {total}
    seconds = [p.seconds for p in told.progress]
    assert seconds == sorted(seconds)
    assert told.events.index("Piece") > told.events.index("Prefilled")
    short = answer(engine, SAYING[name], max_tokens=1, progress=True)
    assert [p.done for p in short.progress] == [short.begun.prompt_tokens if short.begun else 0]


def test_a_job_may_want_the_text_of_its_prompt(engine: Engine, name: str) -> None:
    wanted, plain = answers(engine, ask(1, SAYING[name], want_prompt=True), ask(2, SAYING[name]))
    assert wanted.begun is not None
    assert plain.begun is not None
    assert SAYING[name] in wanted.begun.prompt
    assert plain.begun.prompt == ""


def test_texts_and_ids_form_one_prompt(engine: Engine, name: str) -> None:
    ids = engine.tokenize(SAYING[name], add_special=False, parse_special=True)
    first, rest = engine.detokenize(ids[:2]).decode(), engine.detokenize(ids[3:]).decode()
    mixed, split = answers(
        engine, ask(1, (first, ids[2], rest), want_prompt=True), ask(2, (ids[0], *ids[1:]), want_prompt=True)
    )
    assert mixed.begun is not None
    assert split.begun is not None
    assert mixed.begun.prompt.endswith(SAYING[name])
    assert split.begun.prompt == SAYING[name]
    assert mixed.failed is None
    assert answer(engine, ("a", -1)).failed is not None
    [one, other] = answers(
        engine, Embed(id=1, context="main", inputs=(("a b", ids[2]),)), Embed(id=2, context="main", inputs=("a b",))
    )
    assert one.embedded is not None
    assert other.embedded is not None
    assert one.embedded.tokens == other.embedded.tokens + 1 or name == "scripted"


def test_the_end_counts_the_tokens_in_memory(engine: Engine, name: str) -> None:
    for limit in (1, 4):
        ended = answer(engine, SAYING[name], max_tokens=limit).ended
        assert ended is not None
        assert ended.reason == "length"
        assert ended.held_tokens == ended.prompt_tokens + limit - 1


def test_probabilities_after_sampling_add_up_and_leave_the_choice_alone(
    load: Callable[..., Engine], tiny_path: str
) -> None:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", OPTIONS)
    few = sampling(temperature=1.0, top_k=4, seed=7)
    drawn = answer(engine, SAYING["llamacpp"], sampling=few, logprobs=20, post_sampling=True, max_tokens=6)
    assert len(drawn.logprobs) == 6
    for token in drawn.logprobs:
        chances = {t.id: math.exp(t.logprob) for t in token.top}
        assert 0 < len(chances) <= 4
        assert sum(chances.values()) == pytest.approx(1.0, abs=1e-4)
        assert math.exp(token.logprob) == pytest.approx(chances[token.id])
    own = answer(engine, SAYING["llamacpp"], sampling=few, logprobs=20, max_tokens=1).logprobs[0]
    assert len(own.top) == 20
    certain = answer(engine, SAYING["llamacpp"], logprobs=3, post_sampling=True, max_tokens=2)
    assert [[t.logprob for t in token.top] for token in certain.logprobs] == [[0.0], [0.0]]


@pytest.mark.parametrize(
    "job",
    [
        ask(1, user("Hello"), sampling=sampling(temperature=0.0), max_tokens=4, echo=True),
        ask(1, ("Hello", " you"), sampling=sampling(temperature=0.0), max_tokens=4),
        Embed(id=1, context="vectors", inputs=("Hello there", "x")),
        Embed(id=1, context="vectors", inputs=("one two three " * 400,), truncate=True),
        Embed(id=1, context="vectors", inputs=("x", "one two three " * 400), truncate=False),
    ],
)
def test_a_prepared_job_is_the_same_job(job: Generate | Embed, engine: Engine) -> None:
    engine.open_context("vectors", ContextOptions(size=256, threads=1, embedding=True))
    (plain,), (prepared,) = answers(engine, job), answers(engine, engine.prepare(job))

    assert prepared.text == plain.text
    assert prepared.failed == plain.failed
    if plain.embedded is not None:
        assert prepared.embedded is not None
        assert (prepared.embedded.vectors, prepared.embedded.tokens) == (plain.embedded.vectors, plain.embedded.tokens)
