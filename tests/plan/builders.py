"""Manifests and observed states as values, for tests of plans."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mullama.manifest.spec import Manifest
from mullama.manifest.tree import parse_resolved, revision
from mullama.plan.observed import Applied, KnownFiles, LiveModel, Machine, Observed
from mullama.weights.facts import LayerFacts, WeightFacts

FACTS = WeightFacts(
    architecture="llama", parameter_count=10**9, size_bytes=10**9, layers=4, embedding_length=256, heads=(4,),
    kv_heads=(2,), train_context=4096, vocabulary=1000, capabilities=("completion",),
    per_layer=(LayerFacts(weights=2 * 10**8, key=128, value=128),) * 4,
)  # fmt: skip
STORED = KnownFiles(source="/m/a.gguf", digest="sha256:" + "a" * 64, size=10**9, facts=FACTS, stored=True)
BIG = Machine(ram_total=64 << 30, ram_available=32 << 30, cores=8)
SMALL = Machine(ram_total=2 << 30, ram_available=100 << 20, cores=2)


def manifest(**models: dict[str, Any]) -> Manifest:
    return parse_resolved({"mullama": "v1", "models": {n.replace("_", "-"): m for n, m in models.items()}})


def model(**fields: Any) -> dict[str, Any]:
    return {"from": "/m/a.gguf", **fields}


def observed(applied: Manifest | None = None, live: str | None = "ready", machine: Machine = BIG) -> Observed:
    """A world where what was applied is loaded, or no server is running (live None)."""
    desired = applied or Manifest(mullama="v1")
    states = {n: LiveModel(name=n, revision=revision(m), state=live or "idle") for n, m in desired.models.items()}  # type: ignore[arg-type]
    return Observed(
        applied=Applied(generation=3, revision=revision(desired), manifest=desired) if applied else None,
        live=states if live else None,
        files={"/m/a.gguf": STORED},
        machine=machine,
    )


MODELS = st.fixed_dictionaries(
    {"from": st.sampled_from(["/m/a.gguf", "/m/b.gguf"])},
    optional={
        "system": st.sampled_from(["x", "y"]),
        "gpu": st.builds(lambda n: {"layers": n}, st.integers(0, 3)),
        "context": st.builds(lambda n: {"size": n}, st.sampled_from([512, 1024])),
        "parameters": st.builds(lambda t: {"temperature": t}, st.sampled_from([0.0, 0.5])),
    },
)
MANIFESTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), MODELS, max_size=3).map(lambda m: manifest(**m))
