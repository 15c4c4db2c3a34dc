"""Projectors of images and sound as the manifest and the headers of the files decide them (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from mullama.chat.media import ABILITIES
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.spec.readers import writes_text
from mullama.plan.observed import KnownFiles
from mullama.weights.facts import ProjectorFacts, WeightFacts
from mullama.weights.stored import ProjectorFile

TEXT_ONLY: Final = "mmproj: none serves the model for text"
_NAME_EARS: Final = "mmproj names a projector that reads sound; or remove the task transcription"
_NAME_ONE: Final = "mmproj names the projector of the model; or remove it from requires"


def projector_of(model: Model, files: Mapping[str, KnownFiles]) -> ProjectorFile | None:
    """Return the projector of a model; None without one, or if it is not known. files: by source.

    A file that the model names and that is no projector has one without abilities.
    """
    if model.mmproj == "none" or not writes_text(model):
        return None
    known = files.get(model.projector_source or model.from_)
    if known and known.projector is None and known.facts is not None and model.mmproj != "auto":
        return ProjectorFile(facts=ProjectorFacts())
    return known.projector if known else None


def projector_bytes(model: Model, files: Mapping[str, KnownFiles]) -> int:
    """Return the bytes of the file of the projector of a model, 0 without one. Its memory: `fit.projector_memory`."""
    projector = projector_of(model, files)
    return projector.size if projector and projector.kinds else 0


def abilities(facts: WeightFacts | None, projector: ProjectorFile | None) -> tuple[str, ...]:
    """Return the capabilities of the weights, with those of the projector."""
    own = facts.capabilities if facts else ()
    kinds = projector.kinds if projector else ()
    return (*own, *(ability for kind, ability in ABILITIES.items() if kind in kinds))


def projector_problem(model: Model, facts: WeightFacts | None, projector: ProjectorFile | None) -> str | None:
    """Return the reason why these weights cannot use a projector; None if they can, or are not known."""
    if projector is None or facts is None or not facts.embedding_length:
        return None
    if not projector.kinds and model.mmproj != "auto":
        return f"mmproj names {model.mmproj}, which reads neither images nor sound"
    width = projector.facts.width
    if width in (0, facts.embedding_length):
        return None
    return (
        f"the projector {model.projector_source or projector.path or 'of ' + model.from_} is one of other weights: its "
        f"vectors have {width} numbers, those of {model.from_} have {facts.embedding_length}"
    )


def media_problems(desired: Manifest, files: Mapping[str, KnownFiles]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (model, field, message, hint) for each projector that does not fit, and each required ability that is
    missing, as far as the headers are known. files: by source."""
    for name, model in desired.models.items():
        known, projector = files.get(model.from_), projector_of(model, files)
        facts = known.facts if known else None
        if problem := projector_problem(model, facts, projector):
            yield name, "mmproj", problem, TEXT_ONLY
        beside = files.get(model.projector_source) if model.projector_source else known
        header = facts is not None and beside is not None and (beside.facts is not None or model.mmproj == "none")
        present = abilities(facts, projector)
        lacks = [ability for ability in ABILITIES.values() if ability in required(model) and ability not in present]
        if header and lacks:
            field = "requires" if set(lacks) <= set(model.requires) else "task"
            hint = _NAME_ONE if field == "requires" else _NAME_EARS
            yield name, field, f"{name} lacks {' and '.join(lacks)}: {_why(model, projector)}", hint


def required(model: Model) -> tuple[str, ...]:
    """Return the capabilities that the weights of a model must have: a model for transcription hears."""
    return (*model.requires, *(("audio",) if model.task == "transcription" and "audio" not in model.requires else ()))


def _why(model: Model, projector: ProjectorFile | None) -> str:
    if projector is None:
        return "mmproj is none" if model.mmproj == "none" else f"{model.from_} has no projector"
    return f"its projector reads {' and '.join(projector.kinds) or 'no media'}"
