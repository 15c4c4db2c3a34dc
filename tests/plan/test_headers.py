"""All that headers refuse is a mistake of the manifest, and a warning of the plan."""

from __future__ import annotations

import pytest

from mullama.manifest.spec import Manifest, Model
from mullama.plan.headers import header_problems
from mullama.plan.make import make_plan
from mullama.plan.observed import KnownFiles, Observed
from tests.plan.test_drafting import MAIN, facts


@pytest.mark.parametrize(
    ("fields", "header", "field", "message"),
    [
        ({"draft": {"from": "mtp"}}, {"drafting_layers": 2}, "draft.from", "has 2 layers that predict further tokens"),
        ({}, {"causal": False}, "task", f"{MAIN} computes vectors and writes no text"),
        (
            {"requires": ["tools"]},
            {"capabilities": ("completion",)},
            "requires",
            f"{MAIN} lacks tools; it has completion",
        ),
        (
            {"task": "embedding", "embedding": {"dimensions": 9999}},
            {},
            "embedding.dimensions",
            "embedding.dimensions is 9999, and the vectors",
        ),
        (
            {"context": {"pool": 300}, "limits": {"parallel": 4}},
            {"train_context": 512},
            "context.pool",
            "a pool of 300 tokens has no room for one request, which may have 512",
        ),
        ({"gpu": {"experts": 3}}, {}, "gpu.experts", "gpu.experts is 3, and the model has no experts"),
    ],
)
def test_what_the_header_refuses(
    fields: dict[str, object], header: dict[str, object], field: str, message: str
) -> None:
    manifest = Manifest(mullama="v1", models={"m": Model.model_validate({"from": MAIN, **fields})})
    files = {MAIN: KnownFiles(source=MAIN, stored=True, digest="sha256:a", size=9, facts=facts(**header))}
    ((name, where, text, hint),) = header_problems(manifest, files)
    assert (name, where) == ("m", field)
    assert message.removeprefix(f"{field} is ") in text
    assert hint
    (warning,) = [w for w in make_plan(manifest, Observed(files=files)).warnings if "apply refuses it" in w]
    assert warning.startswith(f"models.m.{field}: ")


def test_unknown_headers_refuse_nothing() -> None:
    model = Model.model_validate({"from": MAIN, "draft": {"from": "mtp"}, "gpu": {"experts": 3}})
    manifest = Manifest(mullama="v1", models={"m": model})
    assert not [*header_problems(manifest, {}), *header_problems(manifest, {MAIN: KnownFiles(source=MAIN)})]
