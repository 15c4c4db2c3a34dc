"""`--on ray` against a dashboard of values: the flow of a stack, its exit codes, and the mistakes of a command line."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mullama.store import lockfile
from mullama.targets.ray import apply as steps
from mullama.weights.stored import LockEntry, PinnedFile
from tests.cli.conftest import Ran

Run = Callable[..., Ran]
MANIFEST = """mullama: v1
metadata: {name: demo}
auth: {keys: {team: {secret: {from_env: TEAM_KEY}}}}
models: {tiny: {from: 'builtin:tiny', context: {threads: 1}}}
"""
OTHER = {"name": "other", "import_path": "shop:app", "route_prefix": "/shop"}


class FakeServe:
    """Serve whose applications run at once. broken: the beginning of names that fail."""

    def __init__(self) -> None:
        self.configs: dict[str, Any] = {"other": OTHER}
        self.broken = "-"
        self.status = 200

    def details(self) -> dict[str, Any]:
        states = {name: "DEPLOY_FAILED" if name.startswith(self.broken) else "RUNNING" for name in self.configs}
        replica = {"state": "RUNNING", "node_id": "n1", "log_file_path": "/serve/replica_x.log", "pid": 1}
        return {
            "controller_info": {"node_id": "n1"},
            "proxy_location": "EveryNode",
            "applications": {
                name: {
                    "status": states[name], "message": "", "route_prefix": config.get("route_prefix"),
                    "deployed_app_config": config,
                    "deployments": {"d": {"message": "mullama.errors.EngineFailed: no memory"
                                          if states[name] != "RUNNING" else "", "replicas": [replica]}},
                }
                for name, config in self.configs.items()
            },
        }  # fmt: skip


@pytest.fixture
def serve(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServe]:
    made = FakeServe()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_log = self.path.startswith("/api/v0/logs/file")
            self._answer(b"1a line" if is_log else json.dumps(made.details()).encode(), failing=(403,))

        def do_PUT(self) -> None:
            config = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if made.status == 200:
                made.configs = {entry["name"]: entry for entry in config["applications"]}
            self._answer(b"1 validation error\n  the field is wrong" if made.status != 200 else b"", failing=(400, 403))

        def _answer(self, body: bytes, failing: tuple[int, ...]) -> None:
            self.send_response(made.status if made.status in failing else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("TEAM_KEY", "the-secret")
        monkeypatch.setenv("MULLAMA_CACHE_DIR", str(tmp_path / "data"))
        monkeypatch.setattr(steps, "SETTLE_SECONDS", 0.0)
        monkeypatch.setattr(steps, "LOOK_SECONDS", 0.0)
        (tmp_path / "mullama.yaml").write_text(MANIFEST)
        yield made
        server.shutdown()
        thread.join()


def test_a_stack_is_planned_applied_shown_undone_and_removed(run: Run, serve: FakeServe, tmp_path: Path) -> None:
    shown = run("diff", "--on", "ray")
    assert (shown.code, "+ gateway  new" in shown.out) == (2, True)
    done = run("apply", "--on", "ray", "--yes")
    assert (done.code, "revision 1 serves on http://127.0.0.1" in done.out) == (0, True), done.err
    assert serve.configs["other"] == OTHER
    assert "the-secret" not in json.dumps(serve.configs)
    assert run("diff", "--on", "ray").code == 0
    (tmp_path / "mullama.yaml").write_text(MANIFEST.replace("threads: 1", "threads: 1, size: 256"))
    tree = json.loads(run("diff", "--on", "ray", "--format", "json").out)
    assert [len(tree["ray"][part]) for part in ("added", "changed", "removed")] == [1, 0, 1]
    assert run("apply", "--on", "ray").code == 0
    status = json.loads(run("status", "--on", "ray", "--json").out)
    assert (status["generation"], status["state"], status["others"]) == (2, "ready", ["other"])
    assert "gateway-demo" in run("status", "--on", "ray").out
    assert run("logs", "--on", "ray", "--model", "tiny").out.splitlines()[1] == "a line"
    undone = run("undo", "--on", "ray", "--yes")
    assert (undone.code, "revision 3 serves" in undone.out) == (0, True)
    missing = run("undo", "--on", "ray", "--yes", "--to", "9")
    assert (missing.code, "kept: 2, 1" in missing.err) == (3, True)
    refused = run("down", "--on", "ray")
    assert (refused.code, "no terminal to confirm it" in refused.err, len(serve.configs) > 1) == (9, True, True)
    assert run("down", "--on", "ray", "--yes").code == 0
    assert serve.configs == {"other": OTHER}
    assert "no application of the stack demo" in run("down", "--on", "ray").out
    assert run("undo", "--on", "ray", "--yes").code == 3


def test_a_revision_that_fails_is_reported_and_the_present_one_stays(
    run: Run, serve: FakeServe, tmp_path: Path
) -> None:
    assert run("apply", "--on", "ray", "--yes").code == 0
    before = dict(serve.configs)
    serve.broken = "probe-"
    (tmp_path / "mullama.yaml").write_text(MANIFEST.replace("threads: 1", "threads: 1, size: 256"))
    failed = run("apply", "--on", "ray", "--yes")
    assert failed.code == 1
    assert "EngineFailed: no memory" in failed.err
    assert serve.configs == before


def test_undo_brings_back_the_files_of_the_revision(run: Run, serve: FakeServe, tmp_path: Path) -> None:
    source = "hf:org/repo:Q8_0"
    (tmp_path / "mullama.yaml").write_text(MANIFEST.replace("builtin:tiny", source))

    def pin(digit: str) -> set[str]:
        digest, revision = "sha256:" + digit * 64, digit * 40
        file = PinnedFile(name="m.gguf", size=8, digest=digest)
        entry = LockEntry(source=source, resolved=f"{source}@{revision}", revision=revision, files=(file,))
        (tmp_path / "mullama.lock").write_text(lockfile.render({source: entry}))
        assert run("apply", "--on", "ray", "--yes").code == 0
        return set(serve.configs)

    first, second = pin("1"), pin("2")
    assert first != second, "other files are another application"
    assert run("undo", "--on", "ray", "--yes").code == 0
    assert set(serve.configs) == first


@pytest.mark.parametrize(
    ("status", "message"),
    [(307, "failed: status 307"), (200, "cannot be reached")],
    ids=["a redirect is not followed", "an answer that breaks off"],
)
def test_a_dashboard_that_answers_wrongly_is_an_error(
    run: Run, serve: FakeServe, tmp_path: Path, status: int, message: str
) -> None:
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["authorization"])
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0" if status != 200 else "9")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        ran = run("status", "--on", "ray", "--address", f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()
    assert (ran.code, message in ran.err, len(asked)) == (11, True, 1), ran.err


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("apply", "--target", "ray"), 4, "mullama apply --on ray applies the manifest to a cluster"),
        (("apply", "--address", "http://x:1"), 4, "--address is for --on ray"),
        (("apply", "--on", "ray", "--offline"), 4, "--offline has no meaning with --on ray"),
        (("apply", "--on", "ray", "--target", "tiny"), 4, "--target has no meaning with --on ray"),
        (("status", "--on", "ray", "--host", "http://x:1"), 4, "--host has no meaning with --on ray"),
        (("diff", "--on", "ray", "--address", "ray://x:10001"), 1, "is no address of a dashboard"),
        (("status", "--on", "ray", "--address", "http://127.0.0.1:0"), 11, "cannot be reached"),
        (("logs", "--on", "ray", "--model", "none"), 3, "has no model 'none' on the cluster"),
    ],
)
def test_a_mistake_has_a_reason_and_a_remedy(
    run: Run, serve: FakeServe, command: tuple[str, ...], code: int, message: str
) -> None:
    ran = run(*command)
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert serve.configs == {"other": OTHER}


def test_the_refusal_of_serve_and_a_foreign_address_are_named(run: Run, serve: FakeServe, tmp_path: Path) -> None:
    serve.status = 400
    assert "the field is wrong" in run("apply", "--on", "ray", "--yes").err
    serve.status = 403
    assert "set RAY_AUTH_TOKEN" in run("status", "--on", "ray").err
    serve.status = 200
    (tmp_path / "mullama.yaml").write_text(MANIFEST.replace("builtin:tiny", "hf:org/repo:Q8_0"))
    unlocked = run("diff", "--on", "ray")
    assert (unlocked.code, "mullama lock pins it" in unlocked.err) == (1, True)
    (tmp_path / "mullama.yaml").write_text(MANIFEST + "peers: {p: {url: 'http://p:1'}}\n")
    assert "peers is not available on Ray" in run("diff", "--on", "ray").err
