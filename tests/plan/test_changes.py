"""The cost table and the comparison of two manifests."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given

from mullama.manifest.spec.definitions import Block, Manifest, Model
from mullama.manifest.tree import parse_resolved
from mullama.plan.changes import COSTS, changed_blocks, compare_models, compare_rest, cost_of
from mullama.plan.steps import Cost
from tests.plan.builders import MODELS, manifest


def _fields(block: type[Block], path: str) -> list[str]:
    """Every leaf by its dotted path, `*` for the keys of a map; a list of blocks is one leaf."""
    found = []
    for name, info in block.model_fields.items():
        where = f"{path}.{info.alias or name}".lstrip(".")
        inner = [kind for kind in _kinds(info.annotation) if isinstance(kind, type) and issubclass(kind, Block)]
        if typing.get_origin(info.annotation) is tuple or not inner:
            found.append(where)
        else:
            star = ".*" if typing.get_origin(info.annotation) is dict else ""
            found += [leaf for kind in inner for leaf in _fields(kind, where + star)]
    return found


def _kinds(annotation: Any) -> list[Any]:
    arguments = typing.get_args(annotation)
    return [annotation] if not arguments else [kind for a in arguments for kind in _kinds(a)]


def test_every_field_of_the_manifest_has_a_cost() -> None:
    """A field that is not listed fails here; nothing is live by default."""
    paths = _fields(Manifest, "")

    assert not [path for path in paths if not _has_cost(path)]
    assert {"models.*.gpu.layers", "models.*.context.kv.k", "server.limits.queue", "auth.keys.*.models"} <= set(paths)
    assert len(paths) > 100


def _has_cost(path: str) -> bool:
    try:
        cost_of(path)
    except KeyError:
        return False
    return True


def test_every_line_of_the_cost_table_is_a_field() -> None:
    for path in COSTS:
        first, _, rest = path.partition(".")
        assert first in Manifest.model_fields
        if first == "models":
            field = rest.removeprefix("*.").split(".")[0]
            assert field in {info.alias or name for name, info in Model.model_fields.items()}


@given(before=MODELS, after=MODELS)
def test_comparing_is_symmetric_in_what_it_finds(before: dict[str, Any], after: dict[str, Any]) -> None:
    one, two = manifest(a=before).models["a"], manifest(a=after).models["a"]

    assert {c.path for c in compare_models(one, two)} == {c.path for c in compare_models(two, one)}


_BLOCKS: tuple[dict[str, Any], ...] = (
    {},
    {"routes": {"r": "a"}},
    {"routes": {"q": "a"}, "moved": [{"from": "r", "to": "q", "kind": "route"}]},
    {"routes": {"r": {"to": [{"model": "a", "weight": 2}]}}},
    {"peers": {"p": {"url": "http://10.0.0.1:1"}}, "server": {"limits": {"queue": 3}}},
    {"auth": {"keys": {"k": {"secret": {"from_env": "K"}, "roles": ["infer"]}}}, "metadata": {"name": "n"}},
    {"groups": {"g": {"models": ["a"]}}, "hardware": {"budget": {"ram": "1GiB"}}},
)


@pytest.mark.parametrize("old", _BLOCKS)
@pytest.mark.parametrize("new", _BLOCKS)
def test_the_changed_blocks_are_those_with_changed_fields(old: dict[str, Any], new: dict[str, Any]) -> None:
    models = {"a": {"from": "/m/a.gguf"}}
    one, other = (parse_resolved({"mullama": "v1", "models": models, **blocks}) for blocks in (old, new))
    assert changed_blocks(one, other) == compare_rest(one, other).keys()
    assert bool(changed_blocks(one, other)) == (old != new)


def test_a_block_that_is_added_or_removed_shows_its_fields() -> None:
    tree = {"mullama": "v1", "models": {"a": {"from": "builtin:tiny"}}}
    without = Manifest.model_validate(tree)
    search = {"provider": "brave", "key": {"from_env": "K"}, "results": 7}
    with_search = Manifest.model_validate({**tree, "search": search})
    for old, new in ((without, with_search), (with_search, without)):
        found = compare_rest(old, new)
        assert list(found) == ["search"]
        shown = {change.path: (change.cost, change.sensitive) for change in found["search"]}
        assert shown == {
            "search.provider": (Cost.LIVE, False),
            "search.key.from_env": (Cost.LIVE, True),
            "search.results": (Cost.LIVE, False),
        }
