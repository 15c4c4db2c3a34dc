"""The imperative commands with one real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.pty_session import pty_session
from tests.e2e.stack import Stack, stack_in

MODELFILE = (
    'FROM demo\nSYSTEM """You say ${X}."""\nPARAMETER temperature 0\nPARAMETER num_ctx 512\nPARAMETER stop END\n'
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server with the built-in model. Each test removes what it adds, so that any of them runs alone."""
    with stack_in(tmp_path_factory.mktemp("commands")) as found:
        found.write({"demo": {"from": "builtin:tiny"}})
        found.run("apply", "--yes")
        yield found


def names(stack: Stack) -> set[str]:
    return {model["name"] for model in stack.json("list", "--json")["models"]}


def test_list_and_show_need_no_server(tmp_path: Path) -> None:
    with stack_in(tmp_path) as stack:
        stack.write({"demo": {"from": "builtin:tiny", "system": "Be brief."}})
        listed = stack.json("list", "--json")
        assert listed["total_count"] == 1
        assert listed["models"][0]["quantization"] == "Q8_0"
        assert stack.json("list", "De", "--json")["total_count"] == 1, "a prefix, as of ollama list"
        assert stack.json("list", "emo", "--json") == {"models": [], "total_count": 0, "total_size_bytes": 0}
        assert listed["models"][0]["size_bytes"] == listed["total_size_bytes"] > 0
        assert stack.run("show", "demo", "--system").stdout == "Be brief.\n"
        assert stack.json("show", "demo", "--json")["family"] == "llama"
        assert stack.run("show", "dem", code=3).stderr.startswith(
            "error: model 'dem' not found\nhint: did you mean demo"
        )
        assert not stack.processes()


def test_pull_starts_a_server_and_adds_a_model(tmp_path: Path) -> None:
    with stack_in(tmp_path) as stack:
        stack.write({"demo": {"from": "builtin:tiny"}})
        done = stack.run("pull", "builtin:tiny", "--name", "pulled")
        assert "server started" in done.stderr
        assert "pulled" in names(stack)
        again = stack.run("pull", "builtin:tiny", "--name", "pulled", "--json").stdout.splitlines()
        assert json.loads(again[-1]) == {"status": "success"}

        assert stack.run("stop").stdout == "the server is stopped\n"
        assert stack.run("stop").stdout.startswith("no server is running")
        assert stack.run("ping", code=11).stderr.startswith("error: no server is running")


def test_a_modelfile_becomes_a_model_and_comes_back_as_it_was(server: Stack) -> None:
    (server.home / "Modelfile").write_text(MODELFILE)
    server.run("create", "mine")
    shown = server.run("show", "mine", "--modelfile").stdout
    assert "SYSTEM You say ${X}." in shown
    assert "PARAMETER num_ctx 512" in shown

    (server.home / "again").write_text(shown)
    server.run("create", "mine2", "-f", "again", "--quiet")

    assert server.run("show", "mine2", "--modelfile").stdout == shown


def test_create_names_the_line_of_a_mistake(server: Stack) -> None:
    (server.home / "bad").write_text("FROM demo\nTEMPERATURE 1\n")
    assert "bad:2" in server.run("create", "x", "-f", "bad", code=4).stderr
    assert "absent" in server.run("create", "x", "-f", "absent", code=3).stderr


def test_copies_are_removed_and_models_of_the_manifest_are_not(server: Stack) -> None:
    server.run("cp", "demo", "twin")
    assert "twin" in names(server)
    assert server.run("rm", "twin", code=9).stderr.startswith("error: rm needs a confirmation")
    server.run("rm", "twin", "--force")
    assert "twin" not in names(server)

    server.run("cp", "demo", "twin")
    refused = server.run("rm", "twin", "demo", code=10)

    assert "demo is declared in" in refused.stderr
    assert "mullama.yaml:" in refused.stderr
    assert "twin" in names(server), "either all are removed or none"
    server.run("rm", "twin", "-f")


def test_models_are_loaded_and_unloaded(server: Stack) -> None:
    server.run("cp", "demo", "other")
    server.run("load", "other")
    assert any(m["name"] == "other" for m in server.json("ps", "--json")["models"])
    server.run("unload", "demo")
    assert "demo is unloaded" in server.run("stop", "demo").stdout
    assert server.run("load", "demo", "-c", "512", code=10).stderr.startswith(
        "error: --context-size: demo is declared in"
    )
    assert "context 256" in server.run("load", "other", "--ctx-size", "256").stdout
    assert "did you mean" in server.run("load", "qwen2.5:7bb", code=3).stderr
    server.run("load", "demo")
    server.run("rm", "other", "-f")


def test_the_default_model_answers_where_none_is_named(server: Stack) -> None:
    assert server.run("default", code=3).stderr.startswith("error: there is no default model")
    server.run("default", "demo")
    assert server.run("default").stdout == "demo\n"
    assert server.run("run", "default", "Hello", "--think=false", "-n", "3").stdout.strip()


def test_run_answers_with_counts_and_as_json(server: Stack) -> None:
    answered = server.run("run", "demo", "Hello", "--think=false", "-n", "4", "-t", "0", "--seed", "1", "--stats")
    assert " tokens in " in answered.stderr
    tree = server.json("run", "demo", "Hello", "--think=false", "-n", "4", "-t", "0", "--seed", "1", "--json")
    assert tree["content"] == answered.stdout.removesuffix("\n")
    assert server.run("run", "demo", "-", input="Say hello", code=0).stdout.strip()
    listed = server.run(
        "run", "demo", "A number", "--format", '{"type": "integer"}', "--think=false", "-n", "8", "-t", "0"
    )
    assert isinstance(json.loads(listed.stdout), int)
    assert "model 'none' not found" in server.run("run", "none", "hi", code=3).stderr


