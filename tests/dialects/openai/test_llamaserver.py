"""llama-server's own endpoints: tokens, templates, native completions, ranking, properties."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mullama.chat.inventory import (
    AdapterCard,
    DeleteModel,
    Done,
    Inventory,
    ListModels,
    ModelCard,
    ModelStateReport,
    SetAdapterScales,
    Slot,
)
from mullama.chat.types import (
    DEFAULT_SAMPLING,
    Answer,
    Choice,
    DetokenizedText,
    DraftLimits,
    Effective,
    Finished,
    Ranking,
    Sampling,
    StopReason,
    TextDelta,
    TextRun,
    TokenCount,
    Tokens,
    Usage,
    Vectors,
)
from mullama.dialects.base import WireRequest
from mullama.dialects.resumable_streams import CancelStream, FindStreams, ResumeStream, StreamState, StreamStates
from mullama.errors import Invalid, Unavailable, Unsupported
from mullama.struct import replace
from tests.dialects.wire import (
    CONTEXT,
    HELLO,
    STARTED,
    TIMINGS,
    USAGE,
    data,
    decode,
    encode,
    endpoint,
    reply,
    run_of,
    strict_json,
)


def said(path: str, body: Any, result: Any) -> Any:
    one = endpoint(path)
    return encode(one, decode(path, body), result).body


def test_the_model_may_be_left_out() -> None:
    assert decode("/tokenize", {"content": "a"}).model == ""
    assert decode("/tokenize", {"content": "a", "model": "m"}).model == "m"
    assert decode("/apply-template", {"messages": HELLO["messages"]}).chat.model == ""


def test_tokenize_has_the_defaults_of_the_original() -> None:
    operation = decode("/tokenize", {"content": "a"})

    assert (operation.text, operation.add_special, operation.parse_special) == ("a", False, True)


def test_pieces_that_are_parts_of_characters_are_numbers() -> None:
    tokens = Tokens(ids=(1, 2), pieces=(b"a", b"\xc3"))

    assert said("/tokenize", {"content": "a"}, tokens) == {"tokens": [1, 2]}
    assert said("/tokenize", {"content": "a", "with_pieces": True}, tokens) == {
        "tokens": [{"id": 1, "piece": "a"}, {"id": 2, "piece": [0xC3]}]
    }


def test_detokenize_and_apply_template() -> None:
    assert decode("/detokenize", {"tokens": [1, 2]}).tokens == (1, 2)
    assert said("/detokenize", {"tokens": [1]}, DetokenizedText(text="a")) == {"content": "a"}
    assert said("/apply-template", HELLO, DetokenizedText(text="<|user|>")) == {"prompt": "<|user|>"}
    with pytest.raises(Invalid, match=r"tokens\[0\]"):
        decode("/detokenize", {"tokens": [-1]})


def test_infill_puts_files_before_what_stands_before_the_gap() -> None:
    operation = decode(
        "/infill",
        {"input_prefix": "def f(", "input_suffix": "): pass", "prompt": "x", "input_extra": [{"text": "import os"}]},
    )

    assert operation.prompts == ("--- snippet ---\nimport os\ndef f(x",)
    assert operation.suffix == "): pass"


def test_settings_tell_what_was_asked_for_as_json() -> None:
    answer = reply("/completion", {"prompt": "a", "logit_bias": {"5": False}, "samplers": ["top_k"]}, run_of())

    assert answer["generation_settings"]["logit_bias"] == [{"bias": None, "token": 5}]
    assert answer["generation_settings"]["samplers"] == ["top_k"]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (StopReason.STOP, "eos"),
        (StopReason.STOP_SEQUENCE, "word"),
        (StopReason.LENGTH, "limit"),
        (StopReason.CANCELLED, "none"),
    ],
)
def test_the_kind_of_end_is_told(reason: StopReason, kind: str) -> None:
    events = run_of(TextDelta(text="a\n"), end=Finished(reason=reason))

    assert reply("/completion", {"prompt": "a"}, events)["stop_type"] == kind
    assert data("/completion", {"prompt": "a"}, events)[-1]["has_new_line"] is True


def choice(index: int) -> Choice:
    return Choice(
        index=index,
        parts=(TextRun(text=str(index)),),
        reason=StopReason.STOP,
        stop_sequence=None,
    )


def test_several_prompts_are_answered_by_a_list() -> None:
    result = Answer(choices=(choice(0), choice(1)), usage=USAGE, timings=TIMINGS)

    answers = said("/completion", {"prompt": ["a", [1, 2]]}, result)

    assert [(a["index"], a["prompt"]) for a in answers] == [(0, "a"), (1, [1, 2])]


def test_tokens_are_returned_when_asked_for() -> None:
    usage = Usage(prompt_tokens=2, completion_tokens=1)
    result = Answer(choices=(replace(choice(0), tokens=(7,)),), usage=usage, timings=TIMINGS)

    assert said("/completion", {"prompt": "a", "return_tokens": True}, result)["tokens"] == [7]
    assert said("/completion", {"prompt": "a"}, result)["tokens"] == []


RANKING = Ranking(results=((2, 0.9), (0, 0.5), (1, float("-inf"))), usage=Usage(prompt_tokens=9))
DOCUMENTS = ["a", {"text": "b"}, "c"]


def test_ranking_in_the_form_of_jina() -> None:
    answer = said("/v1/rerank", {"model": "m", "query": "q", "documents": DOCUMENTS, "return_documents": True}, RANKING)

    assert [(r["index"], r["document"]["text"]) for r in answer["results"]] == [(2, "c"), (0, "a"), (1, "b")]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


def test_ranking_in_the_form_of_text_embeddings_inference() -> None:
    answer = said("/rerank", {"query": "q", "texts": DOCUMENTS, "return_text": True, "top_n": 2}, RANKING)

    assert answer == [{"index": 2, "score": 0.9, "text": "c"}, {"index": 0, "score": 0.5, "text": "a"}]


@pytest.mark.parametrize(
    "body", [{"documents": ["a"]}, {"query": "q"}, {"query": "q", "documents": []}, {"query": "q", "documents": [5]}]
)
def test_ranking_of_nothing_is_refused(body: Any) -> None:
    with pytest.raises(Invalid):
        decode("/v1/reranking", body)


def test_native_embeddings_are_nested_and_normalised_unless_told_otherwise() -> None:
    vectors = Vectors(vectors=((0.5,),), usage=Usage())

    assert said("/embedding", {"content": "a"}, vectors) == [{"index": 0, "embedding": [[0.5]]}]
    tokens = Vectors(vectors=((0.5,), (1.0,), (2.0,)), rows=(2, 1), usage=Usage())
    assert said("/embedding", {"content": ["a", "b"]}, tokens) == [
        {"index": 0, "embedding": [[0.5], [1.0]]},
        {"index": 1, "embedding": [[2.0]]},
    ]
    with pytest.raises(Invalid, match=r"content\[1\] is not finite"):
        said("/embedding", {"content": ["a", "b"]}, replace(tokens, vectors=((0.5,), (1.0,), (math.inf,))))
    assert decode("/embedding", {"content": "a"}).pooled is False
    assert decode("/v1/embeddings", {"model": "m", "input": "a"}).pooled is True
    assert decode("/embedding", {"content": "a"}).normalize is True
    assert decode("/embedding", {"content": "a", "embd_normalize": -1}).normalize is False
    with pytest.raises(Unsupported, match="embd_normalize"):
        decode("/embedding", {"content": "a", "embd_normalize": 1})


def test_slots_can_be_asked_to_have_one_free() -> None:
    one = endpoint("/slots", "GET")
    busy = ModelCard(name="m", parallel=2, active=2, context_size=512)
    asked = one.decode(WireRequest(query={"fail_on_no_slot": "1", "model": "m"}))

    with pytest.raises(Unavailable, match="no slot available"):
        encode(one, asked, busy)
    slots: Any = encode(one, one.decode(WireRequest()), busy).body
    assert [slot["is_processing"] for slot in slots] == [True, True]


@pytest.mark.parametrize("path", ["/props", "/slots/{slot}"])
def test_what_is_declared_elsewhere_answers_why(path: str) -> None:
    one = endpoint(path)
    refused = encode(one, one.decode(WireRequest(path={"slot": "0"})), None)
    body: Any = refused.body

    assert refused.status == 501
    assert body["error"]["type"] == "not_supported_error"


def test_counts_have_one_shape() -> None:
    assert said("/v1/messages/count_tokens", HELLO, TokenCount(tokens=3)) == {"input_tokens": 3}
    assert said("/v1/responses/input_tokens", {"model": "m", "input": "a"}, TokenCount(tokens=3))["input_tokens"] == 3


def test_bare_paths_serve_what_the_versioned_ones_do() -> None:
    for path in ("/chat/completions", "/embeddings", "/responses", "/messages"):
        assert endpoint(path).decode is endpoint(f"/v1{path}").decode
    listed = endpoint("/models", "GET", "openai"), endpoint("/v1/models", "GET", "openai")
    assert [type(one.decode(WireRequest())) for one in listed] == [ListModels, ListModels]
    assert endpoint("/completions").decode is endpoint("/completion").decode


def listed(path: str, *cards: ModelCard) -> list[Any]:
    one = endpoint(path, "GET", "openai")
    body: Any = encode(one, one.decode(WireRequest()), Inventory(models=cards)).body
    return [(model["id"], model["aliases"], model["tags"]) for model in body["data"]]


def test_llama_servers_list_has_models_with_aliases_and_openais_has_routes_too() -> None:
    """OpenAI's clients find a name in the list only as an entry of its own."""
    model = ModelCard(name="tiny", aliases=("gpt-4", "small"))
    cards = (model, *(replace(model, name=route, route_of="tiny") for route in model.aliases))

    assert listed("/models", *cards) == [("tiny", ["gpt-4", "small"], [])]
    assert listed("/v1/models", *cards) == [("tiny", ["gpt-4", "small"], []), ("gpt-4", [], []), ("small", [], [])]


