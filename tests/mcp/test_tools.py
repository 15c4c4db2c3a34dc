"""The tools over an API that answers from a table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from mullama.errors import Conflict, Denied, Invalid, ManifestError, MullamaError, NotFound, TooLarge
from mullama.mcp.base import McpSession
from mullama.mcp.plans import PlanBook, WaitingPlan
from mullama.mcp.resources import PROMPTS, prompt_text, read_resource
from mullama.mcp.tools import MOST_BYTES, TOOLS, ToolCalls, error_tree, offered, require_bounded
from mullama.problems import Problem

CHANGED = {"event": "result", "outcome": "applied"}
MANIFEST = {"text": "mullama: v1\n", "digest": "d1", "revision": "r1", "path": "/m.yaml"}
PLANNED = {"problems": [], "plan": {"steps": []}}


class TableApi:
    """Answers requests from a table, and remembers them."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "GET /api/v1/status": {"state": "ready"},
            "GET /api/v1/stack": {"revision": "r1"},
            "GET /api/v1/manifest": MANIFEST,
            "POST /api/v1/manifest/plan": PLANNED,
            "GET /api/v1/undo?to=3": {"steps": []},
            "PUT /api/v1/manifest": [{"event": "step"}, CHANGED],
            "POST /api/v1/undo": [CHANGED],
        } | answers
        self.asked: list[tuple[Any, ...]] = []

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._answer(f"{method} {path}", body)

    async def lines(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        return list(self._answer(f"{method} {path}", body, headers))

    async def events(self, path: str) -> list[dict[str, Any]]:
        return list(self._answer(f"EVENTS {path}"))

    def _answer(self, request: str, *sent: Any) -> Any:
        self.asked.append((request, *sent))
        found = self.answers[request]
        if isinstance(found, MullamaError):
            raise found
        return found


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def session(api: TableApi | None = None, **fields: Any) -> McpSession:
    return McpSession(api=api or TableApi(), **{"changes": True, **fields})


def called(calls: ToolCalls, caller: McpSession, tool: str, **arguments: Any) -> dict[str, Any]:
    return asyncio.run(calls.call(caller, tool, arguments))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> ToolCalls:
    return ToolCalls(PlanBook(), clock)


def test_the_tools_are_those_that_are_documented_in_the_order_of_their_names() -> None:
    assert list(TOOLS) == sorted(TOOLS)
    assert set(TOOLS) == {
        "status", "diff", "plan", "apply", "undo", "logs", "events", "models", "search", "bench", "generate", "embed",
    }  # fmt: skip
    for tool in TOOLS.values():
        schema = tool.schema
        assert (schema["type"], schema["additionalProperties"]) == ("object", False)
        assert all("description" in field or "anyOf" in field for field in schema["properties"].values())


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, set()),
        ({"changes": False}, {"apply", "undo"}),
        ({"roles": ("read",)}, {"apply", "undo", "logs", "search", "bench", "generate", "embed", "models"}),
        ({"roles": ("infer",)}, {"apply", "undo", "logs", "search", "diff", "plan", "status", "events"}),
        ({"roles": ("admin",)}, set()),
        ({"roles": ()}, set(TOOLS)),
    ],
)
def test_a_caller_is_offered_the_tools_of_its_roles(fields: dict[str, Any], missing: set[str]) -> None:
    assert set(TOOLS) - set(offered(session(**fields))) == missing


def test_a_plan_is_applied_by_its_id_against_the_text_and_revision_that_were_planned(calls: ToolCalls) -> None:
    api = TableApi()
    planned = called(calls, session(api), "plan", manifest="mullama: v1 # new\n", profiles=["day"])
    assert called(calls, session(api), "apply", id=planned["id"]) == CHANGED
    request, body, headers = api.asked[-1]
    assert request == "PUT /api/v1/manifest"
    assert body == {"text": "mullama: v1 # new\n", "digest": "d1", "profiles": ["day"]}
    assert headers == {"if-match": '"r1"'}
    with pytest.raises(NotFound, match="no plan"):  # once
        called(calls, session(api), "apply", plan=planned["id"])


