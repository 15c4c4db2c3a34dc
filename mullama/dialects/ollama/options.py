"""The `options` of Ollama's requests. Sampling applies; options that the manifest declares become warnings."""

from __future__ import annotations

from mullama.chat.types import ANY_DRAFT, DraftLimits, ResponseFormat, Sampling
from mullama.dialects import fields, schema
from mullama.dialects.formats import THINK
from mullama.dialects.sampling import (
    KEEP_ALIVE,
    MOST_GUESSES,
    MOST_TOKEN,
    SAMPLING,
    STOP,
    TOP_LOGPROBS,
    read_sampling,
)
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct

NUM_PREDICT = fields.integer("num_predict", -2, MOST_TOKEN)
NUM_CTX = fields.integer("num_ctx", 0, MOST_TOKEN)

# The manifest declares these; a request cannot change how a model is loaded.
_DECLARED: tuple[fields.Field[object], ...] = (
    fields.integer("num_batch", 0, MOST_TOKEN),
    fields.integer("num_gpu", -1, MOST_TOKEN),
    fields.integer("main_gpu", 0, 1024),
    fields.integer("num_thread", 0, 4096),
    fields.flag("use_mmap"),
    fields.flag("use_mlock"),
    fields.flag("numa"),
    fields.flag("low_vram"),
    fields.flag("f16_kv"),
    fields.flag("logits_all"),
    fields.flag("vocab_only"),
)
DRAFT_NUM_PREDICT = fields.integer("draft_num_predict", 0, MOST_GUESSES)
# Options of earlier versions of Ollama.
_WITHOUT_EFFECT: tuple[fields.Field[object], ...] = (
    fields.integer("num_keep", -1, MOST_TOKEN),
    fields.flag("penalize_newline"),
    fields.number("tfs_z", 0, 100),
)
_OWN: tuple[fields.Field[object], ...] = (NUM_PREDICT, NUM_CTX, STOP, DRAFT_NUM_PREDICT)
_KNOWN = {f.name for f in (*SAMPLING, *_DECLARED, *_WITHOUT_EFFECT, *_OWN)}

OPTIONS_SCHEMA = fields.request_schema(*SAMPLING, *_DECLARED, *_WITHOUT_EFFECT, *_OWN)
OPTIONS = fields.record("options", OPTIONS_SCHEMA)


class Options(Struct, frozen=True, kw_only=True):
    """The values of `options`. max_tokens -1 is as many as the limits allow, None unset."""

    sampling: Sampling
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    context_size: int | None = None
    draft: DraftLimits = ANY_DRAFT
    warnings: tuple[str, ...] = ()


def read_options(body: fields.Body) -> Options:
    """Return the options of a request. Known options are checked even if they have no effect."""
    options = body.child("options") or fields.Body({}, body.at("options"))
    for field in (*_DECLARED, *_WITHOUT_EFFECT):
        options.get(field)
    predict, guesses = options.get(NUM_PREDICT), options.get(DRAFT_NUM_PREDICT)
    return Options(
        sampling=read_sampling(options),
        stop=options.get(STOP) or (),
        max_tokens=-1 if predict is not None and predict <= 0 else predict,
        context_size=options.get(NUM_CTX) or None,
        draft=ANY_DRAFT if guesses is None else DraftLimits(most=guesses),
        warnings=tuple(_warnings(options)),
    )


def _warnings(options: fields.Body) -> list[str]:
    declared = {f.name for f in _DECLARED}
    ineffective = {f.name for f in _WITHOUT_EFFECT}
    warnings: list[str] = []
    for name in options.names():
        if name in declared:
            warnings.append(f"options.{name} was not applied: the manifest declares it")
        elif name in ineffective:
            warnings.append(f"options.{name} has no effect")
        elif name not in _KNOWN:
            warnings.append(f"options.{name[:64]} is unknown")
    return warnings


def _format(value: JSONValue, path: str) -> ResponseFormat | None:
    """Return the format of `"json"` or of a JSON schema; the empty string has none."""
    if value == "":
        return None
    if value == "json":
        return ResponseFormat(kind="json")
    if not isinstance(value, dict):
        raise fields.unfit(path, '"json" or a JSON schema')
    return ResponseFormat(kind="json_schema", schema=value)


FORMAT: fields.Field[ResponseFormat | None] = fields.Field(
    "format", _format, schema.either(schema.one_of("", "json"), schema.RECORD)
)

LOGPROBS = fields.flag("logprobs")
TRUNCATE = fields.flag("truncate")
SHIFT = fields.flag("shift")
RENDER_ONLY = fields.flag("_debug_render_only")

GENERATION: tuple[fields.Field[object], ...] = (
    FORMAT, KEEP_ALIVE, OPTIONS, THINK, TRUNCATE, SHIFT, LOGPROBS, TOP_LOGPROBS, RENDER_ONLY,
)  # fmt: skip


def read_logprobs(body: fields.Body) -> int | None:
    """Return the number of alternatives per token, None without probabilities."""
    try:
        top = body.get(TOP_LOGPROBS)
    except Invalid as error:
        message = "top_logprobs must be between 0 and 20"
        raise Invalid(message, field="top_logprobs") from error
    return (top or 0) if body.get(LOGPROBS) else None


def shift_warning(body: fields.Body) -> tuple[str, ...]:
    """Return a warning for a request of context shift: an answer ends with the context."""
    if body.get(SHIFT):
        return ("shift has no effect: the answer ends at the end of the context",)
    return ()
