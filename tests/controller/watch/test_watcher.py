"""Watching a file that people, editors and platforms change, with a real reconciler over scripted models."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.runs.change import Change
from mullama.controller.watch.watcher import ManifestWatcher
from mullama.errors import MullamaError
from mullama.manifest.load import LoadedManifest, load
from mullama.runtime.base import UNDO, ApplyOptions, Origin
from tests.runtime.runtime_fixture import LocalServer, until

pytestmark = pytest.mark.anyio


def text(system: str, more: str = "") -> str:
    quoted = json.dumps(system)
    return f"mullama: v1\nmodels:\n  a: {{from: ./a.script.json, system: {quoted}}}\n{more}"


@asynccontextmanager
async def watched(server: LocalServer, content: str = "", **seams: Any) -> AsyncIterator[LocalServer]:
    """Apply `mullama.yaml` of the server's home and watch it. seams: see `ManifestWatcher`."""
    manifest = server.home / "mullama.yaml"
    if not manifest.is_symlink():
        manifest.write_text(content or text("one"))
    server.script("a")
    watcher = watcher_of(server, **seams)
    watcher.start()
    loaded = load(str(manifest), env=server.env)
    origin = Origin(path=loaded.path, digest=loaded.digest)
    change = Change(desired=loaded.manifest, origin=origin, options=ApplyOptions())
    try:
        async for _ in server.reconciler.apply(change):
            pass
        yield server
    finally:
        await watcher.close()


def watcher_of(server: LocalServer, **seams: Any) -> ManifestWatcher:
    watcher = ManifestWatcher(
        reconciler=server.reconciler, pool=server.pool, event_log=server.event_log, env=server.env, **seams
    )
    server.reconciler.state.subscribers.append(watcher.follow)
    return watcher


def system(server: LocalServer) -> str | None:
    return server.snapshot.manifest.models["a"].system


def generation(server: LocalServer) -> int:
    return server.snapshot.generation


def renamed(path: Path, content: str) -> None:
    """sed -i, and editors that write another file first."""
    saved = path.with_name(".saved")
    saved.write_text(content)
    saved.replace(path)


def with_backup(path: Path, content: str) -> None:
    """vim: tries whether the folder can be written to, moves the old file away, writes a new one, removes the old."""
    path.with_name("4913").write_text("")
    path.with_name("4913").unlink()
    backup = path.with_name(path.name + "~")
    path.replace(backup)
    path.write_text(content)
    backup.unlink()


def truncated(path: Path, content: str) -> None:
    """Editors that write in place, in two parts."""
    with path.open("w") as file:
        file.flush()
        file.write(content[:20])
        file.flush()
        file.write(content[20:])


def copied(path: Path, content: str) -> None:
    source = path.with_name("source")
    source.write_text(content)
    shutil.copyfile(source, path)


@pytest.mark.parametrize("save", [renamed, with_backup, truncated, copied])
async def test_each_way_of_saving_is_one_reload(save: Callable[[Path, str], None], server: LocalServer) -> None:
    manifest = server.home / "mullama.yaml"
    async with watched(server):
        save(manifest, text("two"))
        await until(lambda: system(server) == "two")
        assert generation(server) == 2
        save(manifest, text("two", "# a remark\n"))
        save(manifest, text("three"))
        await until(lambda: system(server) == "three")
        assert generation(server) == 3
        assert server.metrics.reloads["failed"] == 0


async def test_swapped_links_of_mounted_configuration_are_followed(server: LocalServer, tmp_path: Path) -> None:
    def swap(content: str) -> None:
        version = tmp_path / f"..{content}"
        version.mkdir()
        (version / "mullama.yaml").write_text(text(content))
        link = tmp_path / "..new"
        link.symlink_to(version.name)
        link.replace(tmp_path / "..data")

    swap("one")
    (tmp_path / "..one" / "a.script.json").write_text(json.dumps({"name": "a"}))
    (tmp_path / "mullama.yaml").symlink_to("..data/mullama.yaml")
    async with watched(server):
        for content in ("two", "three", "four"):
            swap(content)
            await until(lambda content=content: system(server) == content)  # type: ignore[misc]
        assert generation(server) == 4


async def test_new_content_with_the_same_metadata_is_found_by_reading(server: LocalServer) -> None:
    async with watched(server, read_every=0.0, file_state=lambda path: (path, 0, 0, 0, "")):
        (server.home / "mullama.yaml").write_text(text("two"))
        await until(lambda: system(server) == "two")