def test_a_refused_apply_keeps_its_plan_and_its_error(calls: ToolCalls) -> None:
    api = TableApi()
    id = called(calls, session(api), "plan", manifest="x")["id"]
    api.answers["PUT /api/v1/manifest"] = Conflict("the applied revision is r2, not r1", hint="plan again")
    with pytest.raises(Conflict, match="r2"):
        called(calls, session(api), "apply", id=id)
    api.answers["PUT /api/v1/manifest"] = [{"event": "error", "error": {"kind": "refused", "message": "too large"}}]
    with pytest.raises(MullamaError, match="too large"):
        called(calls, session(api), "apply", id=id)
    api.answers["PUT /api/v1/manifest"] = []
    with pytest.raises(MullamaError, match="without a result"):
        called(calls, session(api), "apply", id=id)
    api.answers["PUT /api/v1/manifest"] = [CHANGED]
    assert called(calls, session(api), "apply", id=id) == CHANGED


def test_the_plan_of_an_earlier_revision_is_stale_after_another_change(calls: ToolCalls) -> None:
    api = TableApi()
    id = called(calls, session(api), "plan", revision=3)["id"]
    api.answers["POST /api/v1/undo"] = Conflict("the applied revision is r2, not r1")
    with pytest.raises(Conflict, match="r2"):
        called(calls, session(api), "apply", id=id)
    api.answers["POST /api/v1/undo"] = [CHANGED]
    assert called(calls, session(api), "apply", id=id) == CHANGED
    assert api.asked[-1] == ("POST /api/v1/undo", {"to": 3}, {"if-match": '"r1"'})


def test_a_plan_belongs_to_its_key_and_ends_after_an_hour(calls: ToolCalls, clock: Clock) -> None:
    id = called(calls, session(owner="ci"), "plan", manifest="x")["id"]
    with pytest.raises(NotFound):
        called(calls, session(owner="other"), "apply", id=id)
    clock.now = 3601.0
    with pytest.raises(NotFound):
        called(calls, session(owner="ci"), "apply", id=id)


def test_the_book_is_bounded_and_its_ids_differ() -> None:
    book = PlanBook()
    ids = [book.add(WaitingPlan(owner="", made=0.0, revision="r")) for _ in range(65)]
    assert len(set(ids)) == 65
    with pytest.raises(NotFound):
        book.find(ids[0], "", 0.0)
    assert book.find(ids[1], "", 0.0).revision == "r"


def test_a_manifest_with_mistakes_gets_no_plan(calls: ToolCalls) -> None:
    problems = {"problems": [{"line": 1, "message": "no"}], "plan": None}
    found = called(calls, session(TableApi(**{"POST /api/v1/manifest/plan": problems})), "plan", manifest="{")
    assert (found["id"], found["problems"]) == (None, problems["problems"])


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("plan", {}, "either a manifest or a revision"),
        ("plan", {"manifest": "a", "revision": 1}, "either a manifest or a revision"),
        ("plan", {"revision": 3, "profiles": ["a"]}, "profiles belong to a manifest"),
        ("plan", {"manifest": "from: https://***@host/a.gguf"}, "the mask"),
        ("plan", {"manifest": 5}, "plan.manifest"),
        ("logs", {"tail": 0}, "logs.tail"),
        ("logs", {"lines": 1}, "no argument 'lines'"),
        ("status", {"x": 1}, "no argument 'x'"),
        ("embed", {"texts": []}, "embed.texts"),
        ("embed", {"texts": ["a"] * 65}, "embed.texts"),
        ("generate", {"prompt": ""}, "generate.prompt"),
        ("generate", {"prompt": "a", "max_tokens": 10**9}, "generate.max_tokens"),
        ("apply", {}, "id"),
        ("apply", {"id": "plan-1"}, "no plan 'plan-1' waits"),
        ("apply", {"plan": "plan-1"}, "no plan 'plan-1' waits"),
        ("nope", {}, "no tool 'nope'"),
    ],
)
def test_wrong_arguments_are_named(calls: ToolCalls, tool: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MullamaError, match=message):
        called(calls, session(), tool, **arguments)


@pytest.mark.parametrize("tool", ["apply", "undo"])
def test_changes_need_to_be_allowed(calls: ToolCalls, tool: str) -> None:
    api = TableApi()
    with pytest.raises(Invalid, match="not allowed here"):
        called(calls, session(api, changes=False), tool, **({"plan": "p"} if tool == "apply" else {}))
    assert api.asked == []