def props(result: Any, **query: str) -> Any:
    one = endpoint("/props", "GET")
    return encode(one, one.decode(WireRequest(query=query)), result).body


def test_the_properties_are_those_of_the_default_model_or_of_the_server() -> None:
    default = ModelCard(name="tiny", is_default=True, context_size=512)

    assert props(Inventory(models=(ModelCard(name="a"), default)))["model_alias"] == "tiny"
    assert props(default, model="tiny") == props(Inventory(models=(default,)))
    assert props(Inventory(models=(ModelCard(name="a"),))) == {
        "role": "router",
        "max_instances": 0,
        "models_autoload": True,
        "model_alias": "mullama",
        "model_path": "none",
        "default_generation_settings": {"params": {}, "n_ctx": 0},
        "ui_settings": {},
        "build_info": "mullama 0.1.0",
        "cors_proxy_enabled": False,
    }


def test_the_default_settings_are_those_of_a_request_that_sets_none() -> None:
    sampling = Sampling(seed=42, temperature=0.25).over(DEFAULT_SAMPLING)
    card = ModelCard(name="tiny", context_size=512, sampling=sampling, max_tokens=9, draft="ngram")

    params = props(card, model="tiny")["default_generation_settings"]["params"]

    assert (params["seed"], params["temperature"], params["n_predict"], params["max_tokens"]) == (42, 0.25, 9, 9)
    assert (params["speculative.types"], params["stream"], params["lora"]) == ("ngram-simple", False, [])
    assert not params.keys() & {"stop", "grammar", "logit_bias", "dry_sequence_breakers", "preserved_tokens"}


