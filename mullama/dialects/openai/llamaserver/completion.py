"""llama-server's `/completion` and `/infill`: prompts to continue, in the native form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, assert_never

from mullama.chat import types
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.inputs import INPUT_SCHEMA, Input, inputs_of, prompts_of
from mullama.dialects.openai.request_fields import COMMON, N, read_common
from mullama.dialects.openai.streams import EventStream
from mullama.dialects.openai.usage import timings_of
from mullama.dialects.reply_values import finite
from mullama.dialects.sampling import MOST_LOGPROBS
from mullama.errors import Unsupported
from mullama.names import JSONValue

_N_PROBS = fields.integer("n_probs", 0, MOST_LOGPROBS)
_RETURN_TOKENS = fields.flag("return_tokens")
_POST_SAMPLING = fields.flag("post_sampling_probs")
_PREFIX = fields.text("input_prefix")
_SUFFIX = fields.text("input_suffix")
_PROMPT = fields.text("prompt")
_EXTRA = fields.many("input_extra", fields.to_record, schema.RECORD, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeCall(types.CompletionRequest):
    """A prompt to continue, in llama-server's form."""


def decode(request: WireRequest) -> NativeCall:
    """Decode one or more prompts; a stream has one."""
    body = fields.body_of(request.body)
    n = body.get(N) or 1
    return _request(body, prompts_of(body.raw("prompt"), "prompt", n), None)


def decode_infill(request: WireRequest) -> NativeCall:
    """Decode the texts before and after a gap; other files precede them."""
    body = fields.body_of(request.body)
    extra = (fields.Body(one, f"input_extra[{i}]") for i, one in enumerate(body.get(_EXTRA) or ()))
    files = "".join(f"--- snippet ---\n{one.get(fields.text('text')) or ''}\n" for one in extra)
    before = files + (body.get(_PREFIX) or "") + (body.get(_PROMPT) or "")
    return _request(body, (before,), body.get(_SUFFIX) or "")


def _request(body: fields.Body, prompts: tuple[Input, ...], suffix: str | None) -> NativeCall:
    common = read_common(body)
    stream = body.get(fields.STREAM) or False
    if stream and (len(prompts) > 1 or common["n"] > 1):
        raise Unsupported(
            "a stream has one prompt and one answer",
            hint="send several requests, or use /v1/completions",
            field="stream",
        )
    if body.get(_POST_SAMPLING):
        raise Unsupported("probabilities are those before sampling", field="post_sampling_probs")
    return NativeCall(
        model=fields.model_named(body),
        prompts=prompts,
        suffix=suffix,
        stream=stream,
        **common,
        logprobs=body.get(_N_PROBS) or None,
        want_context=body.get(_RETURN_TOKENS) or False,
    )


def _settings(context: ReplyContext[NativeCall, Any]) -> dict[str, JSONValue]:
    """Return the settings of the request, without defaults for settings that it omits."""
    sampling: dict[str, JSONValue] = {}
    for one in dataclasses.fields(context.operation.sampling):
        value = getattr(context.operation.sampling, one.name)
        if value is not None:
            sampling[one.name] = _plain(value)
    return {
        **sampling,
        "n_ctx": context.context_size,
        "n_predict": -1 if context.operation.max_tokens is None else context.operation.max_tokens,
        "stop": list(context.operation.stop),
        "stream": context.operation.stream,
        "n_probs": context.operation.logprobs or 0,
        "ignore_eos": context.operation.ignore_eos,
    }


def _plain(value: JSONValue) -> JSONValue:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return False if isinstance(value, float) and math.isinf(value) else value


def _stop_type(reason: types.StopReason) -> str:
    match reason:
        case types.StopReason.STOP | types.StopReason.TOOL_CALLS:
            return "eos"
        case types.StopReason.STOP_SEQUENCE:
            return "word"
        case types.StopReason.LENGTH:
            return "limit"
        case types.StopReason.CANCELLED:
            return "none"
        case _:
            assert_never(reason)


def _probability(token: types.TokenLogprob) -> dict[str, JSONValue]:
    return {
        "id": token.id,
        "token": token.text,
        "bytes": list(token.bytes),
        "logprob": finite(token.logprob),
    }


def _probabilities(tokens: tuple[types.TokenLogprob, ...]) -> dict[str, JSONValue]:
    if not tokens:
        return {}
    each: list[JSONValue] = [
        {**_probability(token), "top_logprobs": [_probability(t) for t in token.top]} for token in tokens
    ]
    return {"completion_probabilities": each}


