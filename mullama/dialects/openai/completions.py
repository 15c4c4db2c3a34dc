"""OpenAI's `/v1/completions`: prompts in all forms, echo with probabilities, fill-in-the-middle."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mullama.chat import types
from mullama.dialects import fields, schema
from mullama.dialects.base import Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.inputs import INPUT_SCHEMA, inputs_of, prompt_with_media, prompts_of
from mullama.dialects.openai import native_form
from mullama.dialects.openai.native_form import NO_OPTIONS, ReplyOptions
from mullama.dialects.openai.request_fields import COMMON, include_usage, read_common
from mullama.dialects.openai.streams import DONE, EventStream
from mullama.dialects.openai.usage import (
    USAGE_SCHEMA,
    fingerprint,
    finish_reason,
    timings_of,
    usage_of,
)
from mullama.dialects.reply_values import finite
from mullama.dialects.sampling import MOST_CHOICES, MOST_LOGPROBS
from mullama.errors import Unsupported
from mullama.names import JSONValue


class CompletionCall(types.CompletionRequest, frozen=True, kw_only=True):
    """Prompts to continue; `include_usage` makes a stream report its token counts."""

    include_usage: bool = False
    reply: ReplyOptions = NO_OPTIONS


def _logprobs(value: JSONValue, path: str) -> int | None:
    """Return the number of alternatives; some clients send a boolean, as for chat."""
    if isinstance(value, bool):
        return 0 if value else None
    return fields.to_integer(value, path, 0, MOST_LOGPROBS)


_LOGPROBS: fields.Field[int | None] = fields.Field("logprobs", _logprobs, schema.either(schema.INTEGER, schema.BOOLEAN))
_SUFFIX = fields.text("suffix")
_ECHO = fields.flag("echo")
_BEST_OF = fields.integer("best_of", 0, 2 * MOST_CHOICES)
_TRUNCATE = fields.flag("truncate")


def decode(request: WireRequest) -> CompletionCall:
    """Decode one request for all prompts; `choices[prompt * n + choice]` are their answers."""
    body = fields.body_of(request.body)
    model = fields.model_named(body)
    common = read_common(body)
    logprobs = body.get(_LOGPROBS)
    common["logprobs"] = common["logprobs"] if logprobs is None else logprobs
    if (body.get(_BEST_OF) or 1) > common["n"]:
        raise Unsupported("best_of above n is not supported", hint="ask for n answers and choose", field="best_of")
    prompt, media = prompt_with_media(body)
    prompts, echo = prompts_of(prompt, "prompt", common["n"]), body.get(_ECHO) or False
    if common["logprobs"] is not None and not echo and not all(isinstance(prompt, str) for prompt in prompts):
        common["want_prompt"] = True  # the offsets of the answer's tokens begin at the length of its text
    return CompletionCall(
        model=model,
        prompts=prompts,
        media=media,
        suffix=body.get(_SUFFIX) or None,
        stream=body.get(fields.STREAM) or False,
        **common,
        echo=echo,
        truncate=body.get(_TRUNCATE) or False,
        include_usage=include_usage(body),
    )


def _head(context: ReplyContext[CompletionCall, Any]) -> dict[str, JSONValue]:
    return {
        "id": f"cmpl-{context.id}",
        "object": "text_completion",
        "created": int(context.created),
        "model": context.operation.model,
        "system_fingerprint": fingerprint(context.version),
    }


def _first_offset(call: CompletionCall, choice: int, prompt: str) -> int:
    """Return the place of the first token in prompt and answer, in characters.

    prompt: the prompt as the model reads it; only the length of a prompt of token ids is counted there.
    """
    if call.echo:
        return 0
    sent = call.prompts[choice // call.n]
    return len(sent if isinstance(sent, str) else prompt)


def _alternatives(token: types.TokenLogprob) -> dict[str, JSONValue]:
    """Return the logprobs of the alternatives by text; OpenAI's form for a part of a character is "bytes:\\xe2"."""
    found: dict[str, JSONValue] = {}
    for other in token.top:
        part = other.id != token.id and other.text.encode("utf-8", "surrogatepass") != other.bytes
        text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in other.bytes) if part and other.bytes else other.text
        found.setdefault(text, finite(other.logprob))
    return found


def _probabilities(call: CompletionCall, tokens: tuple[types.TokenLogprob, ...], offset: int) -> JSONValue:
    """Return parallel lists with one entry for each token; the first token of a prompt has no probability.

    Probabilities after sampling, which OpenAI does not have, are in llama-server's form.
    """
    if not tokens:
        return None
    if call.post_sampling:
        return {"content": native_form.probabilities(tokens, post_sampling=True)}
    offsets: list[JSONValue] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    known = [token.logprob == token.logprob for token in tokens]  # only nan differs from itself
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [
            finite(token.logprob) if there else None for token, there in zip(tokens, known, strict=True)
        ],
        "top_logprobs": [_alternatives(token) if there else None for token, there in zip(tokens, known, strict=True)],
        "text_offset": offsets,
    }


