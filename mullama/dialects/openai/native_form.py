"""llama-server's own form of answers: results, settings, probabilities and progress.

The fields are those of `server_task_result_cmpl_final`, `server_task_result_cmpl_partial`, `task_params` and
`result_prompt_progress` in llama.cpp's tools/server. Its other dialects contain the same objects: `verbose` adds a
result, `return_progress` the progress.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import assert_never

from mullama.chat import types
from mullama.chat.sampling_fields import fold_seed
from mullama.dialects import fields, schema
from mullama.dialects.openai.usage import timings_of
from mullama.dialects.reply_values import finite
from mullama.names import JSONValue
from mullama.struct import Struct

_RANDOM_SEED = 0xFFFFFFFF  # LLAMA_DEFAULT_SEED
_WORD_TRIGGER = 1  # COMMON_GRAMMAR_TRIGGER_TYPE_WORD
_DEFAULT_SAMPLERS = (
    "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature",
)  # fmt: skip
_SPECULATION = {"": "none", "ngram": "ngram-simple", "model": "draft-simple", "mtp": "draft-mtp"}
REASONING_FORMATS = ("none", "deepseek", "deepseek-legacy", "auto")

TIMINGS_PER_TOKEN = fields.flag("timings_per_token")
VERBOSE = fields.flag("verbose")
RETURN_TOKENS = fields.flag("return_tokens")
RETURN_PROGRESS = fields.flag("return_progress")
POST_SAMPLING = fields.flag("post_sampling_probs")
REASONING_FORMAT = fields.choice("reasoning_format", REASONING_FORMATS)
RESPONSE_FIELDS = fields.many("response_fields", fields.to_text, schema.STRING, 256)


def scales_of(value: JSONValue, path: str) -> tuple[tuple[int | str, float], ...]:
    """Return the adapters of a list of `{"id": number or name, "scale": number}`."""
    return fields.to_list(value, path, _scale, _MOST_ADAPTERS)


def _scale(value: JSONValue, path: str) -> tuple[int | str, float]:
    adapter = fields.Body(value, path)
    return adapter.need(_ADAPTER_ID), adapter.need(_ADAPTER_SCALE)


def _to_adapter(value: JSONValue, path: str) -> int | str:
    return value if isinstance(value, str) else _ADAPTER_NUMBER.convert(value, path)


_MOST_ADAPTERS = 64
_ADAPTER_NUMBER = fields.integer("id", 0, 2**31 - 1)
_ADAPTER_ID: fields.Field[int | str] = fields.Field(
    "id", _to_adapter, schema.either(_ADAPTER_NUMBER.schema, schema.STRING)
)
_ADAPTER_SCALE = fields.number("scale", -1000, 1000)
SCALES_SCHEMA = schema.listed(schema.exact(id=_ADAPTER_ID.schema, scale=schema.NUMBER), most=_MOST_ADAPTERS)
LORA = fields.Field("lora", scales_of, SCALES_SCHEMA)

NATIVE_FIELDS: tuple[fields.Field[object], ...] = (
    TIMINGS_PER_TOKEN, VERBOSE, RETURN_TOKENS, RETURN_PROGRESS, POST_SAMPLING, REASONING_FORMAT, RESPONSE_FIELDS,
)  # fmt: skip


class ReplyOptions(Struct, frozen=True, kw_only=True):
    """llama-server's options of a reply's form, which every dialect of it accepts."""

    timings_per_token: bool = False
    """Each chunk of a stream has `timings`."""
    verbose: bool = False
    """The reply has the native result as `__verbose`."""
    return_tokens: bool = False
    """The native result has the ids of the answer's tokens."""
    response_fields: tuple[str, ...] = ()
    """Paths of the only members that the native result has; all of them if empty."""
    reasoning_format: str = "deepseek"


NO_OPTIONS = ReplyOptions()


