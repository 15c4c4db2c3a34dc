"""Refusals of stored files beyond their facts: adapters of other weights, draft models with other tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest, Model
from mullama.plan.drafting import draft_problem, other_tokens
from mullama.plan.fit import drafter_facts
from mullama.plan.headers import NO_DRAFT_MODEL, HeaderProblem, header_problems
from mullama.plan.observed import KnownFiles
from mullama.sources.local_files import check_adapter, token_texts


def file_problems(desired: Manifest, files: Mapping[str, KnownFiles]) -> Iterator[HeaderProblem]:
    """Yield `header_problems`, and what only the files themselves show. files: by source."""
    yield from header_problems(desired, files)
    for name, model in desired.models.items():
        known = files.get(model.from_)
        if known is None or not (known.stored and known.paths and known.facts):
            continue
        for field, error in _adapters(model, known, files):
            yield name, field, error.message, error.hint
        if problem := _tokens(model, known, files):
            yield name, "draft.from", problem, NO_DRAFT_MODEL


def _adapters(model: Model, weights: KnownFiles, files: Mapping[str, KnownFiles]) -> Iterator[tuple[str, MullamaError]]:
    for index, adapter in enumerate(model.adapters):
        known = files.get(adapter.from_)
        if known is None or not (known.stored and known.paths):
            continue
        try:
            check_adapter(known.paths[0], weights.paths, weights.facts)
        except MullamaError as error:
            yield f"adapters[{index}].from", error


def _tokens(model: Model, weights: KnownFiles, files: Mapping[str, KnownFiles]) -> str:
    """Return the first token that a draft model has in another form; "" for none."""
    source = model.draft.source if model.draft else None
    drafter = files.get(source) if source else None
    if drafter is None or not (drafter.stored and drafter.paths) or drafter.digest == weights.digest:
        return ""
    if draft_problem(model, weights.facts, drafter_facts(model, files)):
        return ""
    try:
        difference = other_tokens(token_texts(weights.paths[0]), token_texts(drafter.paths[0]))
    except MullamaError:
        return ""  # the load reports a file that cannot be read
    return f"the draft model {source} has another vocabulary than {model.from_}: {difference}" if difference else ""
