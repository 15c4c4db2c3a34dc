"""Operating a running server: history, status, events, keys, listeners, signals and crashes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from mullama.server.operator_api.schema import SCHEMAS
from tests.e2e.stack import Stack, eventually
from tests.hook_receiver import receiver_on_loopback

SCRIPT = {"name": "demo", "faults": True}


@pytest.fixture
def scripted(stack: Stack) -> Stack:
    """The stack with a scripted model, which loads at once."""
    (stack.home / "demo.script.json").write_text(json.dumps(SCRIPT))
    stack.write({"demo": "./demo.script.json"})
    return stack


def ask(url: str, text: str = "say yes", key: str | None = None, **more: Any) -> httpx.Response:
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], **more}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)


def test_history_lists_what_was_applied_and_undo_goes_back(scripted: Stack) -> None:
    scripted.apply()
    scripted.write({"demo": {"from": "./demo.script.json", "system": "Two."}})
    scripted.apply()

    scripted.run("undo", "-f", scripted.name, "--yes")

    kept = scripted.json("history", "-f", scripted.name, "--json")["generations"]
    assert [g["trigger"] for g in kept] in (["undo", "apply", "apply"], ["undo", "watch", "apply"])
    assert (
        httpx.get(f"{scripted.url}/api/v1/stack", timeout=60).json()["manifest"]["models"]["demo"].get("system") is None
    )
    scripted.run("diff", "-f", scripted.name, code=2)


def test_the_responses_of_the_operator_api_match_their_schemas(scripted: Stack) -> None:
    observability = {"captures": {"size": "1MiB"}}
    scripted.write({"demo": "./demo.script.json"}, observability=observability)
    scripted.apply()
    ask(scripted.url)
    for path in (
        "status",
        "stack",
        "history",
        "requests",
        "requests/{id}",
        "drift",
        "usage",
        "metrics/history",
        "keys",
    ):
        found = httpx.get(f"{scripted.url}/api/v1/{path.format(id=1)}", timeout=60).json()
        schema: Any = SCHEMAS["GET", f"/api/v1/{path}"].response
        assert [f"{path}: {wrong.message}" for wrong in Draft202012Validator(schema).iter_errors(found)] == []
    manifest = httpx.get(f"{scripted.url}/api/v1/stack", timeout=60).json()["manifest"]
    manifest["models"]["demo"]["system"] = "Two."
    plan = httpx.post(f"{scripted.url}/api/v1/plan", json={"manifest": manifest}, timeout=60).json()
    assert [step["subject"] for step in plan["steps"]] == ["demo"]
    Draft202012Validator(SCHEMAS["POST", "/api/v1/plan"].response).validate(plan)


def test_a_collector_gets_the_trace_of_a_request_and_the_metrics(scripted: Stack) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.common", reason="the extra otlp is not installed")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    def of(path: str) -> list[bytes]:
        return [body for headers, body in got if headers[":path"] == path]

    with receiver_on_loopback() as (url, got):
        scripted.write({"demo": "./demo.script.json"}, observability={"otlp": {"endpoint": url.removesuffix("/hook")}})
        scripted.apply()
        assert ask(scripted.url, "say secret").status_code == 200
        eventually(lambda: of("/v1/metrics"))
        eventually(lambda: any(b"chat demo" in body for body in of("/v1/traces")))

    traces = [ExportTraceServiceRequest.FromString(body) for body in of("/v1/traces")]
    spans = [span for trace in traces for found in trace.resource_spans[0].scope_spans for span in found.spans]
    by_name = {span.name: span for span in spans}
    server, model = by_name["POST /v1/chat/completions"], by_name["chat demo"]
    assert (model.trace_id, model.parent_span_id) == (server.trace_id, server.span_id)
    assert {by_name[name].parent_span_id for name in ("queue", "prefill", "decode")} == {model.span_id}
    assert not [body for body in of("/v1/traces") if b"secret" in body]


def test_an_apply_starts_a_server_with_levels_of_its_log(stack: Stack) -> None:
    stack.apply("--log-level", "workers=debug", "--log-level", "error")
    log = "".join(path.read_text() for path in stack.home.glob("state/mullama/*/server.log"))
    assert "llama_model_loader: loaded meta data" in log
    assert "listening on" not in log


def test_captured_requests_are_listed_and_one_is_shown(scripted: Stack) -> None:
    scripted.write({"demo": "./demo.script.json"}, observability={"captures": {"bodies": "all"}})
    scripted.apply()
    answer = ask(scripted.url).json()["choices"][0]["message"]["content"]

    (row,) = scripted.json("requests", "-f", scripted.name, "--json")["requests"]
    shown = scripted.run("requests", str(row["id"]), "-f", scripted.name).stdout

    assert (row["model"], row["result"]) == ("demo", "ok")
    assert "--- prompt" in shown
    assert "say yes" in shown
    assert shown.endswith(f"--- answer\n{answer}\n")
    assert scripted.run("requests", "-f", scripted.name, "--result", "error").stdout == "no captured requests\n"
    assert "there is no capture 99" in scripted.run("requests", "99", "-f", scripted.name, code=3).stderr


def test_status_wait_events_and_metrics_agree(scripted: Stack) -> None:
    scripted.apply()

    scripted.run("wait", "-f", scripted.name, "--for", "model/demo=ready", "--timeout", "20s")
    status = scripted.status()
    events = [json.loads(line) for line in scripted.run("events", "-f", scripted.name, "--json").stdout.splitlines()]
    metrics = httpx.get(f"{scripted.url}/metrics", timeout=60).text

    assert status["format"] == "mullama.status/1"
    assert {c["type"] for c in status["conditions"]} >= {"Reconciling", "ConfigValid", "Synced"}
    (model,) = status["models"]
    assert model.keys() >= {"name", "state", "revision", "generation", "source", "memory", "worker", "conditions"}
    assert model["worker"] in status["workers"]
    assert [e["id"] for e in events] == sorted(e["id"] for e in events)
    assert any(e["kind"] == "applied" for e in events)
    assert 'mullama_model_ready{model="demo"} 1' in metrics
    assert "mullama_generation 1" in metrics


def test_each_role_may_do_what_it_is_for(scripted: Stack) -> None:
    names = ("admin", "infer", "read")
    keys = {n: {"secret": {"from_file": f"./{n}.key"}, "roles": [n]} for n in names}
    for name in names:
        path = scripted.home / f"{name}.key"
        path.write_text(f"secret-{name}\n")
        path.chmod(0o600)
    scripted.write({"demo": "./demo.script.json"}, auth={"keys": keys})
    scripted.apply()
    url = scripted.url

    def code(name: str | None, method: str, path: str) -> int:
        headers = {"x-api-key": f"secret-{name}"} if name else {}
        return httpx.request(
            method, f"{url}{path}", headers=headers, json={} if method == "POST" else None, timeout=60
        ).status_code

    assert [ask(url, key=k).status_code for k in (None, "secret-read", "secret-infer", "secret-admin")] == [
        401, 403, 200, 200,
    ]  # fmt: skip
    assert [code(n, "GET", "/api/v1/status") for n in (None, "infer", "read", "admin")] == [401, 403, 200, 200]
    assert [code(n, "POST", "/api/v1/reload") for n in (None, "infer", "read", "admin")] == [401, 403, 403, 200]
    assert code(None, "GET", "/livez") == 200
    assert "secret-" not in json.dumps(scripted.status()) + scripted.log()


def test_listeners_come_and_go_without_dropping_a_stream(scripted: Stack) -> None:
    """The watched file adds a socket and removes it again while an answer streams over the first address."""
    scripted.apply()
    url = scripted.url
    words: list[str] = []

    def stream() -> None:
        body = {"model": "demo", "messages": [{"role": "user", "content": "slow 20ms count to 100"}], "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
            words.extend(answer.iter_lines())

    reader = threading.Thread(target=stream)
    reader.start()
    sock = scripted.home / "more.sock"
    scripted.write({"demo": "./demo.script.json"}, server={"listen": ["127.0.0.1:0", "unix:./more.sock"]})
    eventually(lambda: _listens(sock), scripted.log)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(sock)), timeout=60) as client:
        assert client.get("http://localhost/livez").status_code == 200
    scripted.write({"demo": "./demo.script.json"})
    eventually(lambda: not sock.exists(), scripted.log)
    reader.join(60)

    assert scripted.url == url
    assert words[-2:-1] == ["data: [DONE]"] or words[-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mullama: v1\nmodels: {demo: {from: builtin:tiny, contxt: {}}}", "did you mean"),
        ("mullama: v1\nserver: {listen: ['0.0.0.0:0']}\nmodels: {demo: builtin:tiny}", "auth.keys"),
    ],
)
def test_serve_exits_with_4_for_an_invalid_manifest(stack: Stack, text: str, message: str) -> None:
    stack.write_text(text)

    done = stack.run("serve", "-f", stack.name, code=4)

    assert message in done.stderr
    assert "mullama.yaml:" in done.stderr


def test_serve_without_its_secret_opens_no_address(scripted: Stack) -> None:
    scripted.write({"demo": "./demo.script.json"}, auth={"keys": {"k": {"secret": {"from_env": "NOT_SET_HERE"}}}})

    done = scripted.run("serve", "-f", scripted.name, code=3)

    assert "NOT_SET_HERE" in done.stderr
    assert scripted.processes() == []


def test_profiles_and_includes_are_followed(scripted: Stack) -> None:
    folder = scripted.home / "models"
    folder.mkdir()
    (folder / "more.yaml").write_text("models: {more: {like: demo}}\n")
    laptop = {"laptop": {"models": {"more": {"system": "Small."}}}}
    scripted.write({"demo": "./demo.script.json"}, include=["models/*.yaml"], profiles=laptop)
    scripted.apply("--profile", "laptop")

    (folder / "third.yaml").write_text("models: {third: {like: demo}}\n")

    eventually(lambda: len(scripted.status()["models"]) == 3, scripted.log)
    stack = httpx.get(f"{scripted.url}/api/v1/stack", timeout=60).json()
    assert stack["origin"]["profiles"] == ["laptop"]
    assert stack["manifest"]["models"]["more"]["system"] == "Small."


def test_targets_of_an_edited_file_are_applied_and_the_next_diff_has_the_rest(scripted: Stack) -> None:
    def write(system: str, **blocks: Any) -> None:
        models = {name: {"from": "./demo.script.json", "system": system} for name in ("demo", "two")}
        scripted.write(models, sync={"watch": False}, **blocks)

    def diff(*arguments: str) -> list[str]:
        plan = scripted.json("diff", "-f", scripted.name, "--format", "json", *arguments, code=2)
        return [step["subject"] for step in plan["steps"]]

    write("One.")
    scripted.apply("--target", "demo")
    assert [model["name"] for model in scripted.status()["models"]] == ["demo"]
    scripted.apply()
    write("Two.", routes={"fast": "two"})
    assert diff() == ["demo", "two", "routes"]
    assert diff("--target", "fast") == ["two", "routes"]

    shown = scripted.apply("--target", "fast").stdout

    assert "warning: only fast and what they need are planned" in shown
    assert "revision 3 is applied (only fast)" in shown
    assert diff() == ["demo"]
    assert "(only fast applied of it)" in scripted.run("status", "-f", scripted.name).stdout
    assert "applied (only fast)" in scripted.run("history", "-f", scripted.name).stdout
    assert "did you mean fast?" in scripted.apply("--target", "fasd", code=3).stderr


def test_a_killed_server_is_drift_and_apply_brings_it_back(scripted: Stack) -> None:
    scripted.apply()
    os.kill(scripted.record["pid"], signal.SIGKILL)
    eventually(lambda: scripted.processes() == [], scripted.log)

    plan = scripted.json("diff", "-f", scripted.name, "--format", "json", code=2)
    assert plan["steps"] == []
    assert [step["subject"] for step in plan["drift"]] == ["server"]
    scripted.apply()

    assert ask(scripted.url).status_code == 200
    scripted.run("diff", "-f", scripted.name, code=0)


def test_a_record_with_a_reused_pid_is_not_a_server(scripted: Stack) -> None:
    """In a container the first process has the same pid every time."""
    scripted.apply()
    record = scripted.record
    (path,) = scripted.home.glob("state/mullama/*/server.json")
    scripted.down()
    path.write_text(json.dumps({**record, "pid": os.getpid()}))

    scripted.apply()

    assert ask(scripted.url).status_code == 200


def test_what_a_client_unloads_is_drift_that_apply_repairs(scripted: Stack) -> None:
    scripted.apply()
    url = scripted.url
    httpx.post(f"{url}/api/generate", json={"model": "demo", "keep_alive": 0}, timeout=60)
    eventually(lambda: scripted.status()["workers"] == [], scripted.log)

    assert "unloaded since the apply" in scripted.run("diff", "-f", scripted.name, code=2).stdout
    assert "Drifted=True UnloadedByClient" in scripted.run("status", "-f", scripted.name).stdout
    scripted.apply()

    assert len(scripted.status()["workers"]) == 1
    scripted.run("diff", "-f", scripted.name, code=0)


def test_a_storm_of_hups_ends_in_the_last_manifest(scripted: Stack) -> None:
    scripted.apply()
    pid = scripted.record["pid"]
    for number in range(30):
        scripted.write({"demo": {"from": "./demo.script.json", "system": f"Number {number}."}})
        os.kill(pid, signal.SIGHUP)

    def last() -> bool:
        models = httpx.get(f"{scripted.url}/api/v1/stack", timeout=60).json()["manifest"]["models"]
        return bool(models["demo"].get("system") == "Number 29.")

    eventually(last, scripted.log)


def test_an_edit_during_a_slow_load_is_seen_when_the_load_is_over(scripted: Stack) -> None:
    """A file saved during an apply differs from the applied one and must be applied too."""
    scripted.apply()
    url = scripted.url
    slow = {"prompt": "slow 200ms count to 30", "expect": "30"}  # long enough for a slow test to see it
    (scripted.home / "b.script.json").write_text(json.dumps({**SCRIPT, "name": "b"}))
    scripted.write({"demo": {"from": "./b.script.json", "probe": slow}})

    def reconciles() -> bool:
        status = httpx.get(f"{url}/api/v1/status", timeout=60).json()
        return any(c["type"] == "Reconciling" and c["status"] for c in status["conditions"])

    eventually(reconciles, scripted.log)
    scripted.write({"demo": {"from": "./b.script.json", "probe": slow, "system": "Later."}})

    def seen() -> bool:
        models = httpx.get(f"{url}/api/v1/stack", timeout=60).json()["manifest"]["models"]
        return bool(models["demo"].get("system") == "Later.")

    eventually(seen, scripted.log)


def test_a_put_of_an_invalid_manifest_lists_every_mistake(scripted: Stack) -> None:
    scripted.apply()
    tree = {"mullama": "v1", "models": {"demo": {"from": "x", "nonsense": 1, "context": {"size": "many"}}}}

    answer = httpx.put(f"{scripted.url}/api/v1/stack", json={"manifest": tree}, timeout=60)

    assert answer.status_code in (400, 422)
    assert "nonsense" in answer.text
    assert "size" in answer.text
    assert scripted.status()["generation"] == 1


def test_a_second_signal_ends_a_server_that_drains(scripted: Stack) -> None:
    process = scripted.serve()
    url = scripted.ready()
    body = {"model": "demo", "messages": [{"role": "user", "content": "slow 1000ms count to 90"}], "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # kept open: the drain would end when the client disconnects
        next(lines)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: "gone" in _livez(url), scripted.log)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert scripted.processes() == []


def test_a_storm_of_signals_is_an_orderly_end(scripted: Stack) -> None:
    process = scripted.serve()
    scripted.ready()
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.002)  # as fast as a script can

    assert process.returncode == 0
    assert scripted.processes() == []


def test_a_signal_ends_a_server_whose_first_model_is_downloaded(empty_stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # a hub that takes connections and answers nothing
        empty_stack.variables = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        empty_stack.write({"demo": "hf:org/repo"})
        process = empty_stack.serve()
        with silent.accept()[0]:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def _livez(url: str) -> str:
    try:
        return httpx.get(f"{url}/livez", timeout=60).text
    except httpx.TimeoutException:
        return "late"
    except httpx.HTTPError:
        return "gone"


def _listens(path: Path) -> bool:
    """True when the socket accepts connections; its file exists a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_a_worker_that_crashes_five_times_is_not_restarted_until_apply(scripted: Stack) -> None:
    scripted.write({"demo": {"from": "./demo.script.json", "residency": {"load": "on_demand"}}})
    scripted.apply()
    url = scripted.url
    for _ in range(5):  # no request is at fault
        assert ask(url).status_code == 200
        (worker,) = scripted.status()["workers"]
        os.kill(worker, signal.SIGSEGV)
        eventually(lambda gone=worker: gone not in scripted.status()["workers"], scripted.log)

    eventually(lambda: scripted.status()["models"][0]["state"] == "failed", scripted.log)
    assert ask(url).status_code == 503
    scripted.apply()

    assert ask(url).status_code == 200


def test_commands_of_the_documents_exist(stack: Stack) -> None:
    """Every `mullama COMMAND` of the operations page and the how-tos exists."""
    listed = stack.run("--help").stdout
    commands = {line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line.split()}
    docs = Path(__file__).parents[2] / "docs"
    named: set[str] = set()
    for page in (docs / "operations.md", *sorted((docs / "how-to").glob("*.md"))):
        # Commands are in indented code blocks, or behind a prompt.
        named |= set(re.findall(r"^(?:    |\$ )mullama ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named
    assert named <= commands