def test_a_slot_shows_its_request_and_an_idle_one_no_budget() -> None:
    request = decode("/completion", {"prompt": "secret words", "n_predict": 8, "top_k": 3, "stream": True})
    effective = Effective(
        model="tiny", context_size=512, sampling=request.sampling.over(DEFAULT_SAMPLING), max_tokens=8
    )
    busy = Slot(
        id=1, busy=True, task=7, request=request, effective=effective, prompt_tokens=10, cached_tokens=4, generated=3
    )
    after = replace(busy, busy=False, id=2, generated=0)
    card = ModelCard(name="m", parallel=3, context_size=512, slots=(Slot(id=0), busy, after))
    one = endpoint("/slots", "GET")

    fresh, first, idle = encode(one, one.decode(WireRequest(query={"model": "m"})), card).body  # type: ignore[misc]

    assert fresh == {"id": 0, "n_ctx": 512, "speculative": False, "is_processing": False}
    params = first.pop("params")
    assert first == {
        "id": 1,
        "n_ctx": 512,
        "speculative": False,
        "is_processing": True,
        "id_task": 7,
        "n_prompt_tokens": 13,
        "n_prompt_tokens_processed": 6,
        "n_prompt_tokens_cache": 4,
        "next_token": [{"has_next_token": True, "has_new_line": False, "n_remain": 5, "n_decoded": 3}],
    }
    assert (params["top_k"], params["n_predict"], params["stream"]) == (3, 8, True)
    assert idle["next_token"] == [{"has_next_token": False, "has_new_line": False, "n_remain": -1, "n_decoded": 0}]
    assert "secret" not in strict_json([fresh, first, params, idle])