def instead(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Put something else at the manifest's path."""

    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text(""), "the file is empty"),
        (lambda path: path.write_text("mullama: v1\nmodels: [\n"), "mullama.yaml:"),
        (lambda path: path.write_bytes(b"mullama: v1\nx-a: \xff\n"), ":2:6: the file is not UTF-8"),
        (lambda path: path.write_text(text("two", "sytem: 1\n")), ":4:1: sytem: no such field"),
        (lambda path: path.write_text(text("${NOT_SET}")), "NOT_SET is not set"),
        (instead(Path.mkdir), "not a regular file"),
        (instead(os.mkfifo), "not a regular file"),
        (instead(lambda path: path.symlink_to("/dev/zero")), "not a regular file"),
        (lambda path: os.truncate(path, 10 * 2**30), "larger than 1 MiB"),
        (lambda path: path.unlink(), "there is no manifest"),
    ],
    ids=["empty", "cut", "latin-1", "unknown key", "unset variable", "folder", "pipe", "device", "10 GB", "deleted"],
)
async def test_an_invalid_manifest_leaves_the_last_good_one_serving(
    spoil: Callable[[Path], object], message: str, server: LocalServer
) -> None:
    manifest = server.home / "mullama.yaml"
    async with watched(server):
        spoil(manifest)

        await until(lambda: server.condition("ConfigValid")["status"] is False)

        condition = server.condition("ConfigValid")
        assert message in condition["message"]
        assert condition["message"].startswith("serving revision 1; ")
        assert condition["reason"] == ("ManifestMissing" if message == "there is no manifest" else "InvalidManifest")
        assert server.operator.status()["state"] == "degraded"
        assert server.operator.missing() == ()
        assert await server.ask("a", "say yes") == "yes"
        shutil.rmtree(manifest) if manifest.is_dir() else manifest.unlink(missing_ok=True)
        manifest.write_text(text("good again"))
        await until(lambda: system(server) == "good again")
        await until(lambda: server.condition("ConfigValid")["status"] is True)


async def test_a_file_that_was_half_saved_when_it_was_read_is_not_reported_as_invalid(server: LocalServer) -> None:
    manifest = server.home / "mullama.yaml"

    def load_half(path: str, **more: Any) -> LoadedManifest:
        """Read the file, after which the editor writes the rest."""
        try:
            return load(path, **more)
        finally:
            if manifest.read_text() == "half: [":
                manifest.write_text(text("two"))

    async with watched(server, load=load_half):
        manifest.write_text("half: [")
        await until(lambda: system(server) == "two")
        assert server.metrics.reloads["invalid"] == 0


async def test_a_failed_change_is_reported_once_and_retried_slowly(server: LocalServer) -> None:
    """The disk may be mounted later, the hub may be reachable again."""
    async with watched(server, read_every=1.0):
        (server.home / "mullama.yaml").write_text(text("two").replace("a.script", "later.script"))
        await until(lambda: "later.script.json: No such file" in server.condition("Synced")["message"])

        assert server.condition("Synced")["status"] is False
        assert generation(server) == 1
        await until(lambda: server.metrics.reloads["failed"] > 1)
        server.script("later")
        await until(lambda: system(server) == "two")
        await until(lambda: server.condition("Synced")["status"] is True)
        assert server.metrics.reloads["failed"] <= 4
        assert [event["kind"] for event in server.event_log.kept()].count("not-applied") == 1


async def test_an_undo_after_an_edit_without_effect_is_kept(server: LocalServer) -> None:
    reads: list[str] = []

    def counted(*arguments: Any, **options: Any) -> LoadedManifest:
        loaded = load(*arguments, **options)
        reads.append(loaded.digest)
        return loaded

    async with watched(server, load=counted, read_every=0.01, look_every=0.01):
        manifest = server.home / "mullama.yaml"
        manifest.write_text(text("two"))
        await until(lambda: system(server) == "two")
        manifest.write_text(text("two", "# a note\n"))
        digest = load(str(manifest), env=server.env).digest
        await until(lambda: server.reconciler.current.origin.digest == digest)
        async for _ in server.operator.undo(None, UNDO):
            pass
        assert system(server) == "one"
        before, undone = len(reads), generation(server)
        await until(lambda: len(reads) > before + 3)
        assert generation(server) == undone


