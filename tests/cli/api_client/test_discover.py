"""A server that is found by its address only, because its state folder is another one."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.cli.api_client import discover
from mullama.cli.api_client.discover import start_manifest
from mullama.cli.app.context import CommandContext
from mullama.cli.console.terminal import Terminal
from mullama.cli.server import doctor
from mullama.client.address import ServerAddress
from mullama.errors import Invalid, ManifestError, NotFound
from mullama.manifest.load import load
from mullama.manifest.tree import manifest_to_tree, parse_resolved, revision
from mullama.store.records import Records, Revision, ServerRecord, instance_name
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]
STATUS = {"format": "mullama.status/1", "state": "ready"}
KEY_NEEDED = {"error": {"kind": "denied", "message": "a key is required", "hint": ""}}


def write(folder: Path, address: str) -> None:
    (folder / "m.yaml").write_text(f"mullama: v1\nserver: {{listen: ['{address}']}}\nmodels: {{a: builtin:tiny}}\n")


@pytest.mark.parametrize(
    "command",
    [
        ("status",), ("ps",), ("wait", "--for", "ready"), ("diff",), ("apply", "--yes"), ("down", "--yes"), ("reload",),
        ("undo", "--yes"), ("history",), ("events",),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_server_of_another_state_folder_is_named(
    run: Run, tmp_path: Path, tiny: TinyServer, command: tuple[str, ...]
) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    write(tmp_path, f"127.0.0.1:{tiny.address.port}")

    ran = run(command[0], "-f", "m.yaml", *command[1:])

    assert ran.code == (1 if command[0] == "diff" else 10)
    assert ran.err.startswith(f"error: a server answers at {tiny.address}, under another state folder than ")
    assert f"--host {tiny.address}" in ran.err
    assert "MULLAMA_STATE_DIR" in ran.err


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(STATUS), 10),
        (Answer(KEY_NEEDED, status=401), 10),
        (Answer({**STATUS, "state": "stopping"}), 11),
        (Answer({"error": "model not found"}, status=404), 11),
        (Answer({"models": []}), 11),
        (Answer([]), 11),
    ],
    ids=["mullama", "with a key", "stopping", "another server", "some JSON", "a list"],
)
def test_only_a_mullama_server_counts(run: Run, tmp_path: Path, tiny: TinyServer, answer: Any, code: int) -> None:
    tiny.answers["GET /api/v1/status"] = answer
    write(tmp_path, f"127.0.0.1:{tiny.address.port}")

    assert run("status", "-f", "m.yaml").code == code


@pytest.mark.parametrize(
    "text",
    [
        '"server": {listen: [ADDRESS]}',
        "server :\n  listen: [ADDRESS]",
        "? server\n: listen: [ADDRESS]",
        '"\\x73erver": {listen: [ADDRESS]}',
    ],
)
def test_every_spelling_of_an_address_is_read(run: Run, tmp_path: Path, tiny: TinyServer, text: str) -> None:
    tiny.answers["GET /api/v1/status"] = Answer(STATUS)
    address = f"'127.0.0.1:{tiny.address.port}'"
    (tmp_path / "m.yaml").write_text(f"mullama: v1\nmodels: {{a: builtin:tiny}}\n{text.replace('ADDRESS', address)}\n")

    assert run("ps", "-f", "m.yaml").code == 10


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.0.0.1:1"])
def test_an_address_without_a_server_changes_nothing(run: Run, tmp_path: Path, address: str) -> None:
    write(tmp_path, address)

    ran = run("status", "-f", "m.yaml")

    assert (ran.code, ran.err.splitlines()[0]) == (11, "error: no server is running for this manifest")


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_server_that_starts_during_the_search_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, with_manifest: bool
) -> None:
    """It writes its record before it opens its addresses."""
    monkeypatch.chdir(tmp_path)
    if with_manifest:
        write(tmp_path, "127.0.0.1:4321")
    options = argparse.Namespace(file="m.yaml" if with_manifest else None, profile=[], host=None)
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    call = CommandContext(options, terminal, {"MULLAMA_STATE_DIR": str(tmp_path / "state")}, tmp_path)
    listen = "127.0.0.1:4321" if with_manifest else "127.0.0.1:11434"

    def starts(address: ServerAddress) -> bool:
        assert str(address) == f"http://{listen}"
        records = Records(tmp_path / "state", instance_name((listen,), str(tmp_path / "m.yaml")))
        records.create()
        manifest = str(tmp_path / "m.yaml") if with_manifest else None
        records.announce(ServerRecord(os.getpid(), 0.0, (listen,), "control.sock", manifest, "0"))
        return True

    monkeypatch.setattr(discover, "answers", starts)

    found = discover.require(call)

    assert found.record is not None
    assert found.record.listen == (listen,)


@pytest.mark.parametrize(
    ("text", "key"), [("good\n", "good"), (" ", None), ("a\nb", ""), ("\u65e5", ""), ("k\u00e9y", ""), ("a b", "")]
)
def test_a_key_of_the_environment_is_checked_before_it_is_sent(tmp_path: Path, text: str, key: str | None) -> None:
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    call = CommandContext(argparse.Namespace(key_file=None), terminal, {"MULLAMA_API_KEY": text}, tmp_path)
    if key == "":
        with pytest.raises(Invalid, match="MULLAMA_API_KEY is not an API key") as caught:
            discover.api_key(call)
        assert text not in str(caught.value)
    else:
        assert discover.api_key(call) == key


@pytest.mark.parametrize(
    ("answer", "level", "remedy"),
    [(Answer(STATUS), "warning", "--host http://127.0.0.1:"), (Answer({"models": []}), "failure", "is it Ollama?")],
    ids=["mullama", "another server"],
)
def test_doctor_tells_a_mullama_server_from_others(
    run: Run, tmp_path: Path, tiny: TinyServer, monkeypatch: pytest.MonkeyPatch, answer: Answer, level: str, remedy: str
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [check for check in doctor.CHECKS if check.__name__ == "_ports"])
    tiny.answers["GET /api/v1/status"] = answer
    write(tmp_path, f"127.0.0.1:{tiny.address.port}")

    [found] = json.loads(run("doctor", "-f", "m.yaml", "--json").out)["findings"]

    assert found["state"] == level
    assert remedy in found["hint"]


def test_doctor_shows_no_secret_of_an_address(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", [check for check in doctor.CHECKS if check.__name__ == "_hub"])
    monkeypatch.setenv("HF_ENDPOINT", "https://me:s3cret@hub.example/?sig=s3cret")
    out = run("doctor", "--offline").out
    assert "HF_ENDPOINT=https://***@hub.example/?sig=***" in out
    assert "s3cret" not in out


def test_a_start_reports_a_broken_manifest_by_its_absolute_path_as_the_watcher_does(tmp_path: Path) -> None:
    """The log has one line for it, not one for each spelling of the path."""
    path = tmp_path / "m.yaml"
    manifest = parse_resolved({"mullama": "v1", "models": {"a": {"from": "builtin:tiny"}}})
    records = Records(tmp_path / "state", "test")
    records.create()
    records.commit(
        Revision(
            generation=1, revision=revision(manifest), manifest=manifest_to_tree(manifest), when=0.0, trigger="apply",
            by="", origin={"path": str(path), "profiles": []}, summary={},
        )
    )  # fmt: skip
    options = argparse.Namespace(file="m.yaml", profile=[])
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    call = CommandContext(options, terminal, {"MULLAMA_STATE_DIR": str(tmp_path / "state")}, tmp_path)

    for text, kind in (("models: [", ManifestError), (None, NotFound)):
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
        started = start_manifest(call)
        with pytest.raises(kind) as raised:
            load(str(path), env={})

        assert list(started.loaded.manifest.models) == ["a"]
        assert str(started.problem) == str(raised.value)
        assert str(path) in str(started.problem)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ca_file", None, "--ca-file: {path} cannot be read: no such file or directory"),
        ("ca_file", "text", "--ca-file: {path} does not have a certificate in PEM form"),
        ("cert_file", None, "--cert-file: {path} cannot be read: no such file or directory"),
        ("cert_file", "text", "--cert-file: {path} does not have a certificate and its key in PEM form"),
    ],
)
def test_a_file_of_certificates_is_checked_before_a_connection(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_text(content)
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    options = argparse.Namespace(**{"ca_file": None, "cert_file": None, name: "file.pem"})
    with pytest.raises(Invalid) as caught:
        discover._tls_file(CommandContext(options, terminal, {}, tmp_path), name)
    assert caught.value.message == message.format(path=path)