def read_reply_options(body: fields.Body) -> ReplyOptions:
    return ReplyOptions(
        timings_per_token=body.get(TIMINGS_PER_TOKEN) or False,
        verbose=body.get(VERBOSE) or False,
        return_tokens=body.get(RETURN_TOKENS) or False,
        response_fields=body.get(RESPONSE_FIELDS) or (),
        reasoning_format=body.get(REASONING_FORMAT) or "deepseek",
    )


def options_of(request: types.TextRequest) -> ReplyOptions:
    """Return the options of a request; the defaults for a request of another dialect."""
    options = getattr(request, "reply", None)
    return options if isinstance(options, ReplyOptions) else NO_OPTIONS


def generation_settings(
    request: types.TextRequest, effective: types.Effective, *, brief: bool = False
) -> dict[str, JSONValue]:
    """Return the settings of an answer as `task_params::to_json`, or with `brief` as `/props` and `/slots`."""
    options = options_of(request)
    limit = -1 if effective.max_tokens is None or effective.max_tokens < 0 else effective.max_tokens
    settings = {
        **_sampling_settings(effective.sampling),
        "stop": list(effective.stop),
        "max_tokens": limit,
        "n_predict": limit,
        "n_keep": 0,
        "n_discard": 0,
        "ignore_eos": request.ignore_eos,
        "stream": request.stream,
        "logit_bias": _biases(request, effective),
        "n_probs": request.logprobs or 0,
        "min_keep": effective.sampling.min_keep,
        **_grammar(request, effective.constraint),
        "chat_format": "Content-only" if isinstance(request, types.CompletionRequest) else "mullama",
        "reasoning_format": options.reasoning_format,
        "reasoning_in_content": request.stream and options.reasoning_format == "deepseek-legacy",
        "generation_prompt": "",
        "samplers": [_native_name(name) for name in effective.sampling.samplers or _DEFAULT_SAMPLERS],
        "speculative.types": _SPECULATION[effective.draft],
        "timings_per_token": options.timings_per_token,
        "post_sampling_probs": request.post_sampling,
        "backend_sampling": False,
        "lora": [{"id": id, "scale": scale} for id, scale in effective.adapters],
    }
    return {name: value for name, value in settings.items() if name not in _LONG} if brief else settings


# The members that the brief form of the settings lacks.
_LONG = frozenset(
    (
        "dry_sequence_breakers", "stop", "logit_bias", "grammar", "grammar_lazy", "grammar_triggers",
        "preserved_tokens",
    )
)  # fmt: skip


def _sampling_settings(sampling: types.Sampling) -> dict[str, JSONValue]:
    seed = None if sampling.seed is None else fold_seed(sampling.seed)
    return {
        "seed": _RANDOM_SEED if seed is None else seed,
        "temperature": sampling.temperature,
        "dynatemp_range": sampling.dynatemp_range,
        "dynatemp_exponent": sampling.dynatemp_exponent,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_n_sigma": sampling.top_n_sigma,
        "xtc_probability": sampling.xtc_probability,
        "xtc_threshold": sampling.xtc_threshold,
        "typical_p": sampling.typical_p,
        "repeat_last_n": sampling.repeat_last_n,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_length,
        "dry_penalty_last_n": sampling.dry_penalty_last_n,
        "dry_sequence_breakers": list(sampling.dry_sequence_breakers or ()),
        "mirostat": sampling.mirostat,
        "mirostat_tau": sampling.mirostat_tau,
        "mirostat_eta": sampling.mirostat_eta,
        # llama.cpp's defaults of a sampler that cannot be chosen here: off.
        "adaptive_target": -1.0,
        "adaptive_decay": 0.9,
    }


def _biases(request: types.TextRequest, effective: types.Effective) -> list[JSONValue]:
    """Return the biases of a request; null is the negative infinity that JSON lacks."""
    ends = effective.end_tokens if request.ignore_eos else ()
    pairs = (*(effective.sampling.logit_bias or ()), *((token, -math.inf) for token in ends))
    return [{"bias": bias if math.isfinite(bias) else None, "token": token} for token, bias in pairs]


