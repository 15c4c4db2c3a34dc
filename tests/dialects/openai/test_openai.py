"""OpenAI's own corners: settings, message forms, completions, models."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mullama.chat.inventory import Inventory, ModelCard, ShowModel
from mullama.chat.types import (
    ChoiceOutcome,
    Completed,
    Finished,
    PromptProgress,
    PromptText,
    ResponseFormat,
    Sampling,
    StopReason,
    TextDelta,
    ThinkingDelta,
    Timings,
    TokenLogprob,
    Usage,
)
from mullama.dialects.base import WireRequest
from mullama.errors import Invalid, MullamaError, TooLarge, Unsupported
from mullama.struct import replace
from tests.dialects.wire import (
    CALL_EVENTS,
    CALLED,
    HELLO,
    STOPPED,
    TIMINGS,
    USAGE,
    WEATHER,
    data,
    decode,
    encode,
    endpoint,
    reply,
    route,
    run_of,
    strict_json,
)

CHAT = "/v1/chat/completions"


def chat(**more: Any) -> Any:
    return decode(CHAT, {**HELLO, **more})


def user(content: Any) -> Any:
    return decode(CHAT, {"model": "m", "messages": [{"role": "user", "content": content}]}).messages[0]


def test_nothing_said_is_nothing_decided() -> None:
    operation = chat(temperature=None, stop=None, tools=None, response_format=None, n=None, stream=None)

    assert operation.sampling == Sampling()
    assert (operation.stop, operation.n, operation.stream, operation.logprobs, operation.format) == (
        (),
        1,
        False,
        None,
        None,
    )


def test_options_stand_behind_what_is_said_outside_of_them() -> None:
    operation = chat(temperature=0.1, options={"temperature": 0.9, "top_k": 3, "num_predict": 7, "stop": ["x"]})

    assert operation.sampling == Sampling(temperature=0.1, top_k=3)
    assert (operation.max_tokens, operation.stop) == (7, ("x",))


@pytest.mark.parametrize(
    ("more", "form"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, ResponseFormat(kind="json")),
        (
            {"response_format": {"type": "json_object", "schema": WEATHER}},
            ResponseFormat(kind="json_schema", schema=WEATHER),
        ),
        ({"json_schema": WEATHER}, ResponseFormat(kind="json_schema", schema=WEATHER)),
        ({"grammar": 'root ::= "a"'}, ResponseFormat(kind="gbnf", grammar='root ::= "a"')),
    ],
)
def test_formats_in_all_their_places(more: Any, form: ResponseFormat | None) -> None:
    assert chat(**more).format == form


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"grammar": "x", "response_format": {"type": "json_object"}}, "exclude each other"),
        ({"n": 0}, "n must be an integer between 1 and 8"),
        ({"n": 9}, "n must be an integer between 1 and 8"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"lora": [{"id": 0}]}, r"lora\[0\]\.scale is required"),
        ({"lora": [{"id": -1, "scale": 1}]}, r"lora\[0\]\.id must be"),
        ({"lora": {"id": 0, "scale": 1}}, "lora must be a list"),
        (
            {
                "continue_final_message": True,
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}, "id": "c"}]}
                ],
            },
            "tool calls cannot be continued",
        ),
        ({"reasoning_format": "odd"}, "reasoning_format"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\]\.name is required"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}] * 257}, "at most 256 items"),
        ({"messages": [{"role": "user", "content": "x"}] * 4097}, "at most 4096 items"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "one of system"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\]\.content"),
        ({"messages": "hello"}, "messages must be a list"),
        ({"stream": "yes"}, "stream must be true or false"),
        ({"stream_options": []}, "stream_options"),
        ({"modalities": ["text", "audio"]}, "answers are not spoken"),
        ({"modalities": "text"}, "modalities must be a list"),
        ({"function_call": {"name": "x"}, "functions": [{"name": "y"}]}, "not among the tools"),
    ],
)
def test_what_is_wrong_is_refused_by_name(more: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        chat(**more)


def test_what_has_no_effect_is_said_in_a_warning() -> None:
    operation = chat(prediction={"type": "content"}, id_slot=3, tools=[{"type": "web_search"}, {"type": "custom"}])

    assert [warning.partition(":")[0] for warning in operation.warnings] == [
        "prediction",
        "id_slot",
        "tools[0] of type web_search was left out",
        "tools[1] of type custom was left out",
    ]


def test_content_parts_are_understood_and_what_cannot_be_is_refused() -> None:
    parts = [
        {"type": "text", "text": "a"},
        {"type": "refusal", "refusal": "b"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRgAAAABXQVZF", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:image/gif;base64,R0lGODlh"}},
    ]

    assert user(parts).text == "a\nb"
    assert [(p.kind, p.data) for p in user(parts).content[2:]] == [
        ("image", b"\0\0\0"),
        ("audio", b"RIFF\0\0\0\0WAVE"),
        ("image", b"GIF89a"),
    ]
    for part, name in (
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, "input_audio.data"),
        ({"type": "input_audio"}, "input_audio is required"),
        ({"type": "input_audio", "input_audio": {"data": "iVBORw0KGgo="}}, "a sound, not image"),
        ({"type": "file", "file": {}}, "file_data is required"),
    ):
        with pytest.raises(Invalid, match=name):
            user([part])
    with pytest.raises(Unsupported, match="is no image and no sound"):
        user([{"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0x", "filename": "a.pdf"}}])
    with pytest.raises(Invalid, match="type"):
        user([{"type": "hologram"}])


def test_content_may_be_missing_null_or_empty() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "b"},
    ]

    assert [m.content for m in decode(CHAT, {"model": "m", "messages": turns}).messages[1:4]] == [()] * 3


def test_old_functions_and_their_results_are_calls_and_results() -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city":"x"}'}},
        {"role": "function", "name": "weather", "content": "sunny"},
    ]

    messages = decode(CHAT, {"model": "m", "messages": turns}).messages

    assert messages[1].tool_calls[0].arguments == {"city": "x"}
    assert (messages[2].role, messages[2].tool_name) == ("tool", "weather")
    assert messages[2].tool_call_id == messages[1].tool_calls[0].id


def test_old_functions_are_answered_with_function_call() -> None:
    body = {**HELLO, "functions": [{"name": "weather"}], "function_call": "auto"}

    whole = reply(CHAT, body, run_of(*CALL_EVENTS, end=CALLED))["choices"][0]

    assert whole["finish_reason"] == "function_call"
    assert whole["message"]["function_call"]["name"] == "weather"
    assert "tool_calls" not in whole["message"]


USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}


@pytest.mark.parametrize(
    ("messages", "more", "field"),
    [
        ([USER, SAID], {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ([USER], {"continue_final_message": True}, "continue_final_message"),
        ([USER, SAID, SAID], {}, "messages[2]"),
        ([SAID, SAID], {"continue_final_message": True, "add_generation_prompt": False}, "messages[1]"),
    ],
)
def test_contradictory_wishes_about_the_last_message_are_refused(messages: Any, more: Any, field: str) -> None:
    for path in (CHAT, "/apply-template", "/v1/chat/completions/input_tokens"):
        with pytest.raises(Invalid) as caught:
            decode(path, {"model": "m", "messages": messages, **more})
        assert caught.value.field == field


def test_two_answers_in_the_middle_or_left_alone_are_accepted() -> None:
    assert decode(CHAT, {"model": "m", "messages": [USER, SAID, SAID, USER]}).continue_final is False
    left = decode(CHAT, {"model": "m", "messages": [USER, SAID, SAID], "continue_final_message": False})
    assert left.continue_final is False


@pytest.mark.parametrize(
    ("more", "continued"),
    [({}, True), ({"continue_final_message": True}, True), ({"continue_final_message": False}, False)],
)
def test_a_last_assistant_turn_is_continued_unless_told_otherwise(more: Any, continued: bool) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    assert decode(CHAT, {"model": "m", "messages": turns, **more}).continue_final is continued


def test_template_arguments_travel_with_the_request() -> None:
    operation = chat(chat_template_kwargs={"enable_thinking": True, "mood": "good"})

    assert operation.template_arguments == (("enable_thinking", True), ("mood", "good"))
    assert operation.think is True


def test_thinking_stands_in_the_text_when_that_is_asked_for() -> None:
    body = {**HELLO, "reasoning_format": "none"}
    for events, text in (
        (run_of(ThinkingDelta(text="h"), ThinkingDelta(text="m"), TextDelta(text="ok")), "<think>hm</think>ok"),
        (run_of(ThinkingDelta(text="hm"), end=Finished(reason=StopReason.LENGTH)), "<think>hm</think>"),
    ):
        chunks = data(CHAT, body, events)
        whole = reply(CHAT, body, events)["choices"][0]["message"]

        assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == text
        assert whole["content"] == text
        assert "reasoning" not in strict_json(chunks) + strict_json(whole)


def test_thinking_stands_in_both_places_in_the_legacy_form() -> None:
    body = {**HELLO, "reasoning_format": "deepseek-legacy"}
    events = run_of(ThinkingDelta(text="h"), ThinkingDelta(text="m"), TextDelta(text="ok"))

    whole = reply(CHAT, body, events)["choices"][0]["message"]
    deltas = [c["choices"][0]["delta"] for c in data(CHAT, body, events)]

    assert (whole["content"], whole["reasoning_content"]) == ("<think>hm</think>ok", "hm")
    for name, text in (("content", "<think>hm</think>ok"), ("reasoning_content", "hm")):
        assert "".join(delta.get(name, "") for delta in deltas) == text


@pytest.mark.parametrize("more", [{"n_keep": 4}, {"t_max_prompt_ms": 5}, {"id_slot": 1}, {"sse_ping_interval": 1}])
def test_what_has_no_effect_is_said(more: dict[str, Any]) -> None:
    [warning] = chat(**more).warnings

    assert warning.startswith(next(iter(more)))


def test_progress_of_a_long_prompt_is_told_when_asked_for() -> None:
    events = run_of(PromptProgress(done=8, total=12, cached=4, seconds=0.25), TextDelta(text="a"))

    asked = data(CHAT, {**HELLO, "return_progress": True}, events)
    assert asked[1]["prompt_progress"] == {"total": 12, "cache": 4, "processed": 8, "time_ms": 250}
    assert asked[1]["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": None}, "logprobs": None, "finish_reason": None}
    ]
    assert all("prompt_progress" not in chunk for chunk in data(CHAT, HELLO, events))


def test_choices_end_each_for_itself_and_none_is_lost() -> None:
    events = (
        *run_of(TextDelta(text="a"), TextDelta(text="b", choice=1))[:-2],
        Finished(reason=StopReason.LENGTH, choice=1),
        STOPPED,
        Completed(usage=USAGE, timings=TIMINGS),
    )
    chunks = data(CHAT, {**HELLO, "n": 2}, events)

    ends = [(c["index"], c["finish_reason"]) for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert ends == [(1, "length"), (0, "stop")]
    assert "timings" in chunks[-1]


def test_impossible_probabilities_are_numbers_that_json_has() -> None:
    token = TokenLogprob(id=1, text="a", bytes=b"\xff", logprob=-math.inf)
    whole = reply(CHAT, {**HELLO, "logprobs": True}, run_of(TextDelta(text="a", logprobs=(token,))))

    assert whole["choices"][0]["logprobs"]["content"] == [
        {"token": "a", "logprob": -9999.0, "bytes": [255], "top_logprobs": []}
    ]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (["a", [1]], ("a", (1,))),
        ([12, 34, "text", 56], ((12, 34, "text", 56),)),
        (["text", 56], (("text", 56),)),
        ([[12, "x"], "y"], ((12, "x"), "y")),
        ({"prompt_string": "a"}, ("a",)),
        ([[1, 2], {"prompt_string": "a"}, {"prompt_string": ["b", 3]}], ((1, 2), "a", ("b", 3))),
        (None, ("",)),
    ],
)
def test_completions_take_all_forms_of_prompts(prompt: Any, prompts: Any) -> None:
    assert decode("/v1/completions", {"model": "m", "prompt": prompt}).prompts == prompts


@pytest.mark.parametrize(
    "prompt",
    [
        [-1], [[1.5]], [None], {"a": 1}, 5, [["a"]], [2**40], ["a"] * 300, [1, None], [1, ["a"]], [True, "a"],
        {"prompt_string": 5}, {"prompt_string": None}, [{"prompt_string": [1.5]}], [],
    ],
)  # fmt: skip
def test_prompts_that_are_none_are_refused(prompt: Any) -> None:
    with pytest.raises(MullamaError, match="prompt"):
        decode("/v1/completions", {"model": "m", "prompt": prompt})


def test_prompts_times_answers_have_an_end() -> None:
    body = {"model": "m", "prompt": ["a"] * 40}

    assert len(decode("/v1/completions", {**body, "n": 6}).prompts) == 40
    for path in ("/v1/completions", "/completion"):
        with pytest.raises(TooLarge, match="more than 256 answers"):
            decode(path, {**body, "n": 7})


def test_completions_read_what_evaluations_need() -> None:
    operation = decode(
        "/v1/completions",
        {"model": "m", "prompt": [[1, 2]], "echo": True, "logprobs": 1, "max_tokens": 0, "suffix": "s", "best_of": 1},
    )

    assert (operation.echo, operation.logprobs, operation.max_tokens, operation.suffix) == (True, 1, 0, "s")
    with pytest.raises(Unsupported, match="best_of"):
        decode("/v1/completions", {"model": "m", "prompt": "a", "best_of": 2})


def test_streamed_probabilities_go_on_counting_characters() -> None:
    tokens = [TokenLogprob(id=i, text=t, bytes=t.encode(), logprob=-1.0) for i, t in enumerate(("ab", "c", "ü"))]
    events = run_of(TextDelta(text="abc", logprobs=tuple(tokens[:2])), TextDelta(text="ü", logprobs=(tokens[2],)))
    chunks = data("/v1/completions", {"model": "m", "prompt": "x", "logprobs": 1}, events)

    offsets = [c["choices"][0]["logprobs"]["text_offset"] for c in chunks[:2]]
    assert offsets == [[1, 3], [4]]


@pytest.mark.parametrize(
    ("sent", "offsets"),
    [
        ({"prompt": "héllo"}, [5, 7]),
        ({"prompt": [1, 2, 3]}, [9, 11]),
        ({"prompt": ["héllo"]}, [5, 7]),
        ({"prompt": "héllo", "echo": True}, [0, 2]),
        ({"prompt": [1, 2, 3], "echo": True}, [0, 2]),
    ],
)
def test_offsets_count_characters_from_the_start_of_the_prompt(sent: Any, offsets: list[int]) -> None:
    tokens = tuple(TokenLogprob(id=i, text=t, bytes=t.encode(), logprob=-1.0) for i, t in enumerate(("né", "x")))
    body = {"model": "m", "logprobs": 1, **sent}
    outcome = ChoiceOutcome(usage=Usage(), timings=Timings(), held_tokens=0, prompt="<s>prompt")
    end = Finished(reason=StopReason.LENGTH, outcome=outcome)
    events = (TextDelta(text="néx", logprobs=tokens), end, Completed(usage=Usage(), timings=Timings()))

    assert decode("/v1/completions", body).want_prompt == (sent == {"prompt": [1, 2, 3]})
    plain = reply("/v1/completions", body, events)
    assert plain["choices"][0]["logprobs"]["text_offset"] == offsets
    chunks = data("/v1/completions", {**body, "stream": True}, (PromptText(text="<s>prompt"), *events))
    assert chunks[0]["choices"][0]["logprobs"]["text_offset"] == offsets


def test_alternatives_that_are_parts_of_characters_stay_apart() -> None:
    parts = [
        TokenLogprob(id=i, text="�", bytes=b, logprob=-float(i)) for i, b in ((1, b"\xf0\x9f"), (2, b"\xe2"), (3, b"a"))
    ]
    chosen = TokenLogprob(id=4, text="", bytes=b"\xc3", logprob=-0.5)
    parts[2] = replace(parts[2], text="a")
    events = run_of(TextDelta(text="é", logprobs=(replace(chosen, top=(chosen, *parts)),)))
    body = {"model": "m", "prompt": "x", "logprobs": 4}

    found = reply("/v1/completions", body, events)["choices"][0]["logprobs"]
    assert found["top_logprobs"] == [{"": -0.5, r"bytes:\xf0\x9f": -1.0, r"bytes:\xe2": -2.0, "a": -3.0}]


@pytest.mark.parametrize(
    ("said", "place"),
    [
        (None, "input"),
        ("", "input"),
        ([], "input"),
        ([""], r"input\[0\]"),
        ([[]], r"input\[0\]"),
        (["a", ""], r"input\[1\]"),
    ],
)
def test_embeddings_of_nothing_are_refused_by_their_place(said: Any, place: str) -> None:
    with pytest.raises(Invalid, match=f"{place} must not be empty"):
        decode("/v1/embeddings", {"model": "m", "input": said})


@pytest.mark.parametrize(
    ("path", "id"),
    [
        ("/v1/models/tiny", "tiny"),
        ("/v1/models/hf.co/org/repo:Q4_K_M", "hf.co/org/repo:Q4_K_M"),
        ("/models/a/b", "a/b"),
    ],
)
def test_a_model_is_found_by_a_name_with_slashes(path: str, id: str) -> None:
    found = route("GET", path, {})
    assert found is not None
    assert found[1].decode(WireRequest(path=found[2])) == ShowModel(model=id)


def test_the_list_of_models_is_never_null() -> None:
    one = endpoint("/v1/models", "GET", "openai")

    assert encode(one, one.decode(WireRequest()), Inventory(models=())).body == {"object": "list", "data": []}


def test_models_tell_their_context_under_every_name() -> None:
    one = endpoint("/v1/models", "GET", "openai")
    card = ModelCard(name="m", context_size=2048, train_context=8192, capabilities=("vision",))
    said: Any = encode(one, one.decode(WireRequest()), Inventory(models=(card,))).body
    model = said["data"][0]

    assert {model[n] for n in ("context_length", "context_window", "max_model_len", "max_context_length")} == {2048}
    assert model["meta"]["n_ctx_train"] == 8192
    assert model["status"] == {"value": "unloaded"}
    assert model["architecture"]["input_modalities"] == ["text", "image"]


@pytest.mark.parametrize(
    ("state", "loaded", "word"),
    [
        ("ready", True, "loaded"),
        ("opening", False, "loading"),
        ("closing", False, "unloaded"),
        ("cold", False, "unloaded"),
    ],
)
def test_where_a_model_is_is_said_in_llama_servers_words(state: str, loaded: bool, word: str) -> None:
    one = endpoint("/v1/models", "GET", "openai")
    said: Any = encode(
        one, one.decode(WireRequest()), Inventory(models=(ModelCard(name="m", state=state, loaded=loaded),))
    )

    assert said.body["data"][0]["status"] == {"value": word}


def test_counting_tokens_reads_the_same_body() -> None:
    operation = decode("/v1/chat/completions/input_tokens", HELLO)

    assert operation.chat == chat()


@pytest.mark.parametrize(
    ("more", "continued", "opened"),
    [
        ({}, True, True),
        ({"continue_final_message": True}, True, True),
        ({"continue_final_message": True, "add_generation_prompt": False}, True, False),
        ({"continue_final_message": False}, False, True),
        ({"continue_final_message": False, "add_generation_prompt": False}, False, False),
    ],
)
def test_an_answer_is_new_or_continues_the_last_message(more: dict[str, Any], continued: bool, opened: bool) -> None:
    operation = chat(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], **more)

    assert (operation.continue_final, operation.open_answer) == (continued, opened)
