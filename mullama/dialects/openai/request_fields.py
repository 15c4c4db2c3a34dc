"""The fields that chat, completions and llama-server's endpoints share: sampling, limits, formats, extensions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypedDict

from mullama.chat.types import DraftLimits, ResponseFormat, Sampling
from mullama.dialects import fields, schema
from mullama.dialects.formats import FORMAT_SCHEMA, json_schema, named_format
from mullama.dialects.openai.native_form import (
    LORA,
    NATIVE_FIELDS,
    POST_SAMPLING,
    RETURN_PROGRESS,
    ReplyOptions,
    read_reply_options,
)
from mullama.dialects.sampling import (
    KEEP_ALIVE,
    MOST_CHOICES,
    MOST_GUESSES,
    MOST_LOGPROBS,
    MOST_TOKEN,
    SAMPLING,
    STOP,
    read_sampling,
)
from mullama.errors import Invalid
from mullama.names import JSONValue

N = fields.integer("n", 1, MOST_CHOICES)
N_CMPL = N.named("n_cmpl")
N_PROBS = fields.integer("n_probs", 0, MOST_LOGPROBS)
MAX_TOKENS = fields.integer("max_tokens", -1, MOST_TOKEN)
MAX_COMPLETION_TOKENS = MAX_TOKENS.named("max_completion_tokens")
N_PREDICT = MAX_TOKENS.named("n_predict")
REASONING_BUDGET = fields.integer("reasoning_budget_tokens", -1, 2**31 - 1)
THINKING_BUDGET = REASONING_BUDGET.named("thinking_budget_tokens")
IGNORE_EOS = fields.flag("ignore_eos")
N_MAX = fields.integer("speculative.n_max", 0, MOST_GUESSES)
N_MIN = fields.integer("speculative.n_min", 0, MOST_GUESSES)
P_MIN = fields.number("speculative.p_min", 0, 1)
GUESS_TYPES = fields.text("speculative.types", 256)
GUESS_TYPE = GUESS_TYPES.named("speculative.type")
CACHE_PROMPT = fields.flag("cache_prompt")
NUM_CTX = fields.integer("num_ctx", 0, MOST_TOKEN)
NUM_PREDICT = fields.integer("num_predict", -2, MOST_TOKEN)
GRAMMAR = fields.text("grammar", 65536)
USER = fields.text("user", 4096)
SAFETY_IDENTIFIER = fields.text("safety_identifier", 4096)
PROMPT_CACHE_KEY = fields.text("prompt_cache_key", 4096)
INCLUDE_USAGE = fields.flag("include_usage")

RESPONSE_FORMAT: fields.Field[ResponseFormat | None] = fields.Field("response_format", named_format, FORMAT_SCHEMA)
JSON_SCHEMA: fields.Field[ResponseFormat] = fields.Field(
    "json_schema", json_schema, schema.either(schema.RECORD, schema.BOOLEAN)
)
OPTIONS: fields.Field[Mapping[str, JSONValue]] = fields.Field("options", fields.to_record, schema.RECORD)

_MOST_PAIRS, _MOST_KEY, _MOST_VALUE = 16, 64, 512


def _metadata(value: JSONValue, path: str) -> dict[str, str]:
    pairs = fields.to_record(value, path)
    if len(pairs) > _MOST_PAIRS:
        raise fields.unfit(path, f"an object of at most {_MOST_PAIRS} pairs")
    for key, text in pairs.items():
        if len(key) > _MOST_KEY:
            raise fields.unfit(path, f"an object with keys of at most {_MOST_KEY} characters")
        if len(fields.to_text(text, f"{path}.{key}")) > _MOST_VALUE:
            raise fields.unfit(f"{path}.{key}", f"at most {_MOST_VALUE} characters long")
    return {key: str(text) for key, text in pairs.items()}


STORE = fields.flag("store")
METADATA: fields.Field[dict[str, str]] = fields.Field("metadata", _metadata, schema.mapped(schema.STRING))

COMMON: tuple[fields.Field[object], ...] = (
    *SAMPLING,
    STOP, N, N_CMPL, N_PROBS, MAX_TOKENS, MAX_COMPLETION_TOKENS, N_PREDICT, REASONING_BUDGET, THINKING_BUDGET,
    IGNORE_EOS, CACHE_PROMPT, NUM_CTX,
    N_MAX, N_MIN, P_MIN, GUESS_TYPES, GUESS_TYPE,
    GRAMMAR, RESPONSE_FORMAT, JSON_SCHEMA, KEEP_ALIVE, OPTIONS, USER, LORA, SAFETY_IDENTIFIER, PROMPT_CACHE_KEY,
    *NATIVE_FIELDS,
)  # fmt: skip

# Accepted fields without effect; a header of the reply names them.
_INEFFECTIVE = {
    "prediction": "predicted output has no effect",
    "audio": "answers are text",
    "t_max_predict_ms": "limits.timeout of the manifest bounds an answer",
    "t_max_prompt_ms": "limits.timeout of the manifest bounds an answer",
    "sse_ping_interval": "a silent stream sends a ping every ten seconds",
    "n_keep": "a prompt is never shifted",
    "n_discard": "a prompt is never shifted",
    "id_slot": "requests with a common prefix share it in any slot",
}


class Common(TypedDict):
    """The arguments that all requests for text share."""

    sampling: Sampling
    max_tokens: int | None
    stop: tuple[str, ...]
    n: int
    format: ResponseFormat | None
    keep_alive: float | None
    context_size: int | None
    think_budget: int | None
    ignore_eos: bool
    draft: DraftLimits
    adapters: tuple[tuple[int | str, float], ...]
    conversation: str | None
    cache: bool
    user: str | None
    logprobs: int | None
    post_sampling: bool
    details: bool
    progress: bool
    want_prompt: bool
    reply: ReplyOptions
    warnings: tuple[str, ...]


def read_common(body: fields.Body) -> Common:
    """Return the shared arguments. Of several limits, the newest spelling applies."""
    options = body.child("options") or fields.Body({}, body.at("options"))
    cache, reply = body.get(CACHE_PROMPT), read_reply_options(body)
    stream = body.get(fields.STREAM) or False
    predict = options.get(NUM_PREDICT)
    limit = body.first(MAX_COMPLETION_TOKENS, MAX_TOKENS, N_PREDICT)
    return Common(
        sampling=read_sampling(body).over(read_sampling(options)),
        max_tokens=max(-1, predict) if limit is None and predict is not None else limit,
        stop=body.get(STOP) or options.get(STOP) or (),
        n=answers_of(body),
        format=read_format(body),
        keep_alive=body.get(KEEP_ALIVE),
        context_size=body.get(NUM_CTX) or options.get(NUM_CTX) or None,
        think_budget=body.first(REASONING_BUDGET, THINKING_BUDGET),
        ignore_eos=body.get(IGNORE_EOS) or False,
        draft=_draft_limits(body),
        adapters=body.get(LORA) or (),
        cache=True if cache is None else cache,
        user=body.first(USER, SAFETY_IDENTIFIER),
        conversation=body.get(PROMPT_CACHE_KEY),
        logprobs=body.get(N_PROBS) or None,
        post_sampling=body.get(POST_SAMPLING) or False,
        details=reply.verbose or (stream and reply.timings_per_token),
        progress=stream and (body.get(RETURN_PROGRESS) or False),
        want_prompt=reply.verbose,
        reply=reply,
        warnings=tuple(_warnings(body)),
    )


def _warnings(body: fields.Body) -> Iterator[str]:
    yield from (f"{name}: {why}" for name, why in _INEFFECTIVE.items() if body.has(name))
    if body.first(GUESS_TYPES, GUESS_TYPE) not in (None, "none"):
        yield "speculative.types: the manifest declares how tokens are guessed; only none changes it"


def _draft_limits(body: fields.Body) -> DraftLimits:
    """Return llama-server's limits to speculative decoding."""
    most = 0 if body.first(GUESS_TYPES, GUESS_TYPE) == "none" else body.get(N_MAX)
    return DraftLimits(
        most=MOST_GUESSES if most is None else most,
        least=body.get(N_MIN) or 0,
        min_probability=body.get(P_MIN) or 0.0,
    )


def answers_of(body: fields.Body) -> int:
    """Return the number of answers to each prompt."""
    return body.first(N_CMPL, N) or 1


def read_format(body: fields.Body) -> ResponseFormat | None:
    """Return the format of the answer, from the one field that has it."""
    grammar = body.get(GRAMMAR)
    formats = [
        form
        for form in (
            body.get(RESPONSE_FORMAT),
            body.get(JSON_SCHEMA),
            ResponseFormat(kind="gbnf", grammar=grammar) if grammar else None,
        )
        if form is not None
    ]
    if len(formats) > 1:
        raise Invalid("response_format, json_schema and grammar exclude each other", field="grammar")
    return formats[0] if formats else None


def include_usage(body: fields.Body) -> bool:
    """Return True if a stream reports its token counts."""
    options = body.child("stream_options")
    return bool(options and options.get(INCLUDE_USAGE))
