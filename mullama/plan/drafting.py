"""Speculative decoding as the manifest and the headers of the files decide it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from mullama.chat.types import LONGEST_DRAFT
from mullama.manifest.spec import Model
from mullama.weights.facts import WeightFacts

DraftKind = Literal["", "ngram", "model", "mtp"]

# Guesses of one decode without `draft.tokens`. A copied text is guessed at any length; a model errs sooner.
_TOKENS: dict[DraftKind, int] = {"": 0, "ngram": LONGEST_DRAFT, "model": 16, "mtp": 3}
_FIRST_COMPARED = 5  # the tokens before may differ, as SPEC_VOCAB_CHECK_START_TOKEN_ID of llama.cpp
_VOCABULARY_SLACK = 128  # tokens without a text of their own, as SPEC_VOCAB_MAX_SIZE_DIFFERENCE of llama.cpp


def draft_kind(model: Model, facts: WeightFacts | None) -> DraftKind:
    """Return where the guesses of a model come from; "" for none. facts: of the weights.

    `auto` is the layer of the weights that predicts a further token, where they have one, because it was trained for
    it, else n-gram lookup, which needs no memory. Both guess only where that is measured to pay. A draft model is
    never chosen: it costs a download and memory.
    """
    draft = model.draft
    if draft is None or draft.from_ == "none" or draft.tokens == 0 or model.task != "chat":
        return ""
    if draft.from_ == "mtp":
        return "mtp"
    if draft.from_ == "auto":
        return "mtp" if facts is not None and facts.drafting_layers == 1 else "ngram"
    return "ngram" if draft.from_ == "ngram" else "model"


def draft_tokens(model: Model, facts: WeightFacts | None) -> int:
    """Return the most guesses of one request and decode; 0 for none."""
    kind = draft_kind(model, facts)
    given = model.draft.tokens if model.draft else None
    return given if kind and given is not None else _TOKENS[kind]


def draft_problem(model: Model, facts: WeightFacts | None, drafter: WeightFacts | None) -> str | None:
    """Return the reason why these weights cannot be guessed for as declared; None if they can, or are not known.

    facts: of the weights. drafter: of the draft model.
    """
    if facts is None:
        return None
    if draft_kind(model, facts) == "mtp" and facts.drafting_layers != 1:
        count = f"{facts.drafting_layers or 'no'} layers that predict further tokens (nextn_predict_layers)"
        only = ", and one is supported" if facts.drafting_layers else ""
        return f"draft.from is mtp, and {model.from_} has {count}{only}"
    if drafter is None or model.draft is None:
        return None
    source = model.draft.from_
    if drafter.role != "model" or not drafter.causal:
        return f"draft.from names {source}, which writes no text"
    if other := _other_vocabulary(facts, drafter):
        return f"the draft model {source} has another vocabulary than {model.from_}: {other}"
    return None


def _other_vocabulary(one: WeightFacts, other: WeightFacts) -> str:
    """Return the first difference of two vocabularies that the headers show; "" for none."""
    for name in ("tokenizer", "pre_tokenizer"):
        left, right = getattr(other, name), getattr(one, name)
        if left != right:
            return f"its {name.replace('_', '-')} is {left or 'not named'}, not {right or 'unnamed'}"
    if abs(one.vocabulary - other.vocabulary) > _VOCABULARY_SLACK:
        return f"it has {other.vocabulary} tokens, not {one.vocabulary}"
    ends = [facts.token("eos") for facts in (other, one)]
    if None not in (one.add_bos, other.add_bos) and one.add_bos != other.add_bos:
        return f"its texts begin {'with' if other.add_bos else 'without'} the token bos"
    if ends[0] and ends[1] and ends[0].id != ends[1].id:
        return f"its token eos is {ends[0].id}, not {ends[1].id}"
    return ""


def other_tokens(one: Sequence[bytes], other: Sequence[bytes]) -> str:
    """Return the first token that differs between the vocabularies of a model and of its draft model; "" for none."""
    pairs = enumerate(zip(one, other, strict=False))
    differs = next((at for at, (left, right) in pairs if left != right and at >= _FIRST_COMPARED), None)
    if differs is None:
        return ""
    return f"its token {differs} is {_text(other[differs])}, not {_text(one[differs])}"


def _text(token: bytes) -> str:
    return repr(token.decode("utf-8", "replace"))
