"""The main job: manifest → diff → apply → three clients → live edit → broken edit → down."""

from __future__ import annotations

import hashlib
import socket

import httpx
import pytest

from tests.e2e.stack import TINY, Stack, eventually, replace_file, tiny_variant
from tests.engines.llamacpp import builders
from tests.official_clients import anthropic, ollama, openai

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def ask(url: str, model: str = "demo", **more: object) -> str:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, temperature=0, max_tokens=40, **more  # type: ignore[call-overload]
        )  # fmt: skip
    return str(answer.choices[0].message.content)


def test_a_manifest_becomes_a_server_that_answers_and_goes_away_again(stack: Stack) -> None:
    stack.run("validate", "-f", stack.name)
    stack.run("diff", "-f", stack.name, code=2)

    stack.apply()

    url = stack.url
    assert "Paris" in ask(url)
    stack.run("diff", "-f", stack.name, code=0)
    again = stack.apply()
    assert "nothing" in again.stdout.lower()
    stack.down()
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
    assert stack.processes() == []
    stack.run("diff", "-f", stack.name, code=2)


def test_the_three_official_clients_stream_the_same_answer(stack: Stack) -> None:
    stack.write({"demo": {"from": "builtin:tiny", "parameters": {"temperature": 0}}})
    stack.apply()
    url = stack.url

    whole = ask(url)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        chunks = client.chat.completions.create(
            model="demo", messages=QUESTION, stream=True, max_tokens=40  # type: ignore[arg-type]
        )  # fmt: skip
        by_openai = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    with (
        anthropic.Anthropic(base_url=url, api_key="x") as claude,
        claude.messages.stream(model="demo", max_tokens=40, messages=QUESTION) as stream,  # type: ignore[arg-type]
    ):
        by_anthropic = "".join(stream.text_stream)
    with ollama.Client(host=url) as llama:
        parts = list(llama.chat(model="demo", messages=QUESTION, stream=True))

    assert "Paris" in whole
    assert by_openai == by_anthropic == "".join(p.message.content or "" for p in parts) == whole
    assert parts[-1].done
    assert (parts[-1].eval_count or 0) > 0


def test_a_live_edit_is_seen_by_the_next_request_and_reloads_nothing(stack: Stack) -> None:
    stack.apply()
    before = stack.status()
    pids = before["workers"]

    stack.write({"demo": {"from": "builtin:tiny", "system": "You answer in upper case."}})

    eventually(lambda: stack.status()["generation"] == before["generation"] + 1, stack.log)
    after = stack.status()
    assert after["workers"] == pids
    shown = httpx.post(f"{stack.url}/api/show", json={"model": "demo"}, timeout=60).json()
    assert shown["system"] == "You answer in upper case."


def test_a_context_edit_keeps_the_worker_and_a_weights_edit_replaces_it(stack: Stack) -> None:
    stack.apply()
    (first,) = stack.status()["workers"]

    stack.write({"demo": {"from": "builtin:tiny", "context": {"size": 512}}})
    eventually(lambda: stack.status()["models"][0]["context_size"] == 512, stack.log)
    assert stack.status()["workers"] == [first]

    stack.write({"demo": {"from": "builtin:tiny", "context": {"size": 512}, "memory": {"mmap": False}}})
    eventually(lambda: stack.status()["workers"] not in ([first], []), stack.log)
    eventually(lambda: first not in stack.status()["workers"], stack.log)
    assert "Paris" in ask(stack.url)


def test_a_broken_file_leaves_the_last_good_one_serving_and_status_names_the_line(stack: Stack) -> None:
    stack.apply()

    stack.write_text(stack.manifest.read_text() + "\n  nonsense: [\n")

    def named() -> bool:
        text = stack.run("status", "-f", stack.name, code=None).stdout
        return "mullama.yaml:" in text

    eventually(named, stack.log)
    assert "Paris" in ask(stack.url)
    stack.write()
    eventually(lambda: stack.status()["state"] == "ready", stack.log)


