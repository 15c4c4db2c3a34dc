"""The resolved manifest as JSON: nothing is lost on the way, and a revision says what it means."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mullama.chat.template_arguments import TEMPLATE_ARGUMENTS
from mullama.errors import ManifestError
from mullama.manifest.spec import Manifest, Model, definitions
from mullama.manifest.tree import block_to_tree, manifest_to_tree, parse_resolved, revision
from tests.manifest.builders import one, read

RAW = definitions.Manifest.model_json_schema(by_alias=True)
DEFINITIONS = RAW["$defs"]
EXTREMES = (None, "", "auto", "never", -1, 0, 1, 0.5, 2**53, True)


def values(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema allows, or nearly."""
    if "$ref" in schema:
        return blocks(schema["$ref"].rpartition("/")[2])
    if arms := schema.get("anyOf") or schema.get("oneOf"):
        return st.one_of([values(arm) for arm in arms])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    return KINDS[str(schema["type"])](schema)


def texts(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    pattern = schema.get("pattern")
    return st.from_regex(pattern.replace("$", r"\Z")) if pattern else st.text(min_size=1, max_size=12)


def numbers(schema: Mapping[str, Any]) -> st.SearchStrategy[float]:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum", -1e6)), schema.get("maximum", 1e6)
    return st.floats(low, high, exclude_min="exclusiveMinimum" in schema)


def maps(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    inner = schema.get("additionalProperties") or next(iter(schema["patternProperties"].values()))
    return st.dictionaries(st.from_regex(r"\A[0-9]{1,2}\Z"), values(inner), min_size=1, max_size=2)


KINDS: Mapping[str, Callable[[Any], st.SearchStrategy[Any]]] = {
    "integer": lambda schema: st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**53 - 1)),
    "number": numbers,
    "boolean": lambda _: st.booleans(),
    "string": texts,
    "array": lambda schema: st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3),
    "object": maps,
    "null": lambda _: st.none(),
    "['number', 'string']": lambda _: st.sampled_from(["never", "30s", "1h30m", "250ms"]) | st.floats(0, 1e9),
    "['string', 'number', 'boolean', 'array', 'object', 'null']": lambda _: st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=2),
        max_leaves=4,
    ),
    "['integer', 'string']": lambda _: st.sampled_from(["1GiB", "8MiB", "1.5kB"]) | st.integers(1024, 2**50),
}


def blocks(name: str) -> st.SearchStrategy[dict[str, Any]]:
    definition = DEFINITIONS[name]
    required = set(definition.get("required", ()))
    fields = {key: values(field) for key, field in definition["properties"].items()}
    return st.fixed_dictionaries(
        {key: strategy for key, strategy in fields.items() if key in required},
        optional={key: strategy for key, strategy in fields.items() if key not in required},
    )


SOURCES = st.sampled_from(["builtin:tiny", "hf:a/b:Q4_K_M@main", "/srv/a.gguf", "llama3.2:1b", "https://x.org/a.gguf"])
TREES = blocks("Model").flatmap(lambda tree: SOURCES.map(lambda source: {**tree, "from": source}))


def model_of(tree: dict[str, Any]) -> Model | None:
    for adapter in tree.get("adapters", ()):
        adapter["from"] = "/srv/adapter.gguf"
    try:
        return Model.model_validate(tree)
    except ValidationError:
        return None


def supported(model: Model) -> Model:
    """The same without what is refused or what does not agree with the rest of the manifest."""
    said: dict[str, Any] = {
        "draft": None, "template": None, "dialects": None, "hosts": "any", "replicas": 1, "scale": None,
        "mcp": (), "approve": "never", "search": False,
        "mmproj": model.mmproj and "/srv/projector.gguf",
        "rollout": model.rollout.model_copy(update={"strategy": "auto"}),
        "limits": model.limits.model_copy(update={"rate": None}),
        "context": model.context.model_copy(update={"flash_attention": "on", "ubatch": None, "pool": "auto"}),
        "gpu": model.gpu.model_copy(update={"tensor_split": (), "devices": ()}),
        "embedding": model.embedding.model_copy(update={"default_prompt": None}),
        "transcription": model.transcription.model_copy(update={"language": None}),
        "residency": model.residency.model_copy(update={"ttl": None} if model.residency.load == "when_room" else {}),
        "template_arguments": dict(zip(sorted(TEMPLATE_ARGUMENTS), model.template_arguments.values(), strict=False)),
        "adapters": tuple(a.model_copy(update={"expose": False}) for a in model.adapters[:1]),
    }  # fmt: skip
    return model.model_copy(update=said)


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_a_model_comes_back_from_its_tree_as_it_was(tree: dict[str, Any]) -> None:
    model = model_of(tree)
    if model is None:
        return
    sent = json.loads(json.dumps(block_to_tree(model), allow_nan=False))
    assert Model.model_validate(sent) == model
    assert revision(Model.model_validate(sent)) == revision(model)


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,5}:[a-z]{1,3}\Z"), TREES, max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_manifest_comes_back_from_its_tree_as_it_was(trees: dict[str, dict[str, Any]]) -> None:
    models = {name: supported(model) for name, tree in trees.items() if (model := model_of(tree))}
    manifest = Manifest(mullama="v1", models=models, routes={"r": next(iter(models))} if models else {})
    sent = json.loads(json.dumps(manifest_to_tree(manifest), allow_nan=False, sort_keys=True))
    assert parse_resolved(sent) == manifest