def _prompt(choice: types.Choice) -> str:
    return choice.outcome.prompt if choice.outcome else ""


def encode(context: ReplyContext[CompletionCall, types.Answer]) -> Reply:
    """Return the complete answer as one object."""
    choices: list[JSONValue] = [
        {
            "text": choice.text,
            "index": choice.index,
            "logprobs": _probabilities(
                context.operation, choice.logprobs, _first_offset(context.operation, choice.index, _prompt(choice))
            ),
            "finish_reason": finish_reason(choice.reason, "stop"),
        }
        for choice in context.result.choices
    ]
    return Reply(
        body={
            **_head(context),
            "choices": choices,
            "usage": usage_of(context.result.usage),
            "timings": timings_of(context.result.usage, context.result.timings),
            **native_form.verbose(context.operation, context.result, context.context_size),
        }
    )


class CompletionStream(EventStream):
    """Writes chunks of text, the reason of each end, counts if requested, `[DONE]`."""

    def __init__(self, context: ReplyContext[CompletionCall, None]) -> None:
        self._include_usage = context.operation.include_usage
        usage: dict[str, JSONValue] = {"usage": None} if context.operation.include_usage else {}
        self._head = {**_head(context), **usage}
        self._offsets: dict[int, int] = {}
        self._call = context.operation
        self._extras = native_form.StreamExtras(context.operation, context.context_size)
        self._open = len(context.operation.prompts) * context.operation.n
        self._last: types.Finished | None = None

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta():
                return (self._text(event),)
            case types.Started() | types.Generated():
                self._extras.note(event)
                return ()
            case types.PromptText():
                self._offsets[event.choice] = _first_offset(self._call, event.choice, event.text)
                return ()
            case types.PromptProgress() if self._call.progress:
                return (self._chunk(event.choice, "", None, None, self._extras.progress(event)),)
            case types.Finished():
                return self._finished(event)
            case types.Completed() if not self._ended:
                self._ended = True
                return self._completed(event)
            case _:
                return ()

    def _finished(self, event: types.Finished) -> tuple[Frame, ...]:
        """Return the end of a choice. The last one waits for the timings."""
        self._open -= 1
        if self._open > 0:
            return (self._end(event, self._extras.verbose(event, None)),)
        self._last = event
        return ()

    def _end(self, event: types.Finished, more: dict[str, JSONValue]) -> Frame:
        return self._chunk(event.choice, "", None, finish_reason(event.reason, "stop"), more)

    def _completed(self, event: types.Completed) -> tuple[Frame, ...]:
        """Return the last choice's end and the counts; the last chunk has the timings."""
        timings: dict[str, JSONValue] = {"timings": timings_of(event.usage, event.timings)}
        frames: list[Frame] = []
        if self._last is not None:
            more = self._extras.verbose(self._last, event)
            frames.append(self._end(self._last, more if self._include_usage else {**more, **timings}))
        if self._include_usage:
            counts: dict[str, JSONValue] = {**self._head, "choices": [], "usage": usage_of(event.usage)}
            frames.append(Frame(data={**counts, **timings}))
        return (*frames, DONE)

    def _text(self, event: types.TextDelta) -> Frame:
        offset = self._offsets.get(event.choice)
        if offset is None:
            offset = _first_offset(self._call, event.choice, "")
        self._offsets[event.choice] = offset + sum(len(token.text) for token in event.logprobs)
        logprobs = _probabilities(self._call, event.logprobs, offset)
        return self._chunk(event.choice, event.text, logprobs, None, self._extras.timings(event.choice))

    def _chunk(
        self, index: int, text: str, logprobs: JSONValue, reason: str | None, more: dict[str, JSONValue]
    ) -> Frame:
        one: JSONValue = {
            "text": text,
            "index": index,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
        return Frame(data={**self._head, "choices": [one], **more})


_FIELDS: tuple[fields.Field[object], ...] = (
    fields.MODEL,
    fields.Field("prompt", inputs_of, INPUT_SCHEMA),
    *COMMON, fields.STREAM, _SUFFIX, _ECHO, _BEST_OF, _LOGPROBS, fields.record("stream_options"),
)  # fmt: skip
REQUEST_SCHEMA = fields.request_schema(*_FIELDS)
RESPONSE_SCHEMA = schema.record(
    "id object created model choices usage",
    id=schema.STRING,
    object=schema.constant("text_completion"),
    created=schema.COUNT,
    model=schema.STRING,
    choices=schema.listed(
        schema.exact(
            text=schema.STRING,
            index=schema.COUNT,
            logprobs=schema.nullable(schema.RECORD),
            finish_reason=schema.one_of("stop", "length"),
        )
    ),
    usage=USAGE_SCHEMA,
    timings=schema.RECORD,
)