def _grammar(request: types.TextRequest, constraint: types.Constraint | None) -> dict[str, JSONValue]:
    """Return the client's grammar, or the one that enforces its format or its tools."""
    given = request.format.grammar if request.format is not None and request.format.kind == "gbnf" else ""
    triggers = constraint.triggers if constraint else ()
    return {
        "grammar": given or (constraint.grammar if constraint else ""),
        "grammar_lazy": bool(triggers),
        "grammar_triggers": [{"type": _WORD_TRIGGER, "value": text} for text in triggers],
        "preserved_tokens": [],
    }


def _native_name(sampler: str) -> str:
    return "typ_p" if sampler == "typical_p" else sampler


def effective_of(request: types.TextRequest, effective: types.Effective | None, context_size: int) -> types.Effective:
    """Return the settings of an answer; without the model's, those of the request and the defaults."""
    return effective or types.Effective(
        model=request.model,
        context_size=context_size,
        sampling=request.sampling.over(types.DEFAULT_SAMPLING),
        max_tokens=request.max_tokens,
        stop=request.stop,
    )


def outcome_of(outcome: types.ChoiceOutcome | None, usage: types.Usage, timings: types.Timings) -> types.ChoiceOutcome:
    """Return the outcome of a choice; without one, that of the request."""
    held = usage.prompt_tokens + max(0, usage.completion_tokens - 1)
    return outcome or types.ChoiceOutcome(usage=usage, timings=timings, held_tokens=held)


def final(
    request: types.TextRequest,
    effective: types.Effective,
    choice: types.Choice,
    outcome: types.ChoiceOutcome,
    *,
    content: str,
    has_new_line: bool,
) -> dict[str, JSONValue]:
    """Return the result of one choice, with the members that `response_fields` selects."""
    usage, options = outcome.usage, options_of(request)
    full = usage.prompt_tokens + usage.completion_tokens >= effective.context_size
    result: dict[str, JSONValue] = {
        "index": choice.index,
        "content": content,
        "tokens": list(choice.tokens) if options.return_tokens and not request.stream else [],
        "id_slot": outcome.slot,
        "stop": True,
        "model": effective.model,
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
        "generation_settings": generation_settings(request, effective),
        "prompt": outcome.prompt or _prompt(request, choice.index),
        "has_new_line": has_new_line,
        "truncated": choice.reason is types.StopReason.LENGTH and full,
        "stop_type": _stop_type(choice.reason),
        "stopping_word": choice.stop_sequence or "",
        "tokens_cached": outcome.held_tokens,
        "timings": timings_of(usage, outcome.timings),
    }
    if choice.logprobs and not request.stream:
        result["completion_probabilities"] = probabilities(choice.logprobs, post_sampling=request.post_sampling)
    return selected(result, options.response_fields) if options.response_fields else result