def test_a_conversation_line_by_line(server: Stack) -> None:
    text = 'hello\n"""\none\ntwo"""\n/set parameter num_predict 2\n/set system Be kind.\nagain\n'
    text += "/save kept\n/nope\n/bye\nnever\n"
    done = server.run("chat", "demo", input=text)
    assert "saved as kept" in done.stdout
    assert "unknown command /nope" in done.stderr
    kept = server.run("show", "kept", "--modelfile").stdout
    assert "SYSTEM Be kind." in kept
    assert "MESSAGE user hello" in kept
    assert "never" not in kept


def test_texts_become_tokens_and_embeddings(server: Stack) -> None:
    counted = server.json("tokenize", "hello", "world", "-m", "demo", "--json")
    assert counted["count"] == len(counted["tokens"]) > 0
    one = server.json("embed", "hello", "-m", "demo", "--json")
    assert one["dimension"] == len(one["embedding"])
    assert server.json("embed", "--compare", "a", "a", "-m", "demo", "--json")["similarity"] == pytest.approx(1.0)


def test_ping_daemon_and_logs(server: Stack) -> None:
    assert "answered in" in server.run("ping").stdout
    state = server.json("daemon", "status", "--json")
    assert state["running"] is True
    assert "the server is already running" in server.run("daemon", "start").stdout
    assert "generation" in server.run("daemon", "logs", "-n", "200").stdout


def test_the_management_endpoints_list_the_same_models(server: Stack) -> None:
    url = server.url
    server.run("pull", "builtin:tiny", "--name", "pulled")
    listed = {model["name"]: model for model in httpx.get(f"{url}/api/models", timeout=60).json()["models"]}
    assert {"demo", "pulled"} <= set(listed)
    assert httpx.get(f"{url}/api/models/demo", timeout=60).json()["train_context"] > 0
    assert httpx.get(f"{url}/api/models/none", timeout=60).status_code == 404
    refused = httpx.delete(f"{url}/api/models/demo", timeout=60)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (409, "conflict")
    made = httpx.put(f"{url}/api/models/a/b", json={"from": "demo", "model": {"system": "Hi."}}, timeout=60)
    assert made.json() == {"status": "success"}
    assert httpx.get(f"{url}/api/models/a/b", timeout=60).json()["system"] == "Hi."
    assert httpx.post(f"{url}/api/models/load", json={"name": "a/b"}, timeout=60).json()["status"] == "loaded"
    assert httpx.post(f"{url}/api/models/load", json={"name": "a/b", "gpu_layers": 3}, timeout=60).status_code == 400
    assert httpx.post(f"{url}/api/models/a/b/unload", timeout=60).json()["status"] == "unloading"
    assert httpx.delete(f"{url}/api/models/a/b", timeout=60).json() == {"status": "deleted", "name": "a/b"}
    assert httpx.get(f"{url}/api/defaults", timeout=60).json()["models"]
    assert httpx.post(f"{url}/api/defaults/none/use", json={}, timeout=60).status_code == 404
    for path in ("/status", "/api/system/status"):
        assert httpx.get(f"{url}{path}", timeout=60).json()["models_loaded"] >= 0


def test_the_default_is_removed_with_its_model(server: Stack) -> None:
    server.run("cp", "demo", "passing")
    server.run("default", "passing")
    server.run("rm", "passing", "-f")
    assert server.run("default", code=3).stderr.startswith("error: there is no default model")


def test_quantised_weights_can_be_loaded(server: Stack) -> None:
    assert "is already quantized" in server.run("quantize", "builtin:tiny", "Q4_0", code=9).stderr
    server.run("quantize", "builtin:tiny", "Q4_0", "--requantize", "-o", "small.gguf")
    assert server.run("quantize", "builtin:tiny", "Q9_9", "--requantize", "-o", "n.gguf", code=4).stderr
    assert not (server.home / "n.gguf").exists()
    server.run("pull", "./small.gguf", "--name", "small")
    assert server.json("show", "small", "--json")["quantization"] == "Q4_0"


def test_doctor_finds_a_healthy_engine(server: Stack) -> None:
    report = server.json("doctor", "--offline", "--json")
    assert report["healthy"] is True
    states = {item["name"]: item["state"] for item in report["findings"]}
    assert states["engine"] in ("ok", "warning")
    assert states["server"] == "ok"


def test_a_person_uses_the_terminal(server: Stack) -> None:
    with pty_session(["run", "demo", "--think=false", "-n", "3", "-t", "0"], server.home, **server.env) as session:
        session.read_until(">>> ")
        session.type("hello\n")
        session.read_until(">>> ")
        session.type("/set verbose\n")
        session.read_until("\nset verbose")
        session.read_until(">>> ")
        session.type("\x04")
        assert session.finish() == 0


def test_without_a_manifest_the_options_declare_the_models(tmp_path: Path) -> None:
    with stack_in(tmp_path) as stack:
        stack.run("daemon", "start", "-p", "0", "-m", "first=builtin:tiny")
        stack.run("cp", "first", "second")
        stack.run("daemon", "restart")
        assert names(stack) == {"first", "second"}
        stack.run("daemon", "stop")
        stack.write({"demo": {"from": "builtin:tiny"}})
        refused = stack.run("serve", "-m", "builtin:tiny", code=4)
        assert refused.stderr.startswith("error: --model cannot be used with a manifest")
