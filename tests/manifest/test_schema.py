"""The JSON Schema and the reference page: complete, and of one mind with the parser."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mullama.manifest.field_docs import described
from mullama.manifest.key_tree import SPELLINGS
from mullama.manifest.load.document import DocumentBudget, read_document
from mullama.manifest.reference import reference_page
from mullama.manifest.schema import json_schema
from mullama.plan.changes import COSTS
from tests.manifest.builders import HEAD, plain, problems

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema({path: cost.value for path, cost in COSTS.items()})
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
EXAMPLES = sorted([ROOT / "mullama.yaml", *ROOT.glob("examples/*.yaml"), *ROOT.glob("examples/include/**/*.yaml")])


def accepts(text: str) -> bool:
    return bool(VALIDATOR.is_valid(plain(read_document(text.encode(), "m.yaml", DocumentBudget()).root)))


def test_it_is_a_schema_of_draft_07() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_valid_by_the_schema(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tree(path))] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_tells_editors_where_the_schema_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "schemas" / "mullama.v1.schema.json"


def tree(path: Path) -> Any:
    return plain(read_document(path.read_bytes(), path.name, DocumentBudget()).root)


def properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, block in {"": schema, **schema["definitions"]}.items():
        for key, field in block.get("properties", {}).items():
            yield f"{name}.{key}", field


def test_every_field_has_a_description_of_its_own() -> None:
    for name, field in properties(SCHEMA):
        assert field["description"].endswith("."), name
    assert all(len(field.description) >= 8 for field in described())


def test_every_field_that_costs_something_says_what() -> None:
    """Blocks whose fields differ, and fields that only the written form has, have no cost of their own."""
    open_fields = {name for name, field in properties(SCHEMA) if "x-mullama-cost" not in field}
    written = {"include", "defaults", "profiles", "models", "server", "hardware", "like", *SPELLINGS}
    assert {name.rpartition(".")[2] for name in open_fields} == written
    costs = {field["x-mullama-cost"] for _, field in properties(SCHEMA) if "x-mullama-cost" in field}
    assert costs == {"none", "live", "context", "weights", "files", "process"}


def valid(field: Mapping[str, Any], value: Any) -> bool:
    return bool(jsonschema.Draft7Validator({"definitions": SCHEMA["definitions"], **field}).is_valid(value))


def test_no_word_of_ours_is_a_boolean_to_older_yaml() -> None:
    """But for on and off of flash_attention, which therefore may be written as true and false."""
    words = {name.rpartition(".")[2] for name, _ in properties(SCHEMA)}
    choices = {(name, option) for name, field in properties(SCHEMA) for option in options(field)}
    older = {"y", "n", "yes", "no", "on", "off", "true", "false"}
    assert not words & older
    clashes = {(name, option) for name, option in choices if str(option).lower() in older}
    assert clashes == {("Context.flash_attention", option) for option in ("on", "off", True, False)}


def options(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        yield from schema.get("enum", ())
        for inner in (*schema.get("anyOf", ()), schema.get("items")):
            yield from options(inner)


def cases() -> Iterator[tuple[str, Any]]:
    for name, field in properties(SCHEMA):
        for example in field.get("examples", ()):
            yield name, example


@pytest.mark.parametrize(("name", "example"), list(cases()), ids=str)
def test_every_example_of_a_field_is_valid_for_it(name: str, example: Any) -> None:
    block, _, key = name.partition(".")
    owner = SCHEMA["definitions"][block] if block else SCHEMA
    assert valid(owner["properties"][key], example)


def test_no_bound_of_a_field_meets_one_of_its_type_which_would_replace_it() -> None:
    for field in described():
        kinds = [type(bound).__name__ for bound in field.block.model_fields[field.name].metadata]
        assert all(kinds.count(kind) <= 1 for kind in ("Ge", "Gt", "Le", "Lt")), field.path


def test_every_default_is_valid_for_its_field() -> None:
    for name, field in properties(SCHEMA):
        assert "default" not in field or valid(field, field["default"]), name


A = "models: {a: {from: builtin:tiny, %s}}"

BOTH_REFUSE = [
    "modles: {}",
    A % "contxt: {}",
    A % "context: {size: '8'}",
    A % "context: {size: 8.5}",
    A % "context: {size: true}",
    A % "context: {size: 0}",
    A % "context: 3",
    A % "context: {pooling: men}",
    A % "context: {kv: {k: q9}}",
    A % "parameters: {temperature: hot}",
    A % "parameters: {top_p: 2}",
    A % "parameters: {mirostat: 3}",
    A % "parameters: {stop: x}",
    A % "parameters: {stop: ['']}",
    A % "parameters: {num_ctx: big}",
    A % "parameters: {numctx: 3}",
    A % "memory: {mmap: yes}",
    A % "gpu: {layers: -1}",
    A % "gpu: {layers: {a: 1}}",
    A % "gpu: {layers: some}",
    A % "system: 12",
    A % "digest: abc",
    A % "dialects: []",
    A % "dialects: [openia]",
    A % "messages: [{role: user}]",
    A % "messages: [hi]",
    A % "adapters: {from: x.gguf}",
    A % "residency: {ttl: soon}",
    A % "limits: {parallel: 0}",
    A % "requires: [tool]",
    A % "task: chatting",
    A % "template: {}",
    A % "template: {text: a, go: b}",
    A % "template: 3",
    "models: {a: {}}",
    "models: {a: 3}",
    "models: {a: [x]}",
    "models: {a: }",
    "models: [a]",
    "server: {listen: []}",
    "server: {limits: {body: 8 apples}}",
    "auth: {keys: {k: {secret: sk-literal}}}",
    "auth: {keys: {k: {secret: '${KEY}'}}}",
    "auth: {keys: {k: {secret: {from_env: '${KEY}'}}}}",
    "auth: {keys: {k: {secret: {}}}}",
    "auth: {keys: {k: {secret: {from_env: A, from_file: b}}}}",
    "auth: {keys: {k: {}}}",
    "sources: {hf: {token: hf_literal}}",
    "hardware: {budget: {ram: 120%}}",
    "routes: {r: 3}",
    "routes: {r: {to: [{modl: a}]}}",
    "moved: [{from: a}]",
    "include: 3",
    "defaults: {from: builtin:tiny}",
    "defaults: {context: {size: big}}",
    "profiles: {p: {modles: {}}}",
    "profiles: {p: {models: {a: {contxt: {}}}}}",
    "profiles: {p: {include: [x]}}",
    "profiles: {p: 3}",
]


@pytest.mark.parametrize("text", BOTH_REFUSE)
def test_what_the_schema_refuses_the_parser_refuses_too(text: str) -> None:
    assert not accepts(HEAD + text)
    assert problems(HEAD + text)


BOTH_ACCEPT = [
    "",
    "models: {}",
    "models:",
    "models: {a: builtin:tiny}",
    A % "x-notes: {free: [1]}, context: {x-why: because, size: 8}",
    A % "context: {size: '${N:-8}', flash_attention: true, kv: {k: '${K:-f16}'}}",
    A % "context: null, system: null, residency: {ttl: null}",
    A % "gpu: {layers: '${L:-all}', tensor_split: [3, '${T:-1}']}",
    A % "gpu: {layers: {'0': 30, '1': '${L:-18}'}}",
    A % "parameters: {num_ctx: 64, num_gpu: -1, use_mmap: false, temperature: 0}",
    A % "template: '{{ x }}'",
    A % "template: {go: '{{ .Prompt }}'}",
    A % "residency: {ttl: never, load: on_demand}",
    A % "residency: {ttl: 900}",
    A % "limits: {timeout: 1h30m}",
    A % "probe: {expect: '(?i)ok'}",
    "models: {a: builtin:tiny, b: {like: a}}",
    "server: {limits: {body: 8MiB, queue_timeout: never}, listen: ['127.0.0.1:${PORT:-0}']}",
    "server: {limits: {body: 8388608}}",
    "hardware: {budget: {ram: 80%, gpu: {'0': 22GiB}}, profiles: {p: {gpu: {layers: 0}}}}\n" + A % "hardware: p",
    "models: {a: builtin:tiny}\nroutes: {r: {to: [{model: a}]}, s: a}",
    "auth: {keys: {k: {secret: {from_env: K}, x-owner: me}}}",
    "defaults: {context: {size: 8}, template: '{{ x }}'}",
    "profiles: {p: {models: {a: null, b: builtin:tiny, c: {context: {size: 3}}}, auth: {keys: {k: null}}}}",
    "x-anything: {a: [b]}",
]


@pytest.mark.parametrize("text", BOTH_ACCEPT)
def test_what_the_schema_accepts_the_parser_accepts_too(text: str) -> None:
    assert accepts(HEAD + text)
    assert problems(HEAD + text) == []


def test_the_reference_page_has_every_field_and_every_link_leads_somewhere() -> None:
    page = reference_page({path: cost.value for path, cost in COSTS.items()})
    for field in described():
        assert f"| `{field.key}` |" in page
    headings = {line[3:].lower().replace(".", "").replace(" ", "-") for line in page.splitlines() if line[:3] == "## "}
    links = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert links <= headings
    assert "$defs" not in json.dumps(SCHEMA)


def test_each_field_is_one_row_of_a_table() -> None:
    page = reference_page({path: cost.value for path, cost in COSTS.items()})
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows
    assert all(line.endswith(" |") for line in rows)
    assert not any(line.startswith(" ") and line.endswith(" |") for line in page.splitlines())