def test_the_router_loads_unloads_and_removes_by_name() -> None:
    load, unload = (decode(path, {"model": "m"}) for path in ("/models/load", "/models/unload"))
    delete = endpoint("/models", "DELETE").decode(WireRequest(query={"model": "m"}))

    assert (load.model, load.keep_alive, load.only_change) == ("m", None, True)
    assert (unload.model, unload.keep_alive, unload.only_change) == ("m", 0.0, True)
    assert delete == DeleteModel(model="m")
    assert all(endpoint(path).access == "admin" for path in ("/models/load", "/models/unload"))
    assert encode(endpoint("/models/load"), load).body == {"success": True}
    for path in ("/models/load", "/models/unload"):
        with pytest.raises(Invalid, match="model must be"):
            decode(path, {})


def test_the_states_of_models_are_events() -> None:
    states = [ModelStateReport(model="m", state=state) for state in ("cold", "opening", "ready", "closing", "")]

    one = endpoint("/models/sse", "GET")
    assert one.stream is not None
    encoder = one.stream(replace(CONTEXT, operation=one.decode(WireRequest())))
    events = [frame.data for state in states for frame in encoder.feed(state)]

    assert events == [
        *({"model": "m", "event": "model_status", "data": {"status": word}}
          for word in ("unloaded", "loading", "loaded", "unloaded")),
        {"model": "m", "event": "model_remove", "data": {}},
    ]  # fmt: skip


ADAPTERS = (AdapterCard(source="./style.gguf", scale=0.8, name="style"), AdapterCard(source="./tone.gguf", scale=0.0))


def test_the_adapters_of_a_model_are_listed_in_the_order_of_their_numbers() -> None:
    one = endpoint("/lora-adapters", "GET")
    card = ModelCard(name="m", adapters=ADAPTERS)

    assert encode(one, one.decode(WireRequest(query={"model": "m"})), card).body == [
        {"id": 0, "name": "style", "path": "./style.gguf", "scale": 0.8, "task_name": "", "prompt_prefix": ""},
        {"id": 1, "name": "", "path": "./tone.gguf", "scale": 0.0, "task_name": "", "prompt_prefix": ""},
    ]
    assert encode(one, one.decode(WireRequest()), ModelCard(name="m")).body == []


def test_scales_are_set_by_number_or_name() -> None:
    one = endpoint("/lora-adapters")
    operation = one.decode(
        WireRequest(body=[{"id": 1, "scale": 0.5}, {"id": "style", "scale": 1}], query={"model": "m"})
    )
    assert operation == SetAdapterScales(model="m", scales=((1, 0.5), ("style", 1.0)))
    assert encode(one, operation, Done()).body == {"success": True}


def test_a_request_names_its_adapters_by_number_or_name_with_their_scales() -> None:
    operation = decode("/completion", {"prompt": "a", "lora": [{"id": 1, "scale": 0.5}, {"id": "tone", "scale": 1}]})

    assert operation.adapters == ((1, 0.5), ("tone", 1.0))
    effective = Effective(model="m", context_size=8, sampling=DEFAULT_SAMPLING, adapters=((1, 0.5),))
    started = replace(STARTED, effective=effective)
    settings = reply("/completion", {"prompt": "a"}, (started, *run_of()[1:]))["generation_settings"]
    assert settings["lora"] == [{"id": 1, "scale": 0.5}]


@pytest.mark.parametrize("id", [-1, 1.5, True, None, [0]])
def test_an_adapter_without_a_number_or_name_is_refused(id: Any) -> None:
    with pytest.raises(Invalid, match=r"lora\[0\].id"):
        decode("/completion", {"prompt": "a", "lora": [{"id": id, "scale": 0.5}]})


