"""Ollama's own corners: options, raw prompts, inventory, changes, and the cloud that is not here."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.inventory import Done, Inventory, LoadModel, ModelCard, StoreBlob
from mullama.chat.types import DetokenizedText, RenderRequest, ResponseFormat, Sampling
from mullama.dialects.base import StaticReply, WireRequest
from mullama.errors import Invalid, Unsupported
from tests.dialects.wire import HELLO, decode, encode, endpoint, strict_json

GENERATE = {"model": "m", "prompt": "p"}


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, None),
        ({"num_predict": 5}, 5),
        ({"num_predict": -1}, -1),
        ({"num_predict": -2}, -1),
        ({"num_predict": 0}, -1),
    ],
)
def test_num_predict_below_one_is_no_limit(options: Any, limit: int | None) -> None:
    assert decode("/api/generate", {**GENERATE, "options": options}).max_tokens == limit


def test_options_are_read_and_checked_and_unknown_ones_are_named() -> None:
    options = {"temperature": 0, "top_k": 5, "seed": 7, "stop": "x", "num_keep": 4, "colour": 1, "num_thread": 4}

    operation = decode("/api/chat", {**HELLO, "options": options})

    assert operation.sampling == Sampling(temperature=0.0, top_k=5, seed=7)
    assert operation.stop == ("x",)
    assert operation.warnings == (
        "options.num_keep has no effect",
        "options.colour is unknown",
        "options.num_thread was not applied: the manifest declares it",
    )


@pytest.mark.parametrize(("given", "most"), [({}, 1024), ({"draft_num_predict": 0}, 0), ({"draft_num_predict": 3}, 3)])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_an_option_bounds_the_tokens_that_are_guessed(path: str, given: Any, most: int) -> None:
    operation = decode(path, {**(HELLO if path == "/api/chat" else GENERATE), "options": given})
    assert operation.draft.most == most
    assert not operation.warnings


@pytest.mark.parametrize("options", [{"num_gpu": "all"}, {"use_mmap": 1}, {"temperature": "hot"}, {"num_ctx": -1}, []])
def test_an_option_of_the_wrong_type_is_refused_even_where_it_has_no_effect(options: Any) -> None:
    with pytest.raises(Invalid, match="options"):
        decode("/api/chat", {**HELLO, "options": options})


@pytest.mark.parametrize(
    ("said", "form"),
    [
        (None, None),
        ("", None),
        ("json", ResponseFormat(kind="json")),
        ({"type": "object"}, ResponseFormat(kind="json_schema", schema={"type": "object"})),
    ],
)
def test_formats(said: Any, form: ResponseFormat | None) -> None:
    assert decode("/api/generate", {**GENERATE, "format": said}).format == form


@pytest.mark.parametrize("extra", [{"template": "t"}, {"system": "s"}, {"context": [1]}])
def test_raw_excludes_what_a_template_would_need(extra: Any) -> None:
    with pytest.raises(Invalid, match="raw mode does not support template, system, or context"):
        decode("/api/generate", {**GENERATE, "raw": True, **extra})


def test_generate_reads_everything_it_has() -> None:
    operation = decode(
        "/api/generate",
        {**GENERATE, "suffix": "s", "system": "y", "template": "t", "images": ["AAAA"], "context": [1], "raw": False},
    )

    assert (operation.suffix, operation.system, operation.template) == ("s", "y", "t")
    assert (operation.media[0].data, operation.context, operation.raw) == (b"\0\0\0", (1,), False)


def test_a_suffix_alone_is_a_prompt() -> None:
    assert decode("/api/generate", {"model": "m", "suffix": "s"}).suffix == "s"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"model": "m"}),
        ("/api/chat", {"model": "m", "messages": None, "keep_alive": 0}),
        ("/api/generate", {"model": "m", "prompt": ""}),
        ("/api/embed", {"model": "m"}),
        ("/api/embed", {"model": "m", "input": []}),
        ("/api/embeddings", {"model": "m"}),
    ],
)
def test_nothing_to_do_is_to_load_or_to_unload(path: str, body: Any) -> None:
    operation = decode(path, body)

    assert isinstance(operation, LoadModel)
    assert operation.keep_alive == body.get("keep_alive")


@pytest.mark.parametrize(
    ("path", "field", "value", "place"),
    [
        ("/api/embed", "input", [""], r"input\[0\]"), ("/api/embed", "input", ["x", ""], r"input\[1\]"),
        ("/api/embed", "input", ["", "x"], r"input\[0\]"), ("/api/embed", "input", [[]], r"input\[0\]"),
        ("/embedding", "content", [""], r"content\[0\]"), ("/embedding", "content", ["x", []], r"content\[1\]"),
        ("/embedding", "content", "", "content"), ("/v1/embeddings", "input", ["x", ""], r"input\[1\]"),
    ],
)  # fmt: skip
def test_an_empty_input_among_several_is_refused_with_its_place(path: str, field: str, value: Any, place: str) -> None:
    with pytest.raises(Invalid, match=f"^{place} must not be empty$"):
        decode(path, {"model": "m", field: value})


@pytest.mark.parametrize("count", [-1, 21, 2.5, "2"])
def test_logprobs_are_bounded_in_the_words_that_clients_know(count: Any) -> None:
    with pytest.raises(Invalid, match=r"^top_logprobs must be between 0 and 20$"):
        decode("/api/chat", {**HELLO, "logprobs": True, "top_logprobs": count})


@pytest.mark.parametrize(
    ("more", "logprobs"),
    [
        ({}, None),
        ({"logprobs": True}, 0),
        ({"top_logprobs": 3}, None),
        ({"logprobs": True, "top_logprobs": 3}, 3),
    ],
)
def test_logprobs_are_wanted_only_when_they_are_asked_for(more: Any, logprobs: int | None) -> None:
    assert decode("/api/chat", {**HELLO, **more}).logprobs == logprobs


def test_the_rendered_prompt_can_be_asked_for() -> None:
    for path, body in (("/api/chat", HELLO), ("/api/generate", {**GENERATE, "system": "s"})):
        operation = decode(path, {**body, "_debug_render_only": True})
        assert isinstance(operation, RenderRequest)
        said: Any = encode(endpoint(path), operation, DetokenizedText(text="<|user|>")).body
        assert said["_debug_info"] == {"rendered_template": "<|user|>", "image_count": 0}
    with pytest.raises(Unsupported, match="suffix"):
        decode("/api/generate", {**GENERATE, "suffix": "x", "_debug_render_only": True})


def test_content_may_be_parts_and_roles_may_be_upper_case() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]
    message = decode("/api/chat", {"model": "m", "messages": [{"role": "USER", "content": parts}]}).messages[0]

    assert message.role == "user"
    assert message.text == "a"
    assert message.content[1].data == b"\0\0\0"


@pytest.mark.parametrize("role", ["robot", "", None, 5])
def test_an_unknown_role_is_refused(role: Any) -> None:
    with pytest.raises(Invalid, match=r"messages\[0\].role"):
        decode("/api/chat", {"model": "m", "messages": [{"role": role, "content": "x"}]})


def test_the_last_assistant_turn_is_continued() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    assert decode("/api/chat", {"model": "m", "messages": turns}).continue_final is True
    assert decode("/api/chat", HELLO).continue_final is False


def test_running_models_are_listed_with_the_longest_staying_first() -> None:
    cards = tuple(ModelCard(name=n, expires=e) for n, e in (("a", 5.0), ("b", float("inf")), ("c", 9.0)))
    one = endpoint("/api/ps", "GET")
    said: Any = encode(one, one.decode(WireRequest()), Inventory(models=cards)).body

    assert [model["name"] for model in said["models"]] == ["b", "c", "a"]
    assert said["models"][0]["expires_at"] > "2300"


def test_no_models_are_an_empty_list() -> None:
    for path in ("/api/tags", "/api/ps"):
        one = endpoint(path, "GET")
        assert encode(one, one.decode(WireRequest()), Inventory(models=())).body == {"models": []}


def test_a_card_with_the_oddest_metadata_is_still_json() -> None:
    card = ModelCard(name="m", metadata={"a": float("nan"), "b": [float("inf")] * 3, "c": list(range(9)), "d": None})
    one = endpoint("/api/show")
    said: Any = encode(one, decode("/api/show", {"name": "m", "verbose": True}), card).body

    strict_json(said)
    assert said["model_info"]["a"] is None
    assert said["model_info"]["c"] == list(range(9))
    assert said["details"]["families"] == []


def test_a_model_can_be_shown_as_it_would_be_with_other_settings() -> None:
    card = ModelCard(name="m", system="Be kind.", parameters=(("top_k", 3), ("seed", 1)))
    one = endpoint("/api/show")

    said: Any = encode(one, decode("/api/show", {"model": "m", "system": "Be brief.", "options": {"seed": 7}}), card)

    assert said.body["system"] == "Be brief."
    assert [line.split() for line in said.body["parameters"].splitlines()] == [["top_k", "3"], ["seed", "7"]]
    plain: Any = encode(one, decode("/api/show", {"model": "m"}), card)
    assert plain.body["system"] == "Be kind."


def test_create_reads_what_can_be_made_and_refuses_what_cannot() -> None:
    body = {
        "name": "mine",
        "from": "tiny",
        "files": {"a.gguf": "sha256-" + "AB" * 32},
        "license": "MIT",
        "parameters": {"temperature": 0.1},
        "messages": [{"role": "user", "content": "a"}],
        "quantization": "q8_0",
        "stream": False,
    }

    made = decode("/api/create", body)

    assert (made.name, made.base, made.license, made.quantize, made.stream) == ("mine", "tiny", ("MIT",), "q8_0", False)
    assert made.files == {"a.gguf": "sha256:" + "ab" * 32}
    with pytest.raises(Invalid, match="neither 'from' or 'files' was specified"):
        decode("/api/create", {"model": "mine"})
    with pytest.raises(Unsupported, match="modelfile is not supported"):
        decode("/api/create", {"model": "mine", "modelfile": "FROM x"})
    with pytest.raises(Invalid, match="quantize"):
        decode("/api/create", {"model": "mine", "from": "x", "quantize": "q1"})
    with pytest.raises(Invalid, match=r"files\.a"):
        decode("/api/create", {"model": "mine", "files": {"a": "../../etc"}})


def test_blobs_are_named_by_digests_alone() -> None:
    digest = "sha256:" + "0f" * 32
    one = endpoint("/api/blobs/{digest}")
    operation = one.decode(WireRequest(path={"digest": digest.upper().replace("SHA256", "sha256")}))

    assert operation == StoreBlob(digest=digest)
    assert one.raw is True
    assert encode(one, operation, Done(found=False)).status == 201
    assert encode(one, operation, Done(found=True)).status == 200
    head = endpoint("/api/blobs/{digest}", "HEAD")
    assert encode(head, head.decode(WireRequest(path={"digest": digest})), Done(found=False)).status == 404
    for bad in ("../x", "sha256:12", "md5:" + "0" * 64, ""):
        with pytest.raises(Invalid, match="digest"):
            one.decode(WireRequest(path={"digest": bad}))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/push", 501),
        ("POST", "/api/me", 401),
        ("POST", "/api/signout", 401),
        ("DELETE", "/api/user/keys/{key}", 401),
        ("POST", "/api/experimental/web_search", 404),
        ("POST", "/api/experimental/web_fetch", 404),
        ("GET", "/api/experimental/model-recommendations", 404),
        ("GET", "/api/status", 200),
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/api/version", 200),
        ("HEAD", "/api/tags", 200),
    ],
)
def test_what_needs_no_model_answers_clearly(method: str, path: str, status: int) -> None:
    one = endpoint(path, method)
    operation = one.decode(WireRequest(body=None))
    result = None if isinstance(operation, StaticReply) else Inventory(models=())
    said = encode(one, operation, result)

    assert said.status == status
    if status >= 400:
        error: Any = said.body
        assert "mullama" in error["error"]


def test_the_version_is_one_that_clients_can_compare() -> None:
    one = endpoint("/api/version", "GET")
    said: Any = encode(one, one.decode(WireRequest()), None).body

    assert [int(part) for part in said["version"].split(".")] >= [0, 33, 0]
    assert said["mullama"] == "0.1.0"


def test_changes_need_the_right_to_make_them() -> None:
    for method, path in (
        ("POST", "/api/pull"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/{digest}"),
    ):
        assert endpoint(path, method).access == "admin"
    assert endpoint("/api/chat").access == "infer"


@pytest.mark.parametrize(
    "field", ["modelfile", "renderer", "parser", "draft_files", "draft_quantize", "info", "capabilities"]
)
def test_a_field_of_create_that_would_change_the_model_is_refused_by_name(field: str) -> None:
    with pytest.raises(Unsupported, match=f"{field} is not supported by create"):
        decode("/api/create", {"model": "m", "from": "base", field: {"a": 1}})


def test_a_version_of_ollama_that_a_created_model_requires_has_no_effect() -> None:
    body = {"model": "m", "from": "base"}
    assert decode("/api/create", {**body, "requires": "0.40.1"}) == decode("/api/create", body)
    with pytest.raises(Invalid, match="requires"):
        decode("/api/create", {**body, "requires": 1})
