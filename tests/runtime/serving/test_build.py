"""The options with which a unit is opened, and the models that share one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import Invalid
from mullama.manifest.tree import parse_resolved
from mullama.reconcile.scripted_models import script_files
from mullama.runtime.serving.build import DeploymentBuilder
from mullama.runtime.snapshot import Deployment


def build(home: Path, name: str, **said: Any) -> Deployment:
    script = home / "a.script.json"
    script.write_text(json.dumps({"name": "a"}))
    tree = {"mullama": "v1", "models": {name: {"from": str(script), **said}}}
    model = parse_resolved(tree).models[name]
    return DeploymentBuilder(machine=None, prefixes=None).build(name, model, script_files(str(script)), 1)


@pytest.mark.parametrize(
    ("said", "shares"),
    [
        ({"system": "Be brief."}, True),
        ({"context": {"threads": 2}}, True),
        ({"limits": {"queue": 1, "max_tokens": 5}}, True),
        ({"context": {"size": 512}}, False),
        ({"limits": {"parallel": 2}}, False),
        ({"task": "embedding"}, False),
        ({"adapters": [{"from": "/x.gguf"}]}, False),
    ],
)
def test_a_context_is_shared_by_models_that_differ_in_live_fields_only(
    said: dict[str, Any], shares: bool, tmp_path: Path
) -> None:
    one, other = build(tmp_path, "one"), build(tmp_path, "other", **said)

    assert one.unit.weights == other.unit.weights
    assert (one.unit == other.unit) is shares


def test_other_placement_is_another_worker(tmp_path: Path) -> None:
    one, other = build(tmp_path, "one"), build(tmp_path, "other", memory={"mmap": False})

    assert one.unit.weights != other.unit.weights


@pytest.mark.parametrize(("asked", "threads"), [((2, 8), 8), ((8, 2), 8), ((2, None), 0), ((None, None), 0)])
def test_models_that_share_a_context_have_the_most_threads_that_one_asks_for(
    asked: tuple[int | None, int | None], threads: int, tmp_path: Path
) -> None:
    """Zero is every core; which of them was applied last makes no difference."""
    models = [build(tmp_path, f"m{i}", context={"threads": count}) for i, count in enumerate(asked)]

    joined = [DeploymentBuilder(machine=None, prefixes=None).joined(owner, models).options for owner in models]

    assert {(options.threads, options.threads_batch) for options in joined} == {(threads, threads)}


def test_a_shared_context_knows_the_beginnings_of_all_its_models(tmp_path: Path) -> None:
    models = [build(tmp_path, name, system=f"You are {name}.") for name in ("a", "b")]
    alone = build(tmp_path, "c", system="You are c.", context={"size": 512})

    joined = DeploymentBuilder(machine=None, prefixes=None).joined(models[0], [*models, alone])

    texts = " ".join(prefix.text for prefix in joined.options.prefixes)
    assert "You are a." in texts
    assert "You are b." in texts
    assert "You are c." not in texts


def test_states_in_memory_need_a_file_system_there(tmp_path: Path) -> None:
    script = tmp_path / "a.script.json"
    script.write_text(json.dumps({"name": "a"}))
    tree = {"from": str(script), "residency": {"keep": {"ram": "1MiB"}}}
    model = parse_resolved({"mullama": "v1", "models": {"a": tree}}).models["a"]
    files = script_files(str(script))
    with pytest.raises(Invalid, match=r"residency\.keep\.ram needs a file system"):
        DeploymentBuilder(machine=None, prefixes=tmp_path).build("a", model, files, 1)
    built = DeploymentBuilder(machine=None, prefixes=tmp_path, memory=tmp_path).build("a", model, files, 1)
    assert (built.options.ram_dir, built.options.ram_bytes) == (str(tmp_path), 2**20)
