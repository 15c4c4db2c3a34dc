"""Scripts instead of weights: a model whose `from` ends in `.script.json` is served by the scripted engine."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mullama.errors import NotFound
from mullama.plan.observed import KnownFiles
from mullama.store.index import stamp_of
from mullama.weights.facts import ProjectorFacts, SpecialToken, WeightFacts
from mullama.weights.stored import ProjectorFile

if TYPE_CHECKING:
    from mullama.engines.scripted.script import Script

SUFFIX = ".script.json"
_MAX_BYTES = 4 * 1024 * 1024


def is_script(source: str) -> bool:
    return source.endswith(SUFFIX)


def script_files(source: str) -> KnownFiles:
    """Return a script in the form of weights. Raises `NotFound`, or `BadWeights` for an invalid one."""
    from mullama.engines.scripted.script import parse  # few manifests have a script

    path = Path(source)
    try:
        with path.open("rb") as file:
            state = stamp_of(os.fstat(file.fileno()))
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise NotFound(f"{source}: {error.strerror}", name=source) from error
    script = parse(data.decode("utf-8", "replace"), source)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    sees = ProjectorFacts(vision="image" in script.media, audio="audio" in script.media)
    return KnownFiles(
        source=source, digest=digest, size=len(data), facts=_facts(script, len(data)), stored=True, paths=(source,),
        stamps={source: state}, projector=ProjectorFile(facts=sees) if script.media else None,
    )  # fmt: skip


def _facts(script: Script, size: int) -> WeightFacts:
    from mullama.engines.scripted.script import END

    return WeightFacts(
        architecture="scripted",
        name=script.name,
        quantization="none",
        parameter_count=0,
        size_bytes=size,
        layers=0,
        embedding_length=script.embedding_length,
        train_context=script.context,
        vocabulary=0,
        template=script.template,
        special=(SpecialToken(role="eos", id=0, text=END),),
        capabilities=("completion", "embedding"),
    )