@pytest.mark.parametrize(
    ("body", "limits"),
    [
        ({}, DraftLimits()),
        ({"speculative.n_max": 4}, DraftLimits(most=4)),
        ({"speculative.n_max": 0}, DraftLimits(most=0)),
        ({"speculative.n_min": 2, "speculative.p_min": 0.5}, DraftLimits(least=2, min_probability=0.5)),
        ({"speculative.types": "none"}, DraftLimits(most=0)),
        ({"speculative.type": "none", "speculative.n_max": 4}, DraftLimits(most=0)),
    ],
)
@pytest.mark.parametrize("path", ["/completion", "/v1/completions"])
def test_a_request_limits_the_tokens_that_are_guessed_for_it(path: str, body: Any, limits: DraftLimits) -> None:
    operation = decode(path, {"prompt": "x", **body})
    assert operation.draft == limits
    assert not operation.warnings


def test_the_kind_of_guesses_is_that_of_the_manifest() -> None:
    operation = decode("/completion", {"prompt": "x", "speculative.types": "ngram-mod"})
    assert operation.draft == DraftLimits()
    assert operation.warnings == (
        "speculative.types: the manifest declares how tokens are guessed; only none changes it",
    )


@pytest.mark.parametrize("body", [{"speculative.n_max": -2}, {"speculative.p_min": 2}, {"speculative.n_min": "a"}])
def test_limits_of_guesses_that_make_no_sense_are_refused_by_name(body: Any) -> None:
    with pytest.raises(Invalid, match=next(iter(body)).replace(".", r"\.")):
        decode("/completion", {"prompt": "x", **body})


@pytest.mark.parametrize(
    ("method", "query", "operation"),
    [
        ("GET", {"conv_id": "c::org/m", "from": "12"}, ResumeStream(conversation="c::org/m", offset=12)),
        ("GET", {"conv_id": "c", "from": ""}, ResumeStream(conversation="c", offset=0)),
        ("DELETE", {"conv_id": "c"}, CancelStream(conversation="c")),
    ],
)
def test_operations_on_kept_streams(method: str, query: dict[str, str], operation: object) -> None:
    one = endpoint("/v1/stream", method)
    assert one.decode(WireRequest(query=query)) == operation


def test_kept_streams_have_the_form_of_llama_server() -> None:
    one = endpoint("/v1/streams/lookup")
    operation = one.decode(WireRequest(body={"conversation_ids": ["a", "", "b", "a"]}))
    assert operation == FindStreams(conversations=("a", "b"))

    states = StreamStates(
        streams=(
            StreamState(conversation="a", started=5, completed=9, total=70),
            StreamState(conversation="b::m", started=6, completed=0, total=0),
        )
    )
    first = {"conversation_id": "a", "is_done": True, "total_bytes": 70, "started_at": 5, "completed_at": 9}
    second = {"conversation_id": "b::m", "is_done": False, "total_bytes": 0, "started_at": 6, "completed_at": 0}
    assert encode(one, operation, states).body == [first, second]


def test_the_id_of_a_conversation_is_its_name_for_routes() -> None:
    call = decode("/v1/chat/completions", HELLO, headers={"x-conversation-id": "x"})
    assert (call.conversation, call.warnings) == ("x", ())


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ([{"filename": 123}], "input_extra[0].filename"), ([{}], "input_extra[0].text"),
        ([{"text": 5}], "input_extra[0].text"), (["text"], "input_extra[0]"), ({}, "input_extra"),
        ([{"text": "a"}, {"text": "b", "filename": []}], "input_extra[1].filename"),
    ],
)  # fmt: skip
def test_a_malformed_file_beside_the_gap_is_refused_by_its_place(extra: Any, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode("/infill", {"input_prefix": "a", "input_suffix": "b", "input_extra": extra})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/completion", {"n_predict": 1}, "prompt"), ("/completion", {"prompt": None}, "prompt"),
        ("/infill", {"input_suffix": "b"}, "input_prefix"), ("/infill", {"input_prefix": "a"}, "input_suffix"),
    ],
)  # fmt: skip
def test_the_texts_that_llama_server_requires_are_required(path: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid, match=f"{field} is required") as caught:
        decode(path, body)
    assert caught.value.field == field


def test_the_number_of_probabilities_has_two_names() -> None:
    assert decode("/completion", {"prompt": "a", "logprobs": 3}).logprobs == 3
    assert decode("/completion", {"prompt": "a", "logprobs": 3, "n_probs": 2}).logprobs == 2
    assert decode("/completion", {"prompt": "a", "n_probs": 0}).logprobs is None