async def test_an_unwatched_file_is_read_by_an_explicit_reload(server: LocalServer) -> None:
    unwatched = "sync: {watch: false}\n"
    watcher = watcher_of(server)
    async with watched(server, text("one", unwatched)):
        (server.home / "mullama.yaml").write_text(text("two", unwatched))

        assert system(server) == "one"
        assert "revision 2 is applied" in (await watcher.reload("SIGHUP")).message
        assert system(server) == "two"


async def test_a_reload_returns_the_kind_of_a_refusal(server: LocalServer) -> None:
    protected = text("one").replace("{from", "{protect: true, from") + "  b: {from: ./a.script.json}\n"
    async with watched(server, protected):
        watcher = watcher_of(server)
        watcher.follow(Origin(path=str(server.home / "mullama.yaml")))
        (server.home / "mullama.yaml").write_text("mullama: v1\nmodels:\n  b: {from: ./a.script.json}\n")

        result = await watcher.reload("SIGHUP")

        assert result.outcome == "refused"
        assert "a is protected" in result.message


async def test_a_reload_loads_a_model_whose_file_changed_on_disk(server: LocalServer) -> None:
    async with watched(server) as running:
        watcher = watcher_of(server)
        watcher.follow(Origin(path=str(server.home / "mullama.yaml")))
        assert (await watcher.reload("SIGHUP")).message == "nothing to do"
        new = json.dumps({"name": "a", "faults": True, "rules": [{"when": "", "say": "changed"}]})
        renamed(server.home / "a.script.json", new)

        assert "revision 1 is applied" in (await watcher.reload("SIGHUP")).message
        assert await running.ask("a", "x") == "changed"
        assert (await watcher.reload("SIGHUP")).message == "nothing to do"


LOOKS = {"look_every": 0.02, "weights_settle": 0.05}


def script(answer: str) -> str:
    return json.dumps({"name": "a", "faults": True, "rules": [{"when": "", "say": answer}]})


async def answers(server: LocalServer, wanted: str) -> None:
    while await server.ask("a", "x") != wanted:
        pass


def overwritten(path: Path, content: str) -> None:
    path.write_text(content)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))


@pytest.mark.parametrize("change", [overwritten, renamed])
async def test_a_file_of_a_loaded_model_that_changes_is_served_as_it_is_now(
    server: LocalServer, change: Callable[[Path, str], None]
) -> None:
    async with watched(server, **LOOKS):
        change(server.home / "a.script.json", script("new"))
        await answers(server, "new")
        change(server.home / "a.script.json", script("newer"))
        await answers(server, "newer")


@pytest.mark.parametrize("back", ["copy", "same"])
async def test_a_pinned_file_that_is_restored_serves_again(server: LocalServer, back: str) -> None:
    path = server.home / "a.script.json"
    path.write_text(script("old"))
    pinned = hashlib.sha256(path.read_bytes()).hexdigest()
    content = f"mullama: v1\nmodels:\n  a: {{from: ./a.script.json, digest: 'sha256:{pinned}'}}\n"
    server.script = lambda name="a", **more: f"./{name}.script.json"  # type: ignore[method-assign]
    async with watched(server, content, **LOOKS):
        assert await server.ask("a", "x") == "old"
        kept = path.with_name("kept")
        path.rename(kept)
        path.write_text(script("another"))
        server.pool.unload("a", forced=True)
        await until(lambda: server.pool.pids() == ())
        with pytest.raises(MullamaError, match="changed from"):
            await server.ask("a", "x")
        await until(lambda: any("changed from" in e["message"] for e in server.event_log.kept()))

        shutil.copyfile(kept, path) if back == "copy" else kept.replace(path)
        await until(lambda: server.status("a")["state"] != "failed")
        assert await server.ask("a", "x") == "old"


async def test_files_are_left_to_apply_without_the_watch(server: LocalServer) -> None:
    async with watched(server, text("one", "sync: {watch: false}\n"), **LOOKS):
        looks = server.reconciler.served_files.look
        renamed(server.home / "a.script.json", script("new"))
        seen = []

        async def look() -> tuple[str, ...]:
            seen.append(1)
            return await looks()

        server.reconciler.served_files.look = look  # type: ignore[method-assign]
        await server.ask("a", "say hi")
        assert await looks() != ()
        assert seen == []