def _end(
    context: ReplyContext[NativeCall, Any], finished: types.Finished, usage: types.Usage, timings: types.Timings
) -> dict[str, JSONValue]:
    """Return the members that are known at the end of an answer."""
    prompt = context.operation.prompts[finished.choice // context.operation.n]
    return {
        "index": finished.choice,
        "id_slot": -1,
        "stop": True,
        "model": context.operation.model,
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
        "tokens_cached": usage.cached_tokens,
        "generation_settings": _settings(context),
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "truncated": False,
        "stop_type": _stop_type(finished.reason),
        "stopping_word": finished.stop_sequence or "",
        "timings": timings_of(usage, timings),
    }


def encode(context: ReplyContext[NativeCall, types.Answer]) -> Reply:
    """Return an object for one answer, a list for several."""
    answers: list[JSONValue] = []
    for choice in context.result.choices:
        finished = types.Finished(reason=choice.reason, stop_sequence=choice.stop_sequence, choice=choice.index)
        generated = context.result.context[context.result.usage.prompt_tokens :]
        answers.append(
            {
                "content": choice.text,
                "tokens": list(generated) if context.operation.want_context else [],
                "has_new_line": "\n" in choice.text,
                **_end(context, finished, context.result.usage, context.result.timings),
                **_probabilities(choice.logprobs),
            }
        )
    return Reply(body=answers[0] if len(answers) == 1 else answers)


class NativeStream(EventStream):
    """Writes one event for each piece; the last has `stop: true` and the totals."""

    def __init__(self, context: ReplyContext[NativeCall, None]) -> None:
        self._context = context
        self._prompt_tokens = 0
        self._new_line = False
        self._last = types.Finished(reason=types.StopReason.STOP)

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta():
                return (self._text(event),)
            case types.Started():
                self._prompt_tokens = event.prompt_tokens
            case types.Finished():
                self._last = event
            case types.Completed() if not self._ended:
                self._ended = True
                return (self._end(event),)
            case _:
                pass
        return ()

    def _text(self, event: types.TextDelta) -> Frame:
        self._new_line = self._new_line or "\n" in event.text
        return Frame(
            data={
                "index": event.choice,
                "content": event.text,
                "tokens": [],
                "stop": False,
                "id_slot": -1,
                "tokens_evaluated": self._prompt_tokens,
                **_probabilities(event.logprobs),
            }
        )

    def _end(self, event: types.Completed) -> Frame:
        generated = event.context[event.usage.prompt_tokens :]
        return Frame(
            data={
                "content": "",
                "tokens": list(generated) if self._context.operation.want_context else [],
                "has_new_line": self._new_line,
                **_end(self._context, self._last, event.usage, event.timings),
            }
        )


_COMMON: tuple[fields.Field[object], ...] = (
    fields.MODEL, fields.STREAM, *COMMON, _N_PROBS, _RETURN_TOKENS, _POST_SAMPLING,
)  # fmt: skip
_ANSWER = schema.record(
    "content stop tokens_predicted tokens_evaluated",
    content=schema.STRING,
    stop=schema.BOOLEAN,
    stop_type=schema.one_of("none", "eos", "limit", "word"),
    stopping_word=schema.STRING,
    tokens_predicted=schema.COUNT,
    tokens_evaluated=schema.COUNT,
    timings=schema.RECORD,
)
_RESPONSE_SCHEMA = schema.either(_ANSWER, schema.listed(_ANSWER))

ENDPOINTS = (
    *(
        Endpoint(
            method="POST",
            path=path,
            decode=decode,
            encode=encode,
            stream=NativeStream,
            summary="Generate a completion (llama-server's format)",
            request_schema=fields.request_schema(*_COMMON, fields.Field("prompt", inputs_of, INPUT_SCHEMA)),
            response_schema=_RESPONSE_SCHEMA,
        )
        for path in ("/completion", "/completions")
    ),
    Endpoint(
        method="POST",
        path="/infill",
        decode=decode_infill,
        encode=encode,
        stream=NativeStream,
        summary="Fill in the middle between two texts",
        request_schema=fields.request_schema(*_COMMON, _PREFIX, _SUFFIX, _PROMPT, _EXTRA),
        response_schema=_RESPONSE_SCHEMA,
    ),
)
