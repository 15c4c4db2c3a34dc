"""The block of speculative decoding."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mullama.chat.types import LONGEST_DRAFT
from mullama.manifest.spec.readers import check_drafter, draft_source
from mullama.manifest.spec.values import Block, Number, Whole

DraftSource = Annotated[str, AfterValidator(check_drafter), Field(min_length=1)]


class Draft(Block):
    """Speculative decoding: tokens are guessed ahead, and the model verifies all of them in one decode."""

    from_: DraftSource = Field(default="auto", alias="from", examples=["auto", "ngram", "hf:Qwen/Qwen3-0.6B-GGUF:Q8_0"])
    """Where guesses come from: `ngram` for the text itself, `mtp` for the layers of the weights that predict several
    tokens, a source for a smaller model with the same vocabulary, `auto` for the choice by the header, or `none`."""
    tokens: Whole | None = Field(default=None, ge=0, le=LONGEST_DRAFT, examples=[3])
    """Most guesses of one request at a time; fewer are made where fewer pay. 0 for none."""
    min_probability: Number = Field(default=0.0, ge=0, le=1, examples=[0.5])
    """Guesses end before the first token that the drafter finds less likely."""
    until_parallel: Whole | None = Field(default=None, ge=1, le=256, examples=[4])
    """No guesses while more requests than this run. Default: by measured durations of decodes."""

    @property
    def source(self) -> str | None:
        """The source of a draft model; None where guesses come from elsewhere."""
        return draft_source(self)