def test_two_models_over_the_same_file_share_one_worker(stack: Stack) -> None:
    stack.write(
        {
            "demo": {"from": "builtin:tiny"},
            "long": {"like": "demo", "context": {"size": 512}},
            "polite": {"like": "demo", "system": "You are polite."},
        }
    )
    stack.apply()

    assert len(stack.status()["workers"]) == 1
    assert "Paris" in ask(stack.url)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {demo: {from: builtin:tiny, systen: x}}", "system"),
        ("models: {demo: {from: builtin:nope}}", "nope"),
        ("models: {demo: {from: ./missing.gguf}}", "missing.gguf"),
        ("models: {demo: {from: '${UNSET_VARIABLE}'}}", "UNSET_VARIABLE"),
        ("models: {demo: builtin:tiny}\nserver: {listen: ['0.0.0.0:0']}", "auth.keys"),
    ],
)
def test_a_bad_manifest_is_refused_and_leaves_nothing_behind(stack: Stack, text: str, message: str) -> None:
    listen = "" if "server:" in text else "\nserver: {listen: ['127.0.0.1:0']}"
    stack.write_text(f"mullama: v1\n{text}{listen}\n")

    done = stack.apply(code=None)

    assert done.returncode in (3, 4)
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert stack.processes() == []


def test_a_port_in_use_is_a_conflict_that_names_the_address(stack: Stack) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        stack.write(server={"listen": [f"127.0.0.1:{port}"]})

        done = stack.apply(code=10)

    assert f"127.0.0.1:{port}" in done.stderr + done.stdout
    assert stack.processes() == []


def test_diff_has_a_json_form_and_annotations(stack: Stack) -> None:
    plan = stack.json("diff", "-f", stack.name, "--format", "json", code=2)
    notes = stack.run("diff", "-f", stack.name, "--format", "github", code=2).stdout
    table = stack.run("diff", "-f", stack.name, "--format", "markdown", code=2).stdout

    assert plan["format"] == "mullama.plan/1"
    assert plan["steps"][0]["action"] == "add"
    assert "file=mullama.yaml" in notes
    assert "demo" in table


def test_the_control_socket_and_unix_listeners_serve(stack: Stack) -> None:
    stack.write(server={"listen": ["127.0.0.1:0", "unix:./api.sock"]})
    stack.apply()

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(stack.home / "api.sock")), timeout=60) as client:
        models = client.get("http://localhost/v1/models").json()

    assert [m["id"] for m in models["data"]] == ["demo"]


def test_too_little_memory_is_refused_with_numbers_and_nothing_is_started(stack: Stack) -> None:
    stack.write(hardware={"budget": {"ram": "8MiB"}})

    done = stack.apply(code=9)

    assert "MiB and may use 8.00 MiB" in done.stderr
    assert "context.size" in done.stderr + done.stdout
    assert stack.processes() == []


@pytest.mark.parametrize("cut", [3, 100, 20_000, 5_000_000])
def test_a_truncated_file_is_refused_before_any_worker_starts(stack: Stack, cut: int) -> None:
    (stack.home / "cut.gguf").write_bytes(TINY.read_bytes()[:cut])
    stack.write({"demo": {"from": "./cut.gguf"}})

    done = stack.apply(code=4)

    assert "cut.gguf" in done.stderr + done.stdout
    assert "worker" not in stack.log()
    assert stack.processes() == []


