"""`mullama status` and `ps` with a server that answers from a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]

STATUS: dict[str, Any] = {
    "format": "mullama.status/1",
    "version": "0.1.0",
    "pid": 7,
    "uptime": 125.0,
    "generation": 12,
    "revision": "abc",
    "state": "ready",
    "origin": {"path": "/srv/mullama.yaml", "profiles": ["cpu"], "digest": "d"},
    "listen": ["127.0.0.1:11434"],
    "conditions": [
        {"type": "ConfigValid", "status": True, "reason": "Valid", "message": "", "since": 0},
        {"type": "Reconciling", "status": False, "reason": "Idle", "message": "", "since": 0},
    ],
    "models": [
        {
            "name": "chat",
            "state": "ready",
            "memory": 2 * 2**30,
            "context_size": 8192,
            "active": 1,
            "waiting": 0,
            "source": "hf:a/b:Q8_0",
            "expires": None,
            "conditions": [{"type": "Loaded", "status": True, "reason": "", "message": ""}],
        },
        {"name": "big", "state": "idle", "memory": 0, "source": "./b.gguf", "conditions": []},
    ],
    "routes": {"default": "chat", "mixed": "chat", "safe": "chat"},
    "shares": {
        "mixed": {"to": [{"model": "chat", "weight": 90}, {"model": "big", "weight": 10}], "fallback": ["big"]},
        "safe": {"to": [{"model": "chat", "weight": 1}], "fallback": ["mixed", "big"]},
    },
}

BROKEN = STATUS | {
    "state": "degraded",
    "conditions": [
        {
            "type": "ConfigValid",
            "status": False,
            "reason": "ParseError",
            "message": "/srv/mullama.yaml:7:3: a list is not closed",
            "since": 0,
        }
    ],
}


def test_status_shows_server_manifest_models_and_routes(run: Run, tiny: TinyServer) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    ran = run("status", "--host", tiny.url)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "mullama 0.1.0, pid 7, up 2 min, revision 12: ready",
        "manifest  /srv/mullama.yaml --profile cpu",
        "listens   127.0.0.1:11434",
        "",
        "MODEL  STATE  MEMORY  CONTEXT  ACTIVE  WAITING  FROM",
        "chat   ready  2 GiB   8192     1       0        hf:a/b:Q8_0",
        "big    idle   -       -        0       0        ./b.gguf",
        "",
        "routes    default -> chat",
        "route mixed -> chat 90, big 10, else big",
        "route safe -> chat, else mixed, else big",
    ]


def test_status_names_the_line_of_a_broken_edit_and_exits_with_8(run: Run, tiny: TinyServer) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(BROKEN)
    ran = run("status", "--host", tiny.url)
    assert ran.code == 8
    assert "! ConfigValid=False ParseError: /srv/mullama.yaml:7:3: a list is not closed" in ran.out


def test_status_in_json_is_the_answer_of_the_server(run: Run, tiny: TinyServer) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    assert json.loads(run("--host", tiny.url, "status", "--json").out) == STATUS


def test_ps_lists_models_in_memory(run: Run, tiny: TinyServer) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    head, chat, foot = run("ps", "--host", tiny.url).out.splitlines()
    assert (head.split()[0], chat.split()[0]) == ("NAME", "chat")
    assert foot.startswith("1 model, ")
    assert "big" in run("ps", "--all", "--host", tiny.url).out
    assert [m["name"] for m in json.loads(run("ps", "BI", "--all", "--json", "--host", tiny.url).out)["models"]] == [
        "big"
    ]


def test_a_model_that_failed_shows_no_context(run: Run, tiny: TinyServer) -> None:
    failed = {"name": "bad", "state": "failed", "memory": 0, "context_size": 8192, "source": "./b", "conditions": []}
    tiny.answers["GET /api/v1/status"] = Answer({**STATUS, "models": [failed]})
    for command in ("status", ("ps", "--all")):
        words = (command,) if isinstance(command, str) else command
        assert "8192" not in run(*words, "--host", tiny.url).out


def test_the_share_of_accepted_guesses_is_shown(run: Run, tiny: TinyServer) -> None:
    loaded = {"state": "ready", "memory": 2**30, "context_size": 512, "source": "./a.gguf", "conditions": []}
    guessed = {"kind": "ngram", "guessed": 1200, "accepted": 960, "accepted_at": [500, 460]}
    models = [
        {**loaded, "name": "chat", "draft": guessed},
        {**loaded, "name": "new", "draft": {**guessed, "kind": "mtp", "guessed": 0, "accepted": 0}},
        {**loaded, "name": "plain", "draft": None},
        {**loaded, "name": "old"},
    ]
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models})
    for command in ("ps", "status"):
        out = run(command, "--host", tiny.url).out.splitlines()
        assert "chat: ngram, 80% of 1,200 guesses accepted" in out
        assert "new: mtp, no guesses yet" in out
        assert not [line for line in out if line.startswith(("plain:", "old:"))]


def test_the_pool_is_shown(run: Run, tiny: TinyServer) -> None:
    loaded = {"state": "ready", "memory": 2**30, "context_size": 8192, "source": "./a.gguf", "conditions": []}
    pool = {"size": 8192, "worst_case": 32768, "used": 7000, "set_aside": 2, "set_asides": 9, "resumes": 7}
    models = [
        {**loaded, "name": "chat", "pool": pool},
        {**loaded, "name": "calm", "pool": {**pool, "used": 0, "set_aside": 0}},
        {**loaded, "name": "plain", "pool": None},
        {**loaded, "name": "old"},
    ]
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models})
    out = run("status", "--host", tiny.url).out.splitlines()
    assert "chat: 7,000 of 8,192 tokens used (worst case 32,768), 2 requests set aside" in out
    assert "calm: 0 of 8,192 tokens used (worst case 32,768)" in out
    assert not [line for line in out if line.startswith(("plain:", "old:"))]


def test_the_checkpoints_are_shown(run: Run, tiny: TinyServer) -> None:
    loaded = {"state": "ready", "memory": 2**30, "context_size": 512, "source": "./a.gguf", "conditions": []}
    kept = {"count": 5, "bytes": 12 * 2**20, "most_bytes": 2**28, "restored": 4}
    models = [
        {**loaded, "name": "chat", "checkpoints": kept},
        {**loaded, "name": "new", "checkpoints": {**kept, "count": 0}},
        {**loaded, "name": "plain", "checkpoints": None},
    ]
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models})
    out = run("status", "--host", tiny.url).out.splitlines()
    assert "chat: 5 checkpoints (12 MiB of 256 MiB), 4 prompts continued from one" in out
    assert not [line for line in out if line.startswith(("new:", "plain:"))]


def test_the_groups_are_shown(run: Run, tiny: TinyServer) -> None:
    groups = [
        {"name": "heavy", "max": 2, "loaded": ["chat", "big"], "waiting": {"coder": 3, "writer": 1}},
        {"name": "light", "max": 1, "loaded": [], "waiting": {}},
    ]
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"groups": groups})
    out = run("status", "--host", tiny.url).out.splitlines()
    assert "group heavy: 2 of 2 loaded: chat, big; 3 requests wait for coder; 1 request waits for writer" in out
    assert "group light: 0 of 1 loaded" in out


def test_shared_memory_counts_once(run: Run, tiny: TinyServer) -> None:
    gib = 2**30
    loaded = {"state": "ready", "context_size": 512, "source": "./a.gguf", "conditions": []}
    models = [
        {**loaded, "name": "chat", "memory": 3 * gib, "memory_own": 3 * gib, "shared_with": None},
        {**loaded, "name": "brief", "memory": 3 * gib, "memory_own": 0, "shared_with": "chat"},
        {**loaded, "name": "long", "memory": 4 * gib, "memory_own": 2 * gib, "shared_with": "chat"},
    ]
    memory = {"used": 5 * gib, "names": 3, "models": 2}
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models, "memory": memory})
    total = "3 names, 2 models in memory, 5 GiB"
    for command in ("ps", "status"):
        out = run(command, "--host", tiny.url).out.splitlines()
        assert total in out
        cells = {line.split()[0]: line for line in out if line}
        assert " 3 GiB " in cells["chat"]
        assert " shared with chat " in cells["brief"]
        assert " 2 GiB + weights of chat " in cells["long"]
    assert json.loads(run("ps", "--host", tiny.url, "--json").out)["memory"] == memory
    alone = {"used": 3 * gib, "names": 1, "models": 1}
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models[:1], "memory": alone})
    assert run("ps", "--host", tiny.url).out.splitlines()[-1] == "1 model in memory, 3 GiB"


def test_the_key_comes_from_a_file_or_the_environment(
    run: Run, tiny: TinyServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("MULLAMA_API_KEY", "from-env")
    run("status", "--host", tiny.url, "--key-file", "key")
    run("status", "--host", tiny.url)
    assert [a.headers["Authorization"] for a in tiny.asked] == ["Bearer from-file", "Bearer from-env"]
    (tmp_path / "key").write_text("two words\n")
    assert run("status", "--host", tiny.url, "--key-file", "key").code == 4


def test_mullama_host_names_the_server(run: Run, tiny: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    monkeypatch.setenv("MULLAMA_HOST", tiny.url)
    assert run("status").code == 0


@pytest.mark.parametrize(
    ("layers", "devices", "processor"),
    [
        (0, [], "CPU"),
        (3, [("CUDA0", None, 3)], "CUDA0 3 layers"),
        (1, [("CUDA0", None, 1)], "CUDA0 1 layer"),
        (33, [("RPC0", "10.0.0.2:50052", 8), ("CUDA0", None, 25)], "RPC0 8, CUDA0 25 layers"),
        (33, [("CUDA0", None, 0), ("CUDA1", None, 0)], "CUDA0, CUDA1"),  # each tensor is split
        (33, [], "GPU, 33 layers"),  # a server of an earlier version
    ],
)
def test_ps_names_the_devices_of_a_model(
    run: Run, tiny: TinyServer, layers: int, devices: list[tuple[str, Any, int]], processor: str
) -> None:
    rows = [{"name": name, "host": host, "layers": count, "bytes": 2**30} for name, host, count in devices]
    models = [{**STATUS["models"][0], "gpu_layers": layers, "devices": rows}]
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models})

    assert f"  {processor}  " in run("ps", "--host", tiny.url).out


def test_status_names_devices_with_their_host(run: Run, tiny: TinyServer) -> None:
    device = {"name": "RPC0", "host": "10.0.0.2:50052", "layers": 8, "bytes": 2**30}
    models = [{**STATUS["models"][0], "gpu_layers": 8, "devices": [device]}]
    tiny.answers["GET /api/v1/status"] = Answer(STATUS | {"models": models})

    ran = run("status", "--host", tiny.url)

    assert "  chat is on RPC0 (10.0.0.2:50052): 8 layers, 1 GiB" in ran.out
