"""The work buffers of a projector from its header, against the sizes that libmtmd reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.engines.base import WeightsOptions
from mullama.engines.llamacpp.binding.library import log, sum_sizes
from mullama.engines.llamacpp.binding.media import NativeProjector
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.vectors import MediaChunk
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.weights.facts import ProjectorFacts
from mullama.weights.inspect import inspect
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors
from tests.engines.llamacpp.media.projectors import Encoder, png, wav

LEAST, MOST = 0.92, 1.30
"""The estimate by the size: a little too small where the allocator leaves gaps, and larger where it reuses rows."""

WIDE = Encoder(width=256, hidden=1024, heads=4, layers=2)  # LLaVA leaves out the last layer
FLAT = Encoder(width=256, hidden=512, heads=4, layers=2)
"""Rows of the feed-forward part decide, and those of the attention."""

KINDS: dict[str, tuple[Callable[..., None], Callable[[Path], None], bytes]] = {
    "llava": (projectors.llava, builders.llama, png(90, 60)),
    "large llava": (lambda path, encoder: projectors.llava(path, encoder=encoder, size=336), builders.llama, png(9, 9)),
    "idefics3": (projectors.idefics3, builders.llama, png(90, 60)),
    "gemma3": (projectors.gemma3, builders.gemma3, png(90, 60)),
    "qwen2vl": (projectors.qwen2vl, builders.mrope, png(280, 280)),
    "qwen2.5vl": (projectors.qwen25vl, builders.mrope, png(560, 560)),
    "qwen3vl": (projectors.qwen3vl, builders.mrope, png(320, 256)),
    "pixtral": (projectors.pixtral, builders.llama, png(320, 256)),
    "internvl": (projectors.internvl, builders.llama, png(900, 900)),
    "qwen2a": (projectors.qwen2a, builders.llama, wav(1.0)),
    "ultravox": (projectors.ultravox, builders.llama, wav(1.0)),
    "voxtral": (projectors.voxtral, builders.llama, wav(1.0)),
    "qwen3a": (projectors.qwen3a, builders.llama, wav(3.0)),
}


def facts_of(path: Path) -> ProjectorFacts:
    data = path.read_bytes()
    facts = inspect([(lambda offset, length: data[offset : offset + length], len(data))]).projector
    assert facts is not None
    return facts


def measured(path: Path, model: NativeModel, medium: bytes) -> tuple[int, int]:
    """Return the bytes of the buffers after this medium, and its tokens."""
    projector = NativeProjector(str(path), model, gpu=False, threads=1)
    pieces = projector.pieces(medium, count_only=False)
    assert pieces is not None
    chunks = [item for item in pieces.items if isinstance(item, MediaChunk)]
    with log.recording() as lines:
        projector.encode(chunks)
    pieces.close()
    projector.close()
    return sum_sizes(lines, "compute buffer size"), sum(chunk.tokens for chunk in chunks)


@pytest.mark.parametrize("encoder", [WIDE, FLAT], ids=["wide", "flat"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_header_tells_the_memory_of_a_medium(
    kind: str, encoder: Encoder, tmp_path: Path, load: Callable[..., LlamaEngine]
) -> None:
    write, weights, medium = KINDS[kind]
    file, model = tmp_path / "projector.gguf", tmp_path / "model.gguf"
    write(file, encoder=encoder)
    weights(model)
    engine = load("llamacpp", str(model), options=WeightsOptions())
    size, tokens = measured(file, engine._model, medium)
    calculated = facts_of(file).work_bytes(tokens)
    assert size > 0
    assert LEAST * size <= calculated <= MOST * size + 2**14
