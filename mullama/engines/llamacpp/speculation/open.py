"""Opens the speculation of a context."""

from __future__ import annotations

from mullama.engines.base import ContextOptions, DraftOptions
from mullama.engines.llamacpp.binding.context import NativeContext
from mullama.engines.llamacpp.decode_cost import DecodeCost
from mullama.engines.llamacpp.speculation.draft_models import DraftModels
from mullama.engines.llamacpp.speculation.drafter import Drafter
from mullama.engines.llamacpp.speculation.model import ModelDrafter
from mullama.engines.llamacpp.speculation.mtp import MtpDrafter
from mullama.engines.llamacpp.speculation.ngram import NgramDrafter
from mullama.engines.llamacpp.speculation.rollback import Rollback
from mullama.engines.llamacpp.speculation.speculator import Speculator
from mullama.errors import Unsupported


def open_speculator(
    native: NativeContext,
    options: ContextOptions,
    rollback: Rollback,
    models: DraftModels,
    *,
    cost: DecodeCost,
    rows: int,
    most: int,
) -> Speculator | None:
    """Return the guesses of a context, None without `draft`. rows: of logits, for guesses of all requests.

    most: tokens of all requests together, 0 for the worst case.
    """
    draft = options.draft
    if draft is None:
        return None
    drafter = _drafter(native, options, draft, models, most)
    return Speculator(drafter, draft, rollback, cost=cost, rows=rows)


def _drafter(
    native: NativeContext, options: ContextOptions, draft: DraftOptions, models: DraftModels, most: int
) -> Drafter:
    match draft.kind:
        case "ngram":
            return NgramDrafter()
        case "model":
            return ModelDrafter(models.get(draft), native, options, most=most)
        case "mtp":
            try:
                return MtpDrafter(native, options)
            except Unsupported:
                if draft.automatic:
                    return NgramDrafter()
                raise