def test_a_bad_new_file_keeps_the_old_model_serving(stack: Stack) -> None:
    stack.apply()
    (stack.home / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    stack.write({"demo": {"from": "./bad.gguf"}})

    done = stack.apply(code=4)

    assert "bad.gguf" in done.stderr + done.stdout
    assert "Paris" in ask(stack.url)
    assert stack.status()["generation"] == 1


def test_an_adapter_is_looked_into_before_it_is_used_and_its_scale_is_live(stack: Stack) -> None:
    builders.adapter(stack.home / "style.gguf")
    builders.adapter(stack.home / "tone.gguf", seed=4)
    stack.write({"demo": {"from": "builtin:tiny", "adapters": [{"from": str(TINY)}]}})
    assert "is not an adapter: it contains a model" in stack.apply(code=4).stderr

    def model(scale: float) -> dict[str, object]:
        tone = {"from": "./tone.gguf", "name": "tone", "scale": 8.0, "expose": True}
        return {"from": "builtin:tiny", "adapters": [{"from": "./style.gguf", "scale": scale}, tone]}

    stack.write({"demo": model(0.0)})
    stack.apply()
    plain, before = ask(stack.url), stack.status()
    stack.write({"demo": model(8.0)})
    plan = stack.json("diff", "-f", stack.name, "--format", "json", code=None)
    eventually(lambda: stack.status()["generation"] == before["generation"] + 1, stack.log)

    assert "Paris" in plain
    assert [step["cost"] for step in plan["steps"]] in (["live"], [])
    assert ask(stack.url) != plain
    assert "Paris" in ask(stack.url, extra_body={"lora": [{"id": 0, "scale": 0}]})
    assert "Paris" not in ask(stack.url, extra_body={"lora": [{"id": "tone", "scale": 8}]})
    assert "Paris" not in ask(stack.url, "tone")
    with pytest.raises(openai.BadRequestError, match=r"no adapter 5.*0, 1 \(tone\)"):
        ask(stack.url, extra_body={"lora": [{"id": 5, "scale": 1}]})
    assert stack.status()["workers"] == before["workers"]


def test_a_conversation_goes_on_after_the_model_was_unloaded(stack: Stack) -> None:
    stack.write({"demo": {"from": "builtin:tiny", "residency": {"keep": {"conversations": "64MiB"}}}})
    stack.apply()

    def reused() -> int:
        body = {"model": "demo", "prompt": "The sea has many ships. " * 40, "max_tokens": 4}
        usage = httpx.post(f"{stack.url}/v1/completions", json=body, timeout=60).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert reused() < 64
    stack.run("unload", "demo", "--host", stack.url)
    eventually(lambda: not stack.status()["workers"], stack.log)
    assert reused() > 64


def test_another_digest_than_declared_is_refused_with_both(stack: Stack) -> None:
    (stack.home / "a.gguf").write_bytes(TINY.read_bytes())
    actual = hashlib.sha256(TINY.read_bytes()).hexdigest()
    stack.write({"demo": {"from": "./a.gguf", "digest": f"sha256:{'0' * 64}"}})

    done = stack.apply(code=5)

    assert actual in done.stderr + done.stdout
    assert "0" * 64 in done.stderr + done.stdout
    stack.write({"demo": {"from": "./a.gguf", "digest": f"sha256:{actual}"}})
    stack.apply()


def test_weights_that_change_on_disk_are_drift_and_get_a_digest_and_a_prompt_state_of_their_own(stack: Stack) -> None:
    path = stack.home / "a.gguf"
    path.write_bytes(tiny_variant(1))
    system = "You answer. " * 100
    model = {"from": "./a.gguf", "system": system, "limits": {"parallel": 1}}
    stack.write({"demo": model}, sync={"watch": False})
    stack.apply()
    assert "Paris" in ask(stack.url)
    assert stack.json("diff", "-f", stack.name, "--format", "json", code=0)["drift"] == []
    before = stack.status()["models"][0]

    replace_file(path, "not a model")
    assert "a.gguf: the file begins with b'not '" in stack.run("diff", "-f", stack.name, code=2).stdout
    (stack.home / "new").write_bytes(tiny_variant(2))
    (stack.home / "new").rename(path)
    drift = stack.json("diff", "-f", stack.name, "--format", "json", code=2)["drift"]
    assert [(step["model"], step["cause"]) for step in drift] == [("demo", "drift")]
    assert "FilesChanged" in stack.run("status", "-f", stack.name).stdout

    stack.run("unload", "demo", "--host", stack.url)
    assert "Paris" in ask(stack.url)

    after = stack.status()["models"][0]
    assert after["digest"] == f"sha256:{hashlib.sha256(tiny_variant(2)).hexdigest()}" != before["digest"]
    stack.run("diff", "-f", stack.name, code=0)
