"""llama-server's own form of answers, against the fields of its sources, in every endpoint that has it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mullama.chat.types import (
    DEFAULT_SAMPLING,
    ChoiceOutcome,
    Completed,
    Constraint,
    Effective,
    Finished,
    Generated,
    PromptProgress,
    ResponseFormat,
    Started,
    StopReason,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
)
from mullama.dialects.openai.usage import timings_of
from mullama.struct import replace
from tests.dialects.wire import HELLO, data, decode, reply, run_of, strict_json

CHAT, TEXT, NATIVE = "/v1/chat/completions", "/v1/completions", "/completion"
BODIES: dict[str, dict[str, Any]] = {CHAT: HELLO, TEXT: {"model": "tiny", "prompt": "Hi"}, NATIVE: {"prompt": "Hi"}}

EFFECTIVE = Effective(
    model="real",
    context_size=100,
    sampling=replace(DEFAULT_SAMPLING, seed=7, temperature=0.5, logit_bias=((5, -math.inf), (6, 1.5))),
    max_tokens=8,
    stop=("END",),
    end_tokens=(2, 3),
)
USAGE = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=3)
SECONDS = Timings(prompt=0.25, decode=0.5)
OUTCOME = ChoiceOutcome(usage=USAGE, timings=SECONDS, held_tokens=12, prompt="<s> Hi", slot=1)
TIMES = {
    "cache_n": 4,
    "prompt_n": 6,
    "prompt_ms": 250.0,
    "prompt_per_token_ms": 250.0 / 6,
    "prompt_per_second": 24.0,
    "predicted_n": 3,
    "predicted_ms": 500.0,
    "predicted_per_token_ms": 250.0,
    "predicted_per_second": 4.0,
}


def generated(text: str, *tokens: int, count: int, choice: int = 0) -> Generated:
    usage = replace(USAGE, completion_tokens=count)
    return Generated(text=text, tokens=tokens, usage=usage, timings=SECONDS, choice=choice)


EVENTS = (
    Started(prompt_tokens=10, cached_tokens=4, effective=EFFECTIVE),
    generated("Hel", 11, count=1),
    TextDelta(text="Hel"),
    generated("lo\n", 12, 13, count=3),
    TextDelta(text="lo\n"),
    Finished(reason=StopReason.LENGTH, outcome=OUTCOME),
    Completed(usage=USAGE, timings=SECONDS),
)


def test_the_whole_answer_has_every_member() -> None:
    answer = reply(NATIVE, {"prompt": "Hi", "return_tokens": True}, EVENTS)

    settings = answer.pop("generation_settings")
    assert answer == {
        "index": 0,
        "content": "Hello\n",
        "tokens": [11, 12, 13],
        "id_slot": 1,
        "stop": True,
        "model": "real",
        "tokens_predicted": 3,
        "tokens_evaluated": 10,
        "prompt": "<s> Hi",
        "has_new_line": True,
        "truncated": False,
        "stop_type": "limit",
        "stopping_word": "",
        "tokens_cached": 12,
        "timings": TIMES,
    }
    assert (settings["seed"], settings["temperature"], settings["top_k"]) == (7, 0.5, 40)
    assert (settings["n_predict"], settings["max_tokens"], settings["stop"]) == (8, 8, ["END"])
    assert settings["logit_bias"] == [{"bias": None, "token": 5}, {"bias": 1.5, "token": 6}]


def test_ids_of_tokens_are_in_every_chunk_and_the_last_has_the_totals() -> None:
    *chunks, last = data(NATIVE, {"prompt": "Hi"}, EVENTS)

    assert chunks == [
        {
            "index": 0, "content": text, "tokens": tokens, "stop": False, "id_slot": -1,
            "tokens_predicted": count, "tokens_evaluated": 10,
        }
        for text, tokens, count in (("Hel", [11], 1), ("lo\n", [12, 13], 3))
    ]  # fmt: skip
    assert (last["content"], last["tokens"], last["stop"], last["has_new_line"]) == ("", [], True, True)
    assert (last["tokens_predicted"], last["tokens_evaluated"], last["tokens_cached"]) == (3, 10, 12)
    assert (last["prompt"], last["timings"]) == ("<s> Hi", TIMES)


def test_tokens_without_a_text_of_their_own_are_not_lost() -> None:
    events = (
        *EVENTS[:1], generated("", 11, count=1), generated("ü", 12, count=2), TextDelta(text="ü"),
        generated("", 13, count=3), *EVENTS[-2:],
    )  # fmt: skip

    chunks = data(NATIVE, {"prompt": "Hi"}, events)

    assert [(c["content"], c["tokens"]) for c in chunks] == [("ü", [11, 12]), ("", [13]), ("", [])]


def test_each_of_several_answers_of_a_stream_has_its_own_end() -> None:
    outcomes = [replace(OUTCOME, slot=slot, usage=replace(USAGE, completion_tokens=slot)) for slot in (1, 2)]
    events = (
        Started(prompt_tokens=10, effective=EFFECTIVE),
        generated("a", 11, count=1),
        TextDelta(text="a"),
        generated("b", 12, count=1, choice=1),
        TextDelta(text="b", choice=1),
        Finished(reason=StopReason.STOP, choice=1, outcome=outcomes[1]),
        Finished(reason=StopReason.LENGTH, outcome=outcomes[0]),
        Completed(usage=USAGE, timings=SECONDS),
    )

    chunks = data(NATIVE, {"prompt": ["a", "b"]}, events)

    pieces = [(c["index"], c["content"], c["tokens"]) for c in chunks if not c["stop"]]
    assert pieces == [(0, "a", [11]), (1, "b", [12])]
    ends = [c for c in chunks if c["stop"]]
    assert [(c["index"], c["id_slot"], c["tokens_predicted"], c["stop_type"]) for c in ends] == [
        (1, 2, 2, "eos"),
        (0, 1, 1, "limit"),
    ]


def test_the_settings_are_complete_and_those_of_the_answer() -> None:
    settings = reply(NATIVE, {"prompt": "Hi", "ignore_eos": True, "n_probs": 3}, EVENTS)["generation_settings"]

    assert list(settings) == [
        "seed", "temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "top_n_sigma",
        "xtc_probability", "xtc_threshold", "typical_p", "repeat_last_n", "repeat_penalty", "presence_penalty",
        "frequency_penalty", "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n",
        "dry_sequence_breakers", "mirostat", "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay",
        "stop", "max_tokens", "n_predict", "n_keep", "n_discard", "ignore_eos", "stream", "logit_bias", "n_probs",
        "min_keep", "grammar", "grammar_lazy", "grammar_triggers", "preserved_tokens", "chat_format",
        "reasoning_format", "reasoning_in_content", "generation_prompt", "samplers", "speculative.types",
        "timings_per_token", "post_sampling_probs", "backend_sampling", "lora",
    ]  # fmt: skip
    assert (settings["ignore_eos"], settings["n_probs"], settings["stream"]) == (True, 3, False)
    assert [bias["token"] for bias in settings["logit_bias"]] == [5, 6, 2, 3]
    assert [bias["bias"] for bias in settings["logit_bias"]] == [None, 1.5, None, None]
    strict_json(settings)


@pytest.mark.parametrize(
    ("sampling", "shown"),
    [
        ({"seed": -1}, {"seed": 4294967295}),
        ({"seed": 2**32 + 4}, {"seed": 5}),
        ({"samplers": ("typical_p", "top_k")}, {"samplers": ["typ_p", "top_k"]}),
        ({}, {"adaptive_target": -1.0, "adaptive_decay": 0.9}),
    ],
)
def test_settings_have_llama_servers_values(sampling: dict[str, Any], shown: dict[str, Any]) -> None:
    effective = replace(EFFECTIVE, sampling=replace(DEFAULT_SAMPLING, **sampling))
    events = (replace(EVENTS[0], effective=effective), *EVENTS[1:])

    settings = reply(NATIVE, {"prompt": "Hi"}, events)["generation_settings"]

    assert {name: settings[name] for name in shown} == shown


def test_a_grammar_is_the_clients_own_or_the_one_that_enforces_its_format() -> None:
    constraint = Constraint(grammar="start: /a/", triggers=("<tool_call>",))
    events = (replace(EVENTS[0], effective=replace(EFFECTIVE, constraint=constraint)), *EVENTS[1:])
    for body, grammar in (({"grammar": 'root ::= "a"'}, 'root ::= "a"'), ({"json_schema": {}}, "start: /a/")):
        settings = reply(NATIVE, {"prompt": "Hi", **body}, events)["generation_settings"]
        assert settings["grammar"] == grammar
        assert settings["grammar_lazy"] is True
        assert settings["grammar_triggers"] == [{"type": 1, "value": "<tool_call>"}]
    assert decode(NATIVE, {"prompt": "a", "json_schema": {}}).format == ResponseFormat(kind="json_schema", schema={})


@pytest.mark.parametrize(
    ("reason", "completion", "truncated"),
    [(StopReason.LENGTH, 90, True), (StopReason.LENGTH, 89, False), (StopReason.STOP, 90, False)],
)
def test_an_answer_that_fills_the_context_is_truncated(reason: StopReason, completion: int, truncated: bool) -> None:
    outcome = replace(OUTCOME, usage=replace(USAGE, completion_tokens=completion))
    events = (*EVENTS[:-2], Finished(reason=reason, outcome=outcome), EVENTS[-1])

    assert reply(NATIVE, {"prompt": "Hi"}, events)["truncated"] is truncated
    assert data(NATIVE, {"prompt": "Hi"}, events)[-1]["truncated"] is truncated


@pytest.mark.parametrize(
    ("paths", "result"),
    [
        (["content", "generation_settings/n_predict", "prompt"],
         {"content": "Hello\n", "generation_settings/n_predict": 8, "prompt": "<s> Hi"}),
        (["nothing", "content/x", "timings/cache_n", ""], {"timings/cache_n": 4}),
        (["generation_settings/logit_bias"],
         {"generation_settings/logit_bias": [{"bias": None, "token": 5}, {"bias": 1.5, "token": 6}]}),
    ],
)  # fmt: skip
def test_response_fields_select_members_by_path(paths: list[str], result: dict[str, Any]) -> None:
    assert reply(NATIVE, {"prompt": "Hi", "response_fields": paths}, EVENTS) == result


def test_response_fields_select_members_of_each_end_and_of_nothing_else() -> None:
    *chunks, last = data(NATIVE, {"prompt": "Hi", "response_fields": ["stop_type", "timings/prompt_n"]}, EVENTS)

    assert last == {"stop_type": "limit", "timings/prompt_n": 6}
    assert all("content" in chunk for chunk in chunks)
    assert "generation_settings" in reply(NATIVE, {"prompt": "Hi", "response_fields": []}, EVENTS)


PROBABLE = TokenLogprob(
    id=5, text="Hi", bytes=b"Hi", logprob=math.log(0.75),
    top=(TokenLogprob(id=5, text="Hi", bytes=b"Hi", logprob=math.log(0.75)),
         TokenLogprob(id=9, text="\ufffd", bytes=b"\xff", logprob=math.log(0.25))),
)  # fmt: skip


def after_sampling(tokens: list[dict[str, Any]]) -> None:
    [token] = tokens
    assert token["prob"] == pytest.approx(0.75)
    assert [(t["id"], t["bytes"]) for t in token["top_probs"]] == [(5, [72, 105]), (9, [255])]
    assert [t["prob"] for t in token["top_probs"]] == pytest.approx([0.75, 0.25])
    assert "logprob" not in token


def test_probabilities_after_sampling_have_their_own_names() -> None:
    events = run_of(TextDelta(text="Hi", logprobs=(PROBABLE,)))
    asked = {"prompt": "a", "n_probs": 2, "post_sampling_probs": True}

    assert decode(NATIVE, asked).post_sampling is True
    after_sampling(reply(NATIVE, asked, events)["completion_probabilities"])
    after_sampling(data(NATIVE, asked, events)[0]["completion_probabilities"])
    before = reply(NATIVE, {"prompt": "a", "n_probs": 2}, events)["completion_probabilities"]
    assert [t["logprob"] for t in before[0]["top_logprobs"]] == [math.log(0.75), math.log(0.25)]


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_openais_endpoints_give_probabilities_after_sampling_in_the_same_form(path: str) -> None:
    events = run_of(TextDelta(text="Hi", logprobs=(PROBABLE,)))
    asked = {**BODIES[path], "n_probs": 2, "post_sampling_probs": True}

    assert decode(path, asked).logprobs == 2
    after_sampling(reply(path, asked, events)["choices"][0]["logprobs"]["content"])
    [streamed] = [c["choices"][0]["logprobs"] for c in data(path, asked, events) if c["choices"][0]["logprobs"]]
    after_sampling(streamed["content"])


PROGRESS = (
    EVENTS[0],
    PromptProgress(done=4, total=10, cached=4),
    PromptProgress(done=8, total=10, cached=4, seconds=0.125),
    PromptProgress(done=10, total=10, cached=4, seconds=0.25),
    *EVENTS[1:],
)


@pytest.mark.parametrize("path", BODIES)
def test_progress_is_reported_from_the_cached_tokens_to_the_end(path: str) -> None:
    chunks = [c for c in data(path, {**BODIES[path], "return_progress": True}, PROGRESS) if "prompt_progress" in c]

    assert [c["prompt_progress"] for c in chunks] == [
        {"total": 10, "cache": 4, "processed": done, "time_ms": ms} for done, ms in ((4, 0), (8, 125), (10, 250))
    ]
    assert all("timings" not in c for c in chunks)
    if path == NATIVE:
        assert all(c["content"] == "" and c["stop"] is False and c["tokens"] == [] for c in chunks)
    else:
        assert all(len(c["choices"]) == 1 and c["choices"][0]["finish_reason"] is None for c in chunks)


@pytest.mark.parametrize("path", BODIES)
def test_nobody_gets_progress_unasked(path: str) -> None:
    assert not decode(path, {**BODIES[path], "return_progress": True}).progress  # not a stream
    assert not decode(path, {**BODIES[path], "stream": True}).progress
    assert all("prompt_progress" not in chunk for chunk in data(path, BODIES[path], PROGRESS))


@pytest.mark.parametrize("path", BODIES)
def test_timings_of_each_token_grow_to_those_of_the_end(path: str) -> None:
    asked = {**BODIES[path], "timings_per_token": True, "return_progress": True}

    timed = [chunk["timings"] for chunk in data(path, asked, PROGRESS) if "timings" in chunk]

    assert [t["prompt_n"] for t in timed] == [0, 4, 6, 6, 6, 6]
    assert [t["prompt_ms"] for t in timed] == [0.0, 125.0, 250.0, 250.0, 250.0, 250.0]
    assert [t["predicted_n"] for t in timed] == [0, 0, 0, 1, 3, 3]
    assert [t["predicted_per_second"] for t in timed] == [0.0, 0.0, 0.0, 0.0, 4.0, 4.0]
    assert timed[-1] == TIMES


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_the_last_chunk_has_the_timings_with_usage_or_without(path: str) -> None:
    plain = data(path, BODIES[path], EVENTS)
    counted = data(path, {**BODIES[path], "stream_options": {"include_usage": True}}, EVENTS)

    assert [("timings" in c) for c in plain] == [False] * (len(plain) - 1) + [True]
    assert plain[-1]["choices"][0]["finish_reason"] == "length"
    assert [("timings" in c) for c in counted] == [False] * (len(counted) - 1) + [True]
    assert (counted[-1]["choices"], counted[-1]["usage"]["completion_tokens"]) == ([], 3)
    assert counted[-1]["timings"] == TIMES


@pytest.mark.parametrize(
    ("tokens", "answers", "per_second", "per_token"),
    [(0, 0, 0.0, 0.0), (1, 1, 0.0, 0.0), (2, 1, 2.0, 500.0), (16, 1, 30.0, 500.0 / 15), (4, 2, 4.0, 250.0)],
)
def test_the_first_token_of_an_answer_costs_no_decode(
    tokens: int, answers: int, per_second: float, per_token: float
) -> None:
    timings = timings_of(Usage(completion_tokens=tokens), Timings(decode=0.5, answers=answers))

    assert timings["predicted_n"] == tokens
    assert timings["predicted_per_second"] == per_second
    assert timings["predicted_per_token_ms"] == per_token


def test_guessed_tokens_are_counted_where_there_are_any() -> None:
    assert "draft_n" not in timings_of(Usage(), Timings())
    drafted = timings_of(Usage(draft_tokens=8, draft_accepted=3), Timings())
    assert (drafted["draft_n"], drafted["draft_n_accepted"]) == (8, 3)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_verbose_adds_the_native_result(path: str) -> None:
    asked = {**BODIES[path], "verbose": True, "return_tokens": True}

    whole = reply(path, asked, EVENTS)["__verbose"]
    assert (whole["prompt"], whole["content"], whole["tokens"]) == ("<s> Hi", "Hello\n", [11, 12, 13])
    assert (whole["has_new_line"], whole["generation_settings"]["seed"]) == (True, 7)
    [streamed] = [chunk["__verbose"] for chunk in data(path, asked, EVENTS) if "__verbose" in chunk]
    assert (streamed["prompt"], streamed["content"], streamed["has_new_line"]) == ("<s> Hi", "", True)
    assert "__verbose" not in reply(path, BODIES[path], EVENTS)
    operation = decode(path, asked)
    assert operation.want_prompt
    assert operation.details
    assert not operation.warnings


def test_responses_report_progress_and_timings_beside_their_events() -> None:
    path, body = "/v1/responses", {"model": "tiny", "input": "Hi"}

    seen = data(path, {**body, "return_progress": True, "timings_per_token": True}, PROGRESS)

    progress = [(e["type"], e["prompt_progress"]["processed"]) for e in seen if "prompt_progress" in e]
    assert progress == [("response.in_progress", done) for done in (4, 8, 10)]
    assert [e["timings"]["predicted_n"] for e in seen if "timings" in e] == [0, 0, 0, 1, 3, 3]
    assert [e["sequence_number"] for e in seen] == list(range(len(seen)))
    plain = data(path, body, PROGRESS)
    assert all("prompt_progress" not in e for e in plain)
    assert [e["type"] for e in plain if "timings" in e] == ["response.incomplete"]
    assert plain[-1]["timings"] == TIMES
