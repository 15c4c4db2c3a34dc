"""Requests as bodies of OpenAI's API: read back by mullama's own decoder, they are the same request."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat import types as chat
from mullama.dialects import DIALECTS
from mullama.dialects.base import WireRequest
from mullama.errors import Unsupported
from mullama.runtime.peers.request_form import as_chat, chat_body, completion_body, embedding_body, rerank_body
from mullama.struct import replace

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
WAV = b"RIFF" + bytes(4) + b"WAVE" + bytes(32)
TOOL = chat.Tool(
    name="look", description="Looks.", parameters={"type": "object", "properties": {"at": {"type": "string"}}}
)
CALL = chat.ToolCall(id="call_1", name="look", arguments={"at": "ü"})


def decoded(path: str, body: dict[str, Any]) -> Any:
    """The request that a mullama server reads from a body."""
    [endpoint] = [e for e in DIALECTS["openai"].endpoints if (e.method, e.path) == ("POST", path)]
    return endpoint.decode(WireRequest(path={}, query={}, headers={}, body=body))


def message(role: chat.Role, *parts: chat.Part, **more: Any) -> chat.Message:
    return chat.Message(role=role, content=parts, **more)


CONVERSATION = chat.ChatRequest(
    model="m",
    stream=True,
    messages=(
        chat.text_message("system", "Be kind."),
        message("user", chat.TextPart(text="What is it?"), chat.MediaPart(data=PNG)),
        message("assistant", chat.TextPart(text="I look."), thinking="Let me see.", tool_calls=(CALL,)),
        message("tool", chat.TextPart(text="a dog"), tool_call_id="call_1", tool_name="look"),
        message("user", chat.MediaPart(kind="audio", data=WAV)),
    ),
    tools=(TOOL,),
    tool_choice=chat.ToolChoice(mode="required"),
    parallel_tool_calls=False,
    sampling=chat.Sampling(
        temperature=0.3, top_k=5, min_p=0.1, repeat_penalty=1.1, dry_multiplier=0.5, seed=7,
        logit_bias=((5, -1.0),), samplers=("top_k",), dry_sequence_breakers=("\n",),
    ),
    max_tokens=9,
    stop=("END",),
    n=2,
    logprobs=3,
    user="me",
    conversation="c1",
)  # fmt: skip


def test_a_conversation_reads_back_as_itself() -> None:
    read = decoded("/v1/chat/completions", chat_body(CONVERSATION, "m"))
    for name in (
        "messages", "tools", "tool_choice", "parallel_tool_calls", "max_tokens", "stop", "n", "logprobs", "user",
        "conversation", "stream",
    ):  # fmt: skip
        assert getattr(read, name) == getattr(CONVERSATION, name), name
    sent, got = CONVERSATION.sampling, read.sampling
    for name in ("temperature", "top_k", "min_p", "repeat_penalty", "dry_multiplier", "seed", "logit_bias"):
        assert getattr(got, name) == getattr(sent, name), name


def test_only_what_is_set_is_sent() -> None:
    plain = chat.ChatRequest(model="m", messages=(chat.text_message("user", "Hi"),))
    assert chat_body(plain, "other") == {
        "model": "other",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Hi"}],
    }


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"think": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"think_budget": 64}, {"thinking_budget_tokens": 64}),
        ({"template_arguments": (("language", "en"),)}, {"chat_template_kwargs": {"language": "en"}}),
        ({"format": chat.ResponseFormat(kind="json")}, {"response_format": {"type": "json_object"}}),
        ({"format": chat.ResponseFormat(kind="gbnf", grammar="root ::= x")}, {"grammar": "root ::= x"}),
        ({"cache": False, "ignore_eos": True}, {"cache_prompt": False, "ignore_eos": True}),
        ({"max_tokens": -1}, {}),
        ({"tools": (TOOL, replace(TOOL, name="b")), "tool_choice": chat.ToolChoice(names=("b",))}, {"tools": ["b"]}),
    ],
)
def test_further_fields_have_the_names_that_servers_read(change: dict[str, Any], fields: dict[str, Any]) -> None:
    plain = chat.ChatRequest(model="m", messages=(chat.text_message("user", "Hi"),))
    body = chat_body(replace(plain, **change), "m")
    for name in ("model", "stream", "stream_options", "messages"):
        del body[name]
    if "tools" in body:
        body["tools"] = [tool["function"]["name"] for tool in body["tools"]]
    assert body == fields


def test_the_address_of_an_image_is_passed_on() -> None:
    asked = chat.ChatRequest(model="m", messages=(message("user", chat.MediaPart(url="https://h.example/p.png")),))
    [sent] = chat_body(asked, "m")["messages"]
    assert sent["content"] == [{"type": "image_url", "image_url": {"url": "https://h.example/p.png"}}]


def test_prompts_inputs_and_documents() -> None:
    asked = chat.CompletionRequest(model="m", prompts=((1, 2),), suffix="b", echo=True, logprobs=2)
    body = completion_body(asked, "m")
    assert (body["prompt"], body["suffix"], body["echo"], body["logprobs"]) == ([1, 2], "b", True, 2)
    embedded = embedding_body(chat.EmbedRequest(model="m", inputs=("a", (1, 2)), dimensions=8), "m")
    assert embedded == {"model": "m", "input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 8}
    ranked = rerank_body(chat.RerankRequest(model="m", query="q", documents=("a", "b"), top_n=1), "m")
    assert ranked == {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}


@pytest.mark.parametrize(
    "request_",
    [
        chat.CompletionRequest(model="m", prompts=("a", "b")),
        chat.CompletionRequest(model="m", prompts=((1, "b"),)),
        chat.CompletionRequest(model="m", prompts=("a",), raw=False),
        chat.CompletionRequest(model="m", prompts=("a",), media=(chat.MediaPart(data=PNG),)),
        chat.CompletionRequest(model="m", prompts=("a",), adapters=((0, 1.0),)),
        chat.CompletionRequest(model="m", prompts=("a",), format=chat.ResponseFormat(kind="regex", grammar="a")),
    ],
)
def test_what_the_api_cannot_have_is_refused(request_: chat.CompletionRequest) -> None:
    with pytest.raises(Unsupported, match=r"a peer (takes no|cannot have)|of token ids"):
        completion_body(request_, "m")


def test_a_prompt_for_the_template_is_a_conversation() -> None:
    request = chat.CompletionRequest(
        model="m", prompts=("hi",), raw=False, system="Be kind.", max_tokens=7, stop=("x",), think=False,
        media=(chat.MediaPart(data=PNG),),
    )  # fmt: skip
    made = as_chat(request)
    assert made is not None
    assert [(m.role, m.text) for m in made.messages] == [("system", "Be kind."), ("user", "hi")]
    assert made.messages[1].content[1] == request.media[0]
    assert (made.model, made.max_tokens, made.stop, made.think) == ("m", 7, ("x",), False)


@pytest.mark.parametrize(
    "change",
    [
        {"raw": True}, {"suffix": "b"}, {"template": "{{ .Prompt }}"}, {"context": (1, 2)}, {"prompts": ("a", "b")},
        {"prompts": ((1, 2),)},
    ],
)  # fmt: skip
def test_other_prompts_are_no_conversation(change: dict[str, Any]) -> None:
    assert as_chat(chat.CompletionRequest(**{"model": "m", "prompts": ("a",), "raw": False, **change})) is None
