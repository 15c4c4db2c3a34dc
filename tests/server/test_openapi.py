"""The OpenAPI document is valid and matches the routes and their responses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.server.server_fixture import CHAT, RunningServer, StubRuntime, key, manifest, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def document(server: RunningServer) -> Any:
    answer = server.ask("GET", "/openapi.json")
    assert answer.status == 200
    return answer.json


def operations(document: Any) -> list[tuple[str, str, Any]]:
    return [(path, method, op) for path, item in document["paths"].items() for method, op in item.items()]


def schemas(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "schema":
                yield value
            else:
                yield from schemas(value)
    elif isinstance(node, list):
        for value in node:
            yield from schemas(value)


def test_the_document_has_exactly_the_routes(server: RunningServer, document: Any) -> None:
    documented = {(path, method.upper()) for path, method, _ in operations(document)}
    served = {(re.sub(r":\w+\}", "}", r.path), r.method) for r in server.app.routes}
    assert documented == served


def test_operations_have_a_name_of_their_own_and_a_summary(document: Any) -> None:
    ids = [op["operationId"] for _, _, op in operations(document)]
    assert len(ids) == len(set(ids))
    assert all(op["summary"] and op["tags"] for _, _, op in operations(document))


def test_every_schema_is_a_json_schema(document: Any) -> None:
    found = list(schemas(document["paths"]))
    assert len(found) > 100
    for schema in {json.dumps(schema, sort_keys=True): schema for schema in found}.values():
        Draft202012Validator.check_schema(schema)


def test_the_document_has_path_parameters(document: Any) -> None:
    for path, _, op in operations(document):
        assert [p["name"] for p in op.get("parameters", [])] == re.findall(r"\{(\w+)\}", path)


def test_the_document_has_only_enabled_dialects() -> None:
    with running_server(StubRuntime(manifest=manifest(server={"dialects": ["anthropic"]}))) as server:
        paths = server.ask("GET", "/openapi.json").json["paths"]
    assert "/v1/messages" in paths
    assert "/v1/chat/completions" not in paths
    assert "/api/v1/status" in paths


def test_the_document_requires_keys_where_they_are_needed() -> None:
    with running_server(StubRuntime(keys=(key("k", "s", "infer"),))) as server:
        document = server.ask("GET", "/openapi.json").json
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}
    assert document["paths"]["/v1/chat/completions"]["post"]["security"]
    assert "security" not in document["paths"]["/livez"]["get"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", None),
        ("GET", "/api/tags", None),
        ("GET", "/api/version", None),
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/completions", {"model": "tiny", "prompt": "x"}),
        ("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}),
        ("POST", "/v1/responses", {"model": "tiny", "input": "x"}),
        ("POST", "/v1/messages", {**CHAT, "max_tokens": 5}),
        ("POST", "/api/chat", {**CHAT, "stream": False}),
        ("POST", "/api/generate", {"model": "tiny", "prompt": "x", "stream": False}),
        ("POST", "/api/embed", {"model": "tiny", "input": "x"}),
        ("POST", "/api/pull", {"model": "tiny", "stream": False}),
        ("POST", "/tokenize", {"model": "tiny", "content": "x"}),
        ("GET", "/livez", None),
        ("GET", "/readyz", None),
        ("GET", "/healthz", None),
        ("POST", "/api/v1/reload", {}),
        ("POST", "/api/v1/shutdown", {}),
    ],
)
def test_an_answer_matches_its_schema(server: RunningServer, document: Any, method: str, path: str, body: Any) -> None:
    operation = document["paths"][path][method.lower()]
    if body is not None:
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator(asked).validate(body)
    answer = server.ask(method, path, body)
    assert 200 <= answer.status < 300
    content = operation["responses"]["2XX"]["content"]
    Draft202012Validator(content["application/json"]["schema"]).validate(answer.json)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/v1/plan"])
def test_an_error_matches_its_schema(server: RunningServer, document: Any, path: str) -> None:
    media = document["paths"][path]["post"]["responses"]["default"]["content"]["application/json"]
    answer = server.ask("POST", path, {"model": 5})
    assert answer.status == 400
    Draft202012Validator(media["schema"]).validate(answer.json)
    for example in media["examples"].values():
        Draft202012Validator(media["schema"]).validate(example["value"])


def test_the_document_has_the_media_type_of_a_stream(server: RunningServer, document: Any) -> None:
    for path, body in (
        ("/api/chat", CHAT),
        ("/v1/chat/completions", CHAT),
        ("/v1/responses", {"model": "m", "input": "x"}),
    ):
        media_types = document["paths"][path]["post"]["responses"]["2XX"]["content"]
        answer = server.ask("POST", path, {**body, "stream": True})
        assert answer.headers["content-type"].partition(";")[0] in media_types


def fields(schema: Any) -> list[str]:
    """All property names of a schema."""
    if isinstance(schema, list):
        return [name for part in schema for name in fields(part)]
    if not isinstance(schema, dict):
        return []
    inner = [name for value in schema.values() for name in fields(value)]
    return [*schema.get("properties", {}), *inner]


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "tiny", "user", "auto", "text", "json", "function", "\x00", "\U0001f600" * 3])
)


def bodies(names: list[str]) -> st.SearchStrategy[Any]:
    values = st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=4),
        max_leaves=8,
    )
    return st.dictionaries(st.sampled_from(names), values, max_size=6).map(lambda d: {**GIVEN, **d})


GIVEN = {"model": "tiny"}


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_body_of_known_fields_causes_an_internal_error(server: RunningServer, document: Any, data: Any) -> None:
    for path, method, op in operations(document):
        content = op.get("requestBody", {}).get("content", {})
        if "application/json" not in content or path.startswith("/api/v1/shutdown"):
            continue
        names = sorted(set(fields(content["application/json"]["schema"]))) or ["x"]
        answer = server.ask(method.upper(), path.replace("{slot}", "0"), data.draw(bodies(names), label=path))
        assert answer.status < 500 or answer.status in (501, 503), (path, answer)
        assert answer.headers["x-request-id"]
