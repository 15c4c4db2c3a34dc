"""The executor over effects that only remember: order, failure, and what is left alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from mullama.errors import BadWeights, EngineFailed, ModelUnavailable, MullamaError, TransferFailed
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.tree import parse_resolved
from mullama.plan.make import make_plan
from mullama.plan.observed import Applied, KnownFiles, LiveModel, Observed
from mullama.plan.steps import Plan, Step
from mullama.reconcile.execute import Outcome, Overtaken, Report, Result, execute


@dataclass
class Remembering:
    """Does nothing, and says in which order it was asked."""

    calls: list[str] = field(default_factory=list)
    unfetchable: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    unloadable: tuple[str, ...] = ()
    on_demand: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    overtaken: tuple[str, ...] = ()
    awaits_loads: bool = True
    at_once: int = 0
    most_at_once: int = 0

    async def fetch(self, model: Model, report: Report, name: str) -> KnownFiles:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if name in self.unfetchable:
            raise TransferFailed(f"{name} cannot be fetched")
        self.calls.append(f"fetch {name}")
        return KnownFiles(source=model.from_, stored=True)

    async def check(self, name: str, model: Model, files: KnownFiles) -> None:
        if name in self.bad:
            raise BadWeights(f"{name} is damaged")
        self.calls.append(f"check {name}")

    def leave_out(self, name: str, error: ModelUnavailable) -> None:
        self.calls.append(f"leave out {name}")

    async def commit(self, plan: Plan) -> None:
        self.calls.append("commit")

    def wants(self, name: str) -> bool:
        return name not in self.on_demand

    def lacks(self, name: str) -> bool:
        return name in self.lacking

    async def load(self, name: str, step: Step | None) -> None:
        self.calls.append(f"load {name}")
        if name in self.overtaken:
            raise Overtaken
        if name in self.unloadable:
            raise EngineFailed(f"{name} does not load")

    def loads(self, name: str) -> bool:
        return name in self.begun

    async def swap(self, held: set[str]) -> None:
        self.calls.append(f"swap without {sorted(held)}")

    async def prune(self) -> None:
        self.calls.append("prune")

    def record(self, result: Result) -> None:
        self.calls.append("record")


def desired(**models: dict[str, Any]) -> Manifest:
    return parse_resolved({"mullama": "v1", "models": {n: {"from": "/m/a.gguf", **m} for n, m in models.items()}})


def run(manifest: Manifest, effects: Remembering, before: Manifest | None = None) -> Result:
    live = {n: LiveModel(name=n, revision="", state="ready") for n in (before.models if before else {})}
    applied = Applied(generation=1, revision="", manifest=before) if before else None
    stored = KnownFiles(source="/m/a.gguf", stored=True, digest="sha256:" + "a" * 64)
    plan = make_plan(manifest, Observed(applied=applied, live=live, files={"/m/a.gguf": stored}))
    return asyncio.run(execute(plan, manifest, effects, lambda line: None))


def test_everything_is_fetched_and_checked_before_the_commit_and_loaded_after_it() -> None:
    effects = Remembering()

    result = run(desired(a={}, b={}), effects)

    assert result.outcome is Outcome.APPLIED
    commit = effects.calls.index("commit")
    assert set(effects.calls[:commit]) == {"fetch a", "fetch b", "check a", "check b"}
    assert effects.calls[commit + 1 :] == ["load a", "load b", "swap without []", "record"]


@pytest.mark.parametrize("effects", [Remembering(unfetchable=("b",)), Remembering(bad=("b",))])
def test_a_failed_fetch_or_check_commits_and_loads_nothing(effects: Remembering) -> None:
    with pytest.raises(MullamaError, match="b "):
        run(desired(a={}, b={}, c={}), effects)

    assert "commit" not in effects.calls
    assert not [call for call in effects.calls if call.startswith(("load", "swap"))]


def test_a_model_that_does_not_load_is_told_to_the_swap_and_the_others_go_on() -> None:
    effects = Remembering(unloadable=("a",))

    result = run(desired(a={}, b={}), effects)

    assert result.outcome is Outcome.PARTLY_APPLIED
    assert set(result.failures) == {"a"}
    assert "load b" in effects.calls
    assert "swap without ['a']" in effects.calls
    assert result.tree()["models"]["a"] == {"ok": False, "message": "a does not load"}


def test_what_loads_with_its_first_request_is_told_so_and_not_loaded() -> None:
    effects, told = Remembering(on_demand=("b",)), []  # type: ignore[var-annotated]
    manifest = desired(a={}, b={})
    plan = make_plan(manifest, Observed())

    asyncio.run(execute(plan, manifest, effects, told.append))

    assert "load b" not in effects.calls
    states = [(line["model"], line["state"]) for line in told if line["event"] == "step"]
    assert states == [("a", "loading"), ("a", "ready"), ("b", "idle")]


def test_higher_priority_loads_first() -> None:
    effects = Remembering()

    run(desired(low={}, high={"residency": {"priority": 9}}), effects)

    assert [c for c in effects.calls if c.startswith("load")] == ["load high", "load low"]


def test_a_live_change_loads_nothing() -> None:
    before = desired(a={}, b={})
    effects = Remembering()

    run(desired(a={"system": "x"}, b={}), effects, before)

    assert not [c for c in effects.calls if c == "load a"]
    assert "swap without []" in effects.calls


def test_no_more_than_the_declared_number_are_fetched_at_once() -> None:
    effects = Remembering()
    models = {f"m{i}": {"from": "/m/a.gguf"} for i in range(8)}
    manifest = parse_resolved({"mullama": "v1", "sources": {"parallel": 2}, "models": models})

    run(manifest, effects)

    assert effects.most_at_once == 2


@pytest.mark.parametrize(
    ("options", "calls", "overtaken"),
    [
        ({"overtaken": ("a", "b")}, ["load a", "load b", "load c", "swap without ['a', 'b']"], True),
        ({"begun": ("a",)}, ["load b", "load c", "swap without ['a']", "load a", "swap without []"], False),
        ({"begun": ("a",), "awaits_loads": False}, ["load b", "load c", "swap without ['a']"], False),
        (
            {"begun": ("a",), "unloadable": ("a", "b")},
            ["load b", "load c", "swap without ['a', 'b']", "load a", "swap without ['a', 'b']"],
            False,
        ),
        (
            {"begun": ("a",), "overtaken": ("a",)},
            ["load b", "load c", "swap without ['a']", "load a", "swap without ['a']"],
            True,
        ),
    ],
)
def test_no_load_holds_up_another_change(options: dict[str, Any], calls: list[str], overtaken: bool) -> None:
    effects = Remembering(**options)
    result = run(desired(a={}, b={}, c={}), effects)

    assert [call for call in effects.calls if call.startswith(("load", "swap"))] == calls
    assert result.overtaken is overtaken
