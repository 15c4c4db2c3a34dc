"""Requests as bodies of OpenAI's API. Pure.

Only fields that the request sets are sent, because some servers refuse fields that they do not know. Fields that OpenAI
does not have travel under the names of llama-server, which mullama reads as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from mullama.chat import types as chat
from mullama.chat.media.formats import format_of
from mullama.errors import Unsupported
from mullama.struct import field_names

Tree = dict[str, Any]


def chat_body(request: chat.ChatRequest, model: str) -> Tree:
    """Return the body of POST /v1/chat/completions, streamed with its usage at the end."""
    tools, choice = _tools(request)
    return {
        **_common(request, model),
        "messages": [_message(message) for message in request.messages],
        **({"tools": tools} if tools else {}),
        **({"tool_choice": choice} if tools and choice != "auto" else {}),
        **({"parallel_tool_calls": False} if tools and not request.parallel_tool_calls else {}),
        **_reasoning(request),
        **({"logprobs": True, "top_logprobs": request.logprobs} if request.logprobs is not None else {}),
        **({"add_generation_prompt": False} if not request.open_answer else {}),
        **({"continue_final_message": True, "add_generation_prompt": False} if request.continue_final else {}),
    }


def completion_body(request: chat.CompletionRequest, model: str) -> Tree:
    """Return the body of POST /v1/completions, streamed with its usage at the end.

    Raises `Unsupported` for a prompt that the endpoint cannot have.
    """
    for given, name in (
        (request.media, "images and sounds"), (request.context, "context"), (request.template, "template"),
        (not request.raw, "a prompt that needs the model's template"), (len(request.prompts) > 1, "several prompts"),
    ):  # fmt: skip
        if given:
            raise Unsupported(f"a peer cannot have {name} in a completion", hint="send it to /v1/chat/completions")
    [prompt] = request.prompts
    if not isinstance(prompt, str) and not all(isinstance(part, int) for part in prompt):
        raise Unsupported("a peer takes a prompt of text or of token ids, not of both", field="prompt")
    return {
        **_common(request, model),
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        **({"suffix": request.suffix} if request.suffix is not None else {}),
        **({"echo": True} if request.echo else {}),
        **({"logprobs": request.logprobs} if request.logprobs is not None else {}),
    }


def as_chat(request: chat.CompletionRequest) -> chat.ChatRequest | None:
    """Return a prompt for the model's template, as Ollama's /api/generate has it, as a conversation; None for others.

    A prompt with a suffix, a template or tokens of its own is no conversation.
    """
    prompt = request.prompts[0] if len(request.prompts) == 1 else None
    if request.raw or not isinstance(prompt, str):
        return None
    if request.suffix is not None or request.template or request.context or request.echo:
        return None
    shared = {name: getattr(request, name) for name in field_names(chat.TextRequest)}
    system = [chat.Message(role="system", content=(chat.TextPart(text=request.system),))] if request.system else []
    question = chat.Message(role="user", content=(chat.TextPart(text=prompt), *request.media))
    return chat.ChatRequest(**shared, messages=(*system, question))


def embedding_body(request: chat.EmbedRequest, model: str) -> Tree:
    """Return the body of POST /v1/embeddings, with vectors as base64 of little-endian floats."""
    inputs: list[Any] = []
    for item in request.inputs:
        if isinstance(item, str):
            inputs.append(item)
        elif all(isinstance(part, int) for part in item):
            inputs.append(list(item))
        else:
            raise Unsupported("a peer takes an input of text or of token ids, not of both", field=request.place)
    if request.prompt is not None:
        raise Unsupported("a peer has no declared prompts of embeddings", field=request.prompt_place)
    dimensions = {"dimensions": request.dimensions} if request.dimensions is not None else {}
    return {"model": model, "input": inputs, "encoding_format": "base64", **dimensions}


def rerank_body(request: chat.RerankRequest, model: str) -> Tree:
    """Return the body of POST /v1/rerank."""
    best = {"top_n": request.top_n} if request.top_n is not None else {}
    return {"model": model, "query": request.query, "documents": list(request.documents), **best}


def _common(request: chat.TextRequest, model: str) -> Tree:
    """Return the fields of both kinds of completions."""
    if request.adapters:
        raise Unsupported("a peer takes no adapters by request", hint="name a model of the peer that has them")
    tree: Tree = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    tree |= dict(_sampling(request.sampling))
    if request.max_tokens is not None and request.max_tokens >= 0:
        tree["max_tokens"] = request.max_tokens
    if request.stop:
        tree["stop"] = list(request.stop)
    if request.n != 1:
        tree["n"] = request.n
    if request.user is not None:
        tree["user"] = request.user
    if request.conversation is not None:
        tree["prompt_cache_key"] = request.conversation
    if request.ignore_eos:
        tree["ignore_eos"] = True
    if not request.cache:
        tree["cache_prompt"] = False
    return tree | _format(request.format)


def _sampling(sampling: chat.Sampling) -> Iterator[tuple[str, Any]]:
    for name in field_names(sampling):
        value = getattr(sampling, name)
        if value is None:
            continue
        if name == "logit_bias":
            yield name, {str(token): bias for token, bias in value}
        else:
            yield name, list(value) if isinstance(value, tuple) else value


def _format(format: chat.ResponseFormat | None) -> Tree:
    if format is None:
        return {}
    match format.kind:
        case "json":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            schema = {"name": "answer", "schema": format.schema, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "gbnf":
            return {"grammar": format.grammar}
        case "regex":
            raise Unsupported("a peer takes no regular expression as a format", field="format")


def _message(message: chat.Message) -> Tree:
    tree: Tree = {"role": message.role}
    if any(isinstance(part, chat.MediaPart) for part in message.content):
        tree["content"] = [_part(part) for part in message.content]
    elif message.content or not message.tool_calls:
        tree["content"] = message.text
    if message.thinking:
        tree["reasoning_content"] = message.thinking
    if message.tool_calls:
        tree["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.role == "tool":
        tree["tool_call_id"] = message.tool_call_id or message.tool_name or ""
        tree |= {"name": message.tool_name} if message.tool_name else {}
    elif message.name:
        tree["name"] = message.name
    return tree


def _part(part: chat.Part) -> Tree:
    if isinstance(part, chat.TextPart):
        return {"type": "text", "text": part.text}
    if part.data is None:  # the peer fetches it
        return {"type": "image_url", "image_url": {"url": part.url}}
    found = format_of(part.data)
    encoded = base64.b64encode(part.data).decode("ascii")
    if part.kind == "audio":
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": found or "wav"}}
    return {"type": "image_url", "image_url": {"url": f"data:image/{found or 'png'};base64,{encoded}"}}


def _call(call: chat.ToolCall) -> Tree:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tools(request: chat.ChatRequest) -> tuple[list[Tree], Any]:
    """Return the tools, only those that may be called, and the choice among them."""
    choice = request.tool_choice
    allowed = [tool for tool in request.tools if not choice.names or tool.name in choice.names]
    tools = []
    for tool in allowed:
        function: Tree = {"name": tool.name}
        function |= {"description": tool.description} if tool.description else {}
        function |= {"parameters": tool.parameters} if tool.parameters is not None else {}
        function |= {"strict": True} if tool.strict else {}
        tools.append({"type": "function", "function": function})
    return tools, choice.mode


def _reasoning(request: chat.ChatRequest) -> Tree:
    tree: Tree = {}
    arguments = dict(request.template_arguments)
    if isinstance(request.think, str):
        tree["reasoning_effort"] = request.think
    elif request.think is not None:
        arguments.setdefault("enable_thinking", request.think)
    if request.think_budget is not None and request.think_budget >= 0:
        tree["thinking_budget_tokens"] = request.think_budget
    return tree | ({"chat_template_kwargs": arguments} if arguments else {})
