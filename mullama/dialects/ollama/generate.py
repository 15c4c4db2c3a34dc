"""Ollama's `/api/generate`: a prompt to go on from, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat.inventory import Loaded, LoadModel
from mullama.chat.types import (
    Answer,
    ChatRequest,
    Choice,
    Completed,
    CompletionRequest,
    DetokenizedText,
    Finished,
    Message,
    RenderRequest,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ToolCallFinished,
    say,
)
from mullama.dialects import logprobs, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.fields import (
    MODEL,
    STREAM,
    Body,
    Field,
    body_of,
    flag,
    many,
    model_named,
    request_schema,
    text,
    to_integer,
)
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
from mullama.dialects.sampling import KEEP_ALIVE, MOST_TOKEN
from mullama.errors import Invalid, Unsupported
from mullama.names import JSONValue

_MOST_CONTEXT = 2**21

PROMPT = text("prompt")
_SUFFIX = text("suffix")
_SYSTEM = text("system")
_TEMPLATE = text("template")
_RAW = flag("raw")
_CONTEXT: Field[tuple[int, ...]] = many(
    "context",
    lambda value, path: to_integer(value, path, 0, MOST_TOKEN),
    schema.COUNT,
    _MOST_CONTEXT,
)


def decode(request: WireRequest) -> CompletionRequest | LoadModel | RenderRequest:
    """A prompt to go on from; without prompt and images, the request to load or unload the model."""
    body = body_of(request.body)
    model = model_named(body)
    completion = _request(body, model)
    if not completion.prompts[0] and not completion.images and not completion.suffix:
        return LoadModel(model=model, keep_alive=completion.keep_alive)
    if completion.raw and (completion.template or completion.system or completion.context):
        raise Invalid("raw mode does not support template, system, or context", field="raw")
    return _rendered(completion, body) if body.get(RENDER_ONLY) else completion


def _request(body: Body, model: str) -> CompletionRequest:
    options = read_options(body)
    raw = body.get(_RAW) or False
    stream = body.get(STREAM)
    truncate = body.get(TRUNCATE)
    return CompletionRequest(
        model=model,
        prompts=(body.get(PROMPT) or "",),
        suffix=body.get(_SUFFIX) or None,
        raw=raw,
        system=body.get(_SYSTEM),
        template=body.get(_TEMPLATE) or None,
        images=body.get(IMAGES) or (),
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
        truncate=True if truncate is None else truncate,
        want_context=not raw,
        warnings=options.warnings + shift_warning(body),
    )


def _rendered(request: CompletionRequest, body: Body) -> RenderRequest:
    """The same prompt as the conversation that it stands for."""
    for name in ("raw", "suffix", "template", "context"):
        if body.raw(name):
            raise Unsupported(f"a prompt with {name} cannot be shown", hint="leave it out", field=RENDER_ONLY.name)
    system = (say("system", request.system),) if request.system else ()
    user = Message(role="user", content=(TextPart(text=str(request.prompts[0])), *request.images))
    return RenderRequest(chat=ChatRequest(model=request.model, messages=(*system, user), think=request.think))


def _answer(choice: Choice) -> dict[str, JSONValue]:
    calls: list[JSONValue] = [tool_call(i, call) for i, call in enumerate(choice.tool_calls)]
    tokens = logprobs.entries(choice.logprobs)
    return {
        "response": choice.text,
        **({"thinking": choice.thinking} if choice.thinking else {}),
        **({"tool_calls": calls} if calls else {}),
        **({"logprobs": tokens} if tokens else {}),
    }


def encode(
    context: ReplyContext[CompletionRequest | LoadModel | RenderRequest, Answer | Loaded | DetokenizedText],
) -> Reply:
    """The whole answer as one object."""
    if isinstance(context.operation, RenderRequest):
        assert isinstance(context.result, DetokenizedText)
        return rendered(context.operation, context.result.text, context.created)
    assert not isinstance(context.result, DetokenizedText)
    first = head(context.operation.model, context.created)
    match context.result:
        case Loaded():
            reason = "unload" if context.result.unloaded else "load"
            return Reply(body={**first, "response": "", "done": True, "done_reason": reason})
        case Answer():
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
    """One NDJSON line per piece; the last line has the metrics and the conversation as tokens."""

    def __init__(self, context: ReplyContext[CompletionRequest, None]) -> None:
        self._head = {**head(context.operation.model, context.created), "response": "", "done": False}
        self._reason = StopReason.STOP

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case TextDelta():
                return (self._text(event),)
            case ThinkingDelta():
                return (Frame(data={**self._head, "thinking": event.text}),)
            case ToolCallFinished():
                calls: JSONValue = [tool_call(event.index, event.call)]
                return (Frame(data={**self._head, "tool_calls": calls}),)
            case Finished():
                self._reason = event.reason
            case Completed() if not self._ended:
                self._ended = True
                return (self._last(event),)
            case _:
                pass
        return ()

    def _text(self, event: TextDelta) -> Frame:
        data: dict[str, JSONValue] = {**self._head, "response": event.text}
        if event.logprobs:
            data["logprobs"] = logprobs.entries(event.logprobs)
        return Frame(data=data)

    def _last(self, event: Completed) -> Frame:
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


_FIELDS: tuple[Field[object], ...] = (
    MODEL, PROMPT, _SUFFIX, _SYSTEM, _TEMPLATE, _CONTEXT, STREAM, _RAW, IMAGES, *GENERATION,
)  # fmt: skip

ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/api/generate",
        decode=decode,
        encode=encode,
        stream=GenerateStream,
        summary="Go on from a prompt; without one, load or unload the model",
        request_schema=request_schema(*_FIELDS, required="model"),
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
