"""All that the headers of the files refuse in a manifest, before anything is loaded (pure).

The load refuses the same, and what only the files or the machine show: see `reconcile.stored_headers` and `fit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mullama.chat.media import ABILITIES
from mullama.errors import Invalid
from mullama.manifest.spec import Manifest, Model
from mullama.plan.drafting import draft_problem
from mullama.plan.fit import check_experts, drafter_facts, pool_tokens
from mullama.plan.observed import KnownFiles
from mullama.plan.projectors import media_problems
from mullama.weights.facts import WeightFacts

HeaderProblem = tuple[str, str, str, str]
"""(model, field, message, hint)."""

NO_DRAFT_MODEL = "draft: auto needs no draft model"
FEWER_DIMENSIONS = "use at most {}"
_MEDIA = frozenset(ABILITIES.values())


def header_problems(desired: Manifest, files: Mapping[str, KnownFiles]) -> Iterator[HeaderProblem]:
    """Yield what the headers refuse, as far as they are known. files: by source."""
    for name, model in desired.models.items():
        known = files.get(model.from_)
        facts = known.facts if known else None
        if facts is None:
            continue
        if problem := draft_problem(model, facts, drafter_facts(model, files)):
            yield name, "draft.from", problem, NO_DRAFT_MODEL
        for field, text, hint in _problems(model, facts):
            yield name, field, text, hint
    yield from media_problems(desired, files)


def header_warnings(desired: Manifest, files: Mapping[str, KnownFiles]) -> Iterator[str]:
    """Yield the messages of `header_problems` with their places."""
    return (f"models.{name}.{field}: {text}" for name, field, text, _ in header_problems(desired, files))


def dimensions_problem(model: Model, facts: WeightFacts | None) -> str | None:
    """Return the reason why vectors of these weights cannot have the declared length; None if they can."""
    wanted, width = model.embedding.dimensions or 0, facts.embedding_length if facts else 0
    if not wanted > width > 0:
        return None
    return f"embedding.dimensions is {wanted}, and the vectors of {model.from_} have {width} numbers"


def _problems(model: Model, facts: WeightFacts) -> Iterator[tuple[str, str, str]]:
    """Yield (field, message, hint)."""
    if model.task == "chat" and not facts.causal:
        yield "task", f"{model.from_} computes vectors and writes no text", "task: embedding"
    if lacks := sorted(set(model.requires) - _MEDIA - set(facts.capabilities)):
        has = ", ".join(facts.capabilities) or "no capability"
        yield "requires", f"{model.from_} lacks {', '.join(lacks)}; it has {has}", "remove it from requires"
    if problem := dimensions_problem(model, facts):
        yield "embedding.dimensions", problem, FEWER_DIMENSIONS.format(facts.embedding_length)
    for field, check in (("context.pool", pool_tokens), ("gpu.experts", _experts)):
        try:
            check(model, facts)
        except Invalid as error:
            yield field, error.message.removeprefix(f"{field}: "), error.hint


def _experts(model: Model, facts: WeightFacts) -> None:
    check_experts(model.gpu, facts)
