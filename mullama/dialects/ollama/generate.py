"""Ollama's `/api/generate`: prompts to continue, complete and streamed."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat import types
from mullama.chat.inventory import Loaded, LoadModel
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.formats import THINK
from mullama.dialects.ollama.chat import IMAGES
from mullama.dialects.ollama.ndjson import (
    HEAD_SCHEMA,
    METRICS_SCHEMA,
    LineStream,
    done_reason,
    head,
    metrics,
    rendered,
    tool_call,
)
from mullama.dialects.ollama.options import (
    FORMAT,
    GENERATION,
    RENDER_ONLY,
    TRUNCATE,
    read_logprobs,
    read_options,
    shift_warning,
)
from mullama.dialects.reply_values import logprob_entries
from mullama.dialects.sampling import KEEP_ALIVE, MOST_TOKEN
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue

_MOST_CONTEXT = 2**21

PROMPT = fields.text("prompt")
_SUFFIX = fields.text("suffix")
_SYSTEM = fields.text("system")
_TEMPLATE = fields.text("template")
_RAW = fields.flag("raw")
_CONTEXT: fields.Field[tuple[int, ...]] = fields.many(
    "context",
    lambda value, path: fields.to_integer(value, path, 0, MOST_TOKEN),
    schema.COUNT,
    _MOST_CONTEXT,
)


def decode(request: WireRequest) -> types.CompletionRequest | LoadModel | types.RenderRequest:
    """Decode a prompt to continue; without prompt and images, a load or unload of the model."""
    body = fields.body_of(request.body)
    model = fields.model_named(body)
    completion = _request(body, model)
    if not completion.prompts[0] and not completion.media and not completion.suffix:
        return LoadModel(model=model, keep_alive=completion.keep_alive)
    if completion.raw and (completion.template or completion.system or completion.context):
        raise Invalid("raw mode does not support template, system, or context", field="raw")
    return _rendered(completion, body) if body.get(RENDER_ONLY) else completion


def _request(body: fields.Body, model: str) -> types.CompletionRequest:
    options = read_options(body)
    raw = body.get(_RAW) or False
    stream = body.get(fields.STREAM)
    truncate = body.get(TRUNCATE)
    return types.CompletionRequest(
        model=model,
        prompts=(body.get(PROMPT) or "",),
        suffix=body.get(_SUFFIX) or None,
        raw=raw,
        system=body.get(_SYSTEM),
        template=body.get(_TEMPLATE) or None,
        media=body.get(IMAGES) or (),
        context=body.get(_CONTEXT) or (),
        stream=True if stream is None else stream,
        sampling=options.sampling,
        max_tokens=options.max_tokens,
        stop=options.stop,
        logprobs=read_logprobs(body),
        format=body.get(FORMAT),
        think=body.get(THINK),
        keep_alive=body.get(KEEP_ALIVE),
        context_size=options.context_size,
        draft=options.draft,
        truncate=True if truncate is None else truncate,
        warnings=options.warnings + shift_warning(body),
    )


def _rendered(request: types.CompletionRequest, body: fields.Body) -> types.RenderRequest:
    """Return the prompt as a conversation to render."""
    for name in ("raw", "suffix", "template", "context"):
        if body.raw(name):
            raise Unsupported(f"a prompt with {name} cannot be shown", hint="leave it out", field=RENDER_ONLY.name)
    system = (types.text_message("system", request.system),) if request.system else ()
    user = types.Message(role="user", content=(*request.media, types.TextPart(text=str(request.prompts[0]))))
    return types.RenderRequest(
        chat=types.ChatRequest(model=request.model, messages=(*system, user), think=request.think)
    )


def _answer(choice: types.Choice) -> dict[str, JSONValue]:
    calls: list[JSONValue] = [tool_call(i, call) for i, call in enumerate(choice.tool_calls)]
    tokens = logprob_entries(choice.logprobs)
    return {
        "response": choice.text,
        **({"thinking": choice.thinking} if choice.thinking else {}),
        **({"tool_calls": calls} if calls else {}),
        **({"logprobs": tokens} if tokens else {}),
    }


def encode(
    context: ReplyContext[
        types.CompletionRequest | LoadModel | types.RenderRequest, types.Answer | Loaded | types.DetokenizedText
    ],
) -> Reply:
    """Return the complete answer as one object."""
    if isinstance(context.operation, types.RenderRequest):
        assert isinstance(context.result, types.DetokenizedText)
        return rendered(context.operation, context.result.text, context.created)
    assert not isinstance(context.result, types.DetokenizedText)
    first = head(context.operation.model, context.created)
    match context.result:
        case Loaded():
            reason = "unload" if context.result.unloaded else "load"
            return Reply(body={**first, "response": "", "done": True, "done_reason": reason})
        case types.Answer():
            choice = context.result.choices[0]
            tokens: dict[str, JSONValue] = {"context": list(context.result.context)} if context.result.context else {}
            return Reply(
                body={
                    **first,
                    **_answer(choice),
                    "done": True,
                    "done_reason": done_reason(choice.reason),
                    **tokens,
                    **metrics(context.result.usage, context.result.timings),
                }
            )


class GenerateStream(LineStream):
    """Writes one NDJSON line for each piece; the last line has the metrics and the conversation as tokens."""

    def __init__(self, context: ReplyContext[types.CompletionRequest, None]) -> None:
        self._head = {**head(context.operation.model, context.created), "response": "", "done": False}
        self._reason = types.StopReason.STOP

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta() | types.ThinkingDelta():
                return (self._text(event),)
            case types.ToolCallFinished():
                calls: JSONValue = [tool_call(event.index, event.call)]
                return (Frame(data={**self._head, "tool_calls": calls}),)
            case types.Finished():
                self._reason = event.reason
            case types.Completed() if not self._ended:
                self._ended = True
                return (self._last(event),)
            case _:
                pass
        return ()

    def _text(self, event: types.TextDelta | types.ThinkingDelta) -> Frame:
        name = "thinking" if isinstance(event, types.ThinkingDelta) else "response"
        data: dict[str, JSONValue] = {**self._head, name: event.text}
        if event.logprobs:
            data["logprobs"] = logprob_entries(event.logprobs)
        return Frame(data=data)

    def _last(self, event: types.Completed) -> Frame:
        context: dict[str, JSONValue] = {"context": list(event.context)} if event.context else {}
        return Frame(
            data={
                **self._head,
                "done": True,
                "done_reason": done_reason(self._reason),
                **context,
                **metrics(event.usage, event.timings),
            }
        )


_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL, PROMPT, _SUFFIX, _SYSTEM, _TEMPLATE, _CONTEXT, fields.STREAM, _RAW, IMAGES, *GENERATION,
)  # fmt: skip

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/generate",
        decode=decode,
        encode=encode,
        stream=GenerateStream,
        summary="Generate a completion; without a prompt, load or unload the model",
        request_schema=fields.request_schema(*_FIELDS),
        response_schema=schema.record(
            "model created_at",
            **HEAD_SCHEMA,
            response=schema.STRING,
            thinking=schema.STRING,
            context=schema.listed(schema.COUNT),
            **METRICS_SCHEMA,
        ),
    ),
)