def test_secrets_of_addresses_are_masked(calls: ToolCalls) -> None:
    api = TableApi(**{"GET /api/v1/status": {"models": [{"source": "https://me:pw@host/a?token=t"}]}})
    text = json.dumps(called(calls, session(api), "status"))
    assert ("pw" in text, "token=t" in text) == (False, False)
    api.answers["GET /api/v1/manifest"] = {**MANIFEST, "text": "from: https://me:pw@host/a"}
    assert asyncio.run(read_resource(session(api), "mullama://manifest"))[1] == "from: https://***@host/a"


def test_lists_are_cut_to_the_newest(calls: ToolCalls) -> None:
    lines = [{"id": n, "text": "x" * 1000} for n in range(1000)]
    api = TableApi(**{"GET /api/v1/logs?level=info&tail=1000": {"lines": lines}})
    found = called(calls, session(api), "logs", tail=1000)
    assert found["lines"][-1]["id"] == 999
    assert found["left_out"] == 1000 - len(found["lines"]) > 0
    require_bounded(json.dumps(found))
    with pytest.raises(TooLarge):
        require_bounded("x" * (MOST_BYTES + 1))
    with pytest.raises(TooLarge):
        require_bounded("語" * (MOST_BYTES // 3 + 1))
    wide = [{"id": n, "text": "語" * 1000} for n in range(1000)]
    api.answers["GET /api/v1/logs?level=info&tail=1000"] = {"lines": wide}
    require_bounded(json.dumps(called(calls, session(api), "logs", tail=1000), ensure_ascii=False))


def test_events_are_the_last_ones(calls: ToolCalls) -> None:
    api = TableApi(**{"EVENTS /api/v1/events?after=4": [{"id": 5}, {"id": 6}, {"id": 7}]})
    assert called(calls, session(api), "events", after=4, tail=2) == {"events": [{"id": 6}, {"id": 7}], "left_out": 0}


def test_generate_and_bench_ask_the_model(calls: ToolCalls) -> None:
    answer = {
        "model": "m", "message": {"content": "Hi"}, "done_reason": "stop", "prompt_eval_count": 10,
        "prompt_eval_duration": 10**9, "eval_count": 4, "eval_duration": 2 * 10**9, "total_duration": 3 * 10**9,
    }  # fmt: skip
    api = TableApi(**{"POST /api/models/chat": answer})
    found = called(calls, session(api), "generate", prompt="q", model="m", system="s", temperature=0)
    assert (found["answer"], found["tokens"]) == ("Hi", 4)
    body = api.asked[-1][1]
    assert [one["content"] for one in body["messages"]] == ["s", "q"]
    assert (body["options"], body["stream"]) == ({"num_predict": 512, "temperature": 0}, False)
    measured = called(calls, session(api), "bench", model="m", runs=2, tokens=4)
    assert (measured["tokens_per_second"], measured["prompt_tokens_per_second"]) == (2.0, 10.0)
    assert (measured["seconds"], len({str(one) for one in api.asked[-2:]})) == (3.0, 2)


def test_an_error_has_kind_hint_and_mistakes() -> None:
    assert error_tree(Denied("no", hint="a key")) == {"error": {"kind": "denied", "message": "no", "hint": "a key"}}
    assert "pw" not in json.dumps(error_tree(Invalid("https://me:pw@host")))
    mistake = Problem.from_tree({"path": "a", "message": "wrong"})
    assert error_tree(ManifestError((mistake,)))["error"]["problems"][0]["message"] == "wrong"


@pytest.mark.parametrize("uri", ["mullama://docs/manifest", "mullama://schema"])
def test_documents_are_complete(uri: str) -> None:
    resource, text = asyncio.run(read_resource(session(), uri))
    assert "residency" in text
    if resource.media.endswith("json"):
        assert json.loads(text)["type"] == "object"


def test_prompts_take_exactly_their_arguments() -> None:
    for name, prompt in PROMPTS.items():
        text = prompt_text(name, dict.fromkeys(prompt.arguments, "VALUE {model}"))
        assert "VALUE {model}" in text
    for wrong in ({}, {"model": "a", "b": "c"}):
        with pytest.raises(Invalid):
            prompt_text("diagnose", wrong)
    with pytest.raises(NotFound):
        prompt_text("nope", {})
    with pytest.raises(NotFound):
        asyncio.run(read_resource(session(), "file:///etc/passwd"))