def _prompt(request: types.TextRequest, choice: int) -> JSONValue:
    if not isinstance(request, types.CompletionRequest) or not request.prompts:
        return ""
    prompt = request.prompts[choice // request.n]
    return prompt if isinstance(prompt, str) else list(prompt)


def verbose(request: types.TextRequest, answer: types.Answer, context_size: int) -> dict[str, JSONValue]:
    """Return the native result of the first choice as `__verbose`, if the request wants it."""
    if not options_of(request).verbose or not answer.choices:
        return {}
    choice = answer.choices[0]
    result = final(
        request,
        effective_of(request, answer.effective, context_size),
        choice,
        outcome_of(choice.outcome, answer.usage, answer.timings),
        content=choice.raw,
        has_new_line="\n" in choice.raw,
    )
    return {"__verbose": result}


def selected(result: Mapping[str, JSONValue], paths: Sequence[str]) -> dict[str, JSONValue]:
    """Return the values at these paths, under their paths; a path without a value is left out."""
    found: dict[str, JSONValue] = {}
    for path in paths:
        value: JSONValue = dict(result)
        for key in path.split("/"):
            if not isinstance(value, Mapping) or key not in value:
                break
            value = value[key]
        else:
            found[path] = value
    return found


class StreamExtras:
    """The members that llama-server's options add to the chunks of a stream in another form."""

    def __init__(self, request: types.TextRequest, context_size: int) -> None:
        self._request, self._context_size = request, context_size
        self._options = options_of(request)
        self._effective: types.Effective | None = None
        self._timings: dict[int, dict[str, JSONValue]] = {}
        self._new_line: set[int] = set()

    def note(self, event: types.Started | types.Generated) -> None:
        """Keep the settings of the answer, or the counts of the chunk that follows."""
        match event:
            case types.Started():
                self._effective = event.effective
            case types.Generated():
                self.wrote(event.choice, event.text)
                if self._options.timings_per_token:
                    self._timings[event.choice] = {"timings": timings_of(event.usage, event.timings)}

    def wrote(self, choice: int, text: str) -> None:
        """Note a text of the answer."""
        if "\n" in text:
            self._new_line.add(choice)

    def timings(self, choice: int) -> dict[str, JSONValue]:
        """Return the timings of the next chunk of a choice, if the request wants them."""
        return self._timings.pop(choice, {})

    def progress(self, event: types.PromptProgress) -> dict[str, JSONValue]:
        """Return the members that report the progress of a prompt."""
        return progress_of(event, timed=self._options.timings_per_token)

    def verbose(self, finished: types.Finished, completed: types.Completed | None) -> dict[str, JSONValue]:
        """Return the native result of a choice, if the request wants it."""
        if not self._options.verbose:
            return {}
        return {"__verbose": self.final(finished, completed)}

    def final(self, finished: types.Finished, completed: types.Completed | None) -> dict[str, JSONValue]:
        """Return the native result of a choice, whose text is sent already."""
        usage, timings = (completed.usage, completed.timings) if completed else (types.Usage(), types.Timings())
        end = types.Choice(
            index=finished.choice,
            parts=(),
            reason=finished.reason,
            stop_sequence=finished.stop_sequence,
        )
        return final(
            self._request,
            effective_of(self._request, self._effective, self._context_size),
            end,
            outcome_of(finished.outcome, usage, timings),
            content="",
            has_new_line=finished.choice in self._new_line,
        )


def progress_of(event: types.PromptProgress, *, timed: bool) -> dict[str, JSONValue]:
    """Return the progress of a prompt, in tokens and milliseconds, with `timed` also as timings."""
    seen: dict[str, JSONValue] = {
        "total": event.total,
        "cache": event.cached,
        "processed": event.done,
        "time_ms": int(event.seconds * 1000),
    }
    if not timed:
        return {"prompt_progress": seen}
    usage = types.Usage(prompt_tokens=event.done, cached_tokens=event.cached)
    return {"prompt_progress": seen, "timings": timings_of(usage, types.Timings(prompt=event.seconds))}


def probabilities(tokens: Sequence[types.TokenLogprob], *, post_sampling: bool) -> list[JSONValue]:
    """Return the probabilities of tokens: logarithms of the model's, or with `post_sampling` those of the last draw."""
    top = "top_probs" if post_sampling else "top_logprobs"
    return [
        {**_probability(token, post_sampling), top: [_probability(t, post_sampling) for t in token.top]}
        for token in tokens
    ]


def _probability(token: types.TokenLogprob, post_sampling: bool) -> dict[str, JSONValue]:
    value = {"prob": math.exp(token.logprob)} if post_sampling else {"logprob": finite(token.logprob)}
    return {"id": token.id, "token": token.text, "bytes": list(token.bytes), **value}


def _stop_type(reason: types.StopReason) -> str:
    match reason:
        case types.StopReason.STOP | types.StopReason.TOOL_CALLS:
            return "eos"
        case types.StopReason.STOP_SEQUENCE:
            return "word"
        case types.StopReason.LENGTH | types.StopReason.TOOL_LIMIT:
            return "limit"
        case types.StopReason.CANCELLED:
            return "none"
        case _:
            assert_never(reason)
