"""llama-server's `/completion` and `/infill`: prompts to continue, in the native form."""

from __future__ import annotations

from collections.abc import Iterable

from mullama.chat import types
from mullama.dialects import fields, schema
from mullama.dialects.base import Endpoint, Frame, Reply, ReplyContext, StreamEvent, WireRequest
from mullama.dialects.inputs import INPUT_SCHEMA, inputs_of, prompt_with_media, prompts_of
from mullama.dialects.openai import native_form
from mullama.dialects.openai.native_form import NO_OPTIONS, ReplyOptions
from mullama.dialects.openai.request_fields import COMMON, N_PROBS, answers_of, read_common
from mullama.dialects.openai.streams import EventStream
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import replace

_LOGPROBS = N_PROBS.named("logprobs")
_PREFIX = fields.text("input_prefix")
_SUFFIX = fields.text("input_suffix")
_PROMPT = fields.text("prompt")


def _snippet(value: JSONValue, path: str) -> str:
    """Return the text of another file; its name is checked, because the prompt has no place for it."""
    body = fields.Body(value, path)
    body.get(fields.text("filename"))
    return body.need(fields.text("text"))


_EXTRA = fields.many(
    "input_extra",
    _snippet,
    schema.record("text", text=schema.STRING, filename=schema.nullable(schema.STRING)),
    256,
)


class NativeCall(types.CompletionRequest, frozen=True, kw_only=True):
    """Prompts to continue, in llama-server's form."""

    reply: ReplyOptions = NO_OPTIONS


def decode(request: WireRequest) -> NativeCall:
    """Decode one or more prompts."""
    body = fields.body_of(request.body)
    if body.raw("prompt") is None:
        raise Invalid("prompt is required", field="prompt")
    prompt, media = prompt_with_media(body)
    return _request(body, prompts_of(prompt, "prompt", answers_of(body)), None, media)


def decode_infill(request: WireRequest) -> NativeCall:
    """Decode the texts before and after a gap; other files precede them."""
    body = fields.body_of(request.body)
    files = "".join(f"--- snippet ---\n{text}\n" for text in body.get(_EXTRA) or ())
    before = files + body.need(_PREFIX) + (body.get(_PROMPT) or "")
    return _request(body, (before,), body.need(_SUFFIX))


def _request(
    body: fields.Body,
    prompts: tuple[types.PromptInput, ...],
    suffix: str | None,
    media: tuple[types.MediaPart, ...] = (),
) -> NativeCall:
    common = read_common(body)
    common["logprobs"] = common["logprobs"] or body.get(_LOGPROBS) or None
    stream = body.get(fields.STREAM) or False
    common["details"] = stream or common["reply"].return_tokens
    common["want_prompt"] = True
    return NativeCall(
        model=fields.model_named(body),
        prompts=prompts,
        suffix=suffix,
        media=media,
        stream=stream,
        **common,
    )


def encode(context: ReplyContext[NativeCall, types.Answer]) -> Reply:
    """Return an object for one answer, a list for several."""
    result, request = context.result, context.operation
    effective = native_form.effective_of(request, result.effective, context.context_size)
    answers: list[JSONValue] = [
        native_form.final(
            request,
            effective,
            choice,
            native_form.outcome_of(choice.outcome, result.usage, result.timings),
            content=choice.text,
            has_new_line="\n" in choice.text,
        )
        for choice in result.choices
    ]
    return Reply(body=answers[0] if len(answers) == 1 else answers)


class NativeStream(EventStream):
    """Writes one event for each piece; the last of each answer has `stop: true` and its totals."""

    def __init__(self, context: ReplyContext[NativeCall, None]) -> None:
        self._request = context.operation
        self._extras = native_form.StreamExtras(context.operation, context.context_size)
        self._answers = len(self._request.prompts) * self._request.n
        self._prompt_tokens = 0
        self._details: dict[int, types.Generated] = {}
        self._last: types.Finished | None = None

    def feed(self, event: StreamEvent) -> Iterable[Frame]:
        match event:
            case types.TextDelta():
                return (self._chunk(event.choice, event.text, self._details.pop(event.choice, None), event.logprobs),)
            case types.Generated():
                self._extras.note(event)
                before = self._details.get(event.choice)
                tokens = (*before.tokens, *event.tokens) if before else event.tokens
                self._details[event.choice] = replace(event, tokens=tokens)
            case types.Started():
                self._extras.note(event)
                self._prompt_tokens = event.prompt_tokens
            case types.PromptProgress() if self._request.progress:
                return (self._chunk(event.choice, "", None, more=self._extras.progress(event)),)
            case types.Finished():
                return self._finished(event)
            case types.Completed() if not self._ended:
                self._ended = True
                last = self._last or types.Finished(reason=types.StopReason.STOP)
                return (Frame(data=self._extras.final(last, event)),)
            case _:
                pass
        return ()

    def _finished(self, event: types.Finished) -> tuple[Frame, ...]:
        """Return the end of a choice. The last one waits for the end of the request."""
        # Tokens without text, such as half a character, have no event of their own.
        rest = self._details.pop(event.choice, None)
        frames = (self._chunk(event.choice, "", rest),) if rest is not None else ()
        self._answers -= 1
        if self._answers > 0 and event.outcome is not None:
            return (*frames, Frame(data=self._extras.final(event, None)))
        self._last = event
        return frames

    def _chunk(
        self,
        choice: int,
        text: str,
        details: types.Generated | None,
        logprobs: tuple[types.TokenLogprob, ...] = (),
        more: dict[str, JSONValue] | None = None,
    ) -> Frame:
        self._extras.wrote(choice, text)
        usage = details.usage if details else types.Usage(prompt_tokens=self._prompt_tokens)
        probabilities: dict[str, JSONValue] = {}
        if logprobs:
            found = native_form.probabilities(logprobs, post_sampling=self._request.post_sampling)
            probabilities = {"completion_probabilities": found}
        return Frame(
            data={
                "index": choice,
                "content": text,
                "tokens": list(details.tokens) if details else [],
                "stop": False,
                "id_slot": -1,
                "tokens_predicted": usage.completion_tokens,
                "tokens_evaluated": usage.prompt_tokens,
                **self._extras.timings(choice),
                **probabilities,
                **(more or {}),
            }
        )


_COMMON: tuple[fields.Field[object], ...] = (fields.MODEL, fields.STREAM, *COMMON, _LOGPROBS)
_ANSWER = schema.record(
    "",
    content=schema.STRING,
    stop=schema.BOOLEAN,
    stop_type=schema.one_of("none", "eos", "limit", "word"),
    stopping_word=schema.STRING,
    tokens_predicted=schema.COUNT,
    tokens_evaluated=schema.COUNT,
    tokens_cached=schema.COUNT,
    generation_settings=schema.RECORD,
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