@given(TREES, TREES)
@settings(max_examples=50, deadline=None)
def test_two_models_have_one_revision_exactly_when_they_are_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    one_model, other = model_of(a), model_of(b)
    if one_model is not None and other is not None:
        assert (revision(one_model) == revision(other)) == (one_model == other)


FULL = """
server: {listen: ["127.0.0.1:0", "unix:./s"], limits: {queue_timeout: never}}
auth: {keys: {k: {secret: {from_file: ./k}}}}
sources: {hf: {token: {from_env: T, optional: true}}, stores: {gguf: [./g]}}
hardware: {budget: {ram: 80%, gpu: {"0": 1GiB}, reserve: 1}, profiles: {p: {gpu: {layers: {"0": 3}}}}}
models: {a: {from: ./x.gguf, hardware: p, template: "{{ x }}", residency: {ttl: never}, adapters: [{from: ./l.gguf}]}}
routes: {default: a}
moved: [{from: x, to: a}]
"""


def test_every_kind_of_block_survives_the_round_trip() -> None:
    manifest = read(FULL).manifest
    sent = json.loads(json.dumps(manifest_to_tree(manifest), allow_nan=False))
    assert parse_resolved(sent) == manifest
    assert sent["models"]["a"]["residency"]["ttl"] == "never"
    assert sent["sources"]["stores"]["gguf"] == ["/srv/app/g"]
    assert sent["server"]["listen"][1] == "unix:/srv/app/s"


SAME = [
    ("{from: builtin:tiny, context: {size: 64}}", "{context: {size: 64}, from: builtin:tiny} # a comment"),
    ("{from: builtin:tiny, residency: {ttl: 15m}}", "{from: builtin:tiny, residency: {ttl: 900}}"),
    ("{from: builtin:tiny, residency: {ttl: 1h30m}}", "{from: builtin:tiny, residency: {ttl: 90m}}"),
    ("{from: builtin:tiny, limits: {parallel: 4}}", "{from: builtin:tiny}"),
    ("{from: builtin:tiny, parameters: {temperature: 1}}", "{from: builtin:tiny, parameters: {temperature: 1.0}}"),
    ("{from: builtin:tiny, system: hi}", "{from: 'builtin:tiny', system: \"hi\"}"),
    ("{from: builtin:tiny, x-note: 1}", "{from: builtin:tiny}"),
    ("builtin:tiny", "{from: builtin:tiny, system: null}"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_how_it_is_written_never_changes_the_revision(a: str, b: str) -> None:
    assert revision(one(f"models: {{a: {a}}}")) == revision(one(f"models:\n  a: {b}\n"))


def test_units_of_size_never_change_the_revision() -> None:
    a = read("hardware: {budget: {ram: 4GiB}}\nserver: {limits: {body: 8MiB}}").manifest
    b = read("server: {limits: {body: 8388608}}\nhardware: {budget: {ram: 4096MiB}}").manifest
    assert revision(a) == revision(b)


def test_what_a_model_takes_from_defaults_is_in_its_revision() -> None:
    a = one("defaults: {context: {size: 64}}\nmodels: {a: builtin:tiny}")
    assert revision(a) == revision(one("models: {a: {from: builtin:tiny, context: {size: 64}}}"))
    assert revision(a) != revision(one("models: {a: builtin:tiny}"))


DAMAGED = [
    ({}, "mullama: this is not a resolved manifest of version v1"),
    ({"mullama": "v2"}, "mullama: this is not a resolved manifest of version v1"),
    ({"mullama": "v1", "include": []}, "include: no such field in a resolved manifest"),
    ({"mullama": "v1", "models": []}, "models: expected a map of names to models"),
    ({"mullama": "v1", "models": {"a": "builtin:tiny"}}, "models.a: expected a map, got 'builtin:tiny'"),
    ({"mullama": "v1", "models": {"a": {"from": "./x.gguf"}}}, "models.a.from: './x.gguf' is not an absolute path"),
    (
        {"mullama": "v1", "models": {"a": {"from": "builtin:x", "template": {"file": "/t"}}}},
        "models.a.template: a template in a resolved manifest is text",
    ),
    ({"mullama": "v1", "models": {"a": {"from": "builtin:x", "contxt": {}}}}, "models.a.contxt: no such field"),
    ({"mullama": "v1", "models": {"../a": {"from": "builtin:x"}}}, "is not a model name"),
    ({"mullama": "v1", "routes": {"a": "b"}}, "routes.a: there is no model 'b'"),
    ({"mullama": "v1", "server": {"listen": ["0.0.0.0:1"]}}, "is reachable from other machines"),
    ({"mullama": "v1", "server": 3}, "server: expected a map, got 3"),
]


@pytest.mark.parametrize(("tree", "expected"), DAMAGED)
def test_a_tree_that_is_no_resolved_manifest_is_refused(tree: dict[str, Any], expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_resolved(tree)
    assert expected in str(caught.value)
    assert all(problem.place is None for problem in caught.value.problems)


KEYS = st.sampled_from([*Manifest.model_fields, *Model.model_fields, "from", "size", "a"])
ANYTHING = st.recursive(
    st.sampled_from(EXTREMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(ANYTHING)
@settings(max_examples=60, deadline=None)
def test_any_tree_is_a_manifest_or_refused(tree: object) -> None:
    whole = {"mullama": "v1", **(tree if isinstance(tree, dict) else {"models": tree})}
    try:
        manifest = parse_resolved(whole)
    except ManifestError:
        return
    assert parse_resolved(manifest_to_tree(manifest)) == manifest
