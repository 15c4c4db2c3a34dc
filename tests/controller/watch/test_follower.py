"""Following a file, with a real reconciler over scripted models: what people, editors and platforms do to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.watch import follower
from mullama.controller.watch.follower import ManifestWatcher
from mullama.manifest.load import LoadedManifest, load
from mullama.manifest.tree import block_to_tree
from mullama.runtime.base import ApplyOptions, Origin
from tests.runtime.runtime_fixture import Stand, run, stand, until


def text(system: str, more: str = "") -> str:
    said = json.dumps(system)
    return f"mullama: v1\nmodels:\n  a: {{from: ./a.script.json, system: {said}}}\n{more}"


@asynccontextmanager
async def followed(home: Path, content: str = "", env: dict[str, str] | None = None) -> AsyncIterator[Stand]:
    """A server that applied `mullama.yaml` of its home and follows it."""
    manifest = home / "mullama.yaml"
    if not manifest.is_symlink():
        manifest.write_text(content or text("one"))
    async with stand(home, env) as s:
        s.script("a")
        follower = ManifestWatcher(s.reconciler, s.env)
        follower.start()
        loaded = load(str(manifest), env=s.env)
        origin = Origin(path=loaded.path, digest=loaded.digest)
        try:
            async for _ in s.reconciler.apply(block_to_tree(loaded.manifest), origin, ApplyOptions()):
                pass
            yield s
        finally:
            await follower.close()


def system(s: Stand) -> str | None:
    return s.reconciler.snapshot.manifest.models["a"].system


def generation(s: Stand) -> int:
    return s.reconciler.snapshot.generation


def renamed(path: Path, content: str) -> None:
    """sed -i, and editors that write beside."""
    beside = path.with_name(".saved")
    beside.write_text(content)
    beside.replace(path)


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
def test_whichever_way_it_is_saved_it_is_one_reload(save: Callable[[Path, str], None], tmp_path: Path) -> None:
    async def test() -> None:
        async with followed(tmp_path) as s:
            save(tmp_path / "mullama.yaml", text("two"))
            await until(lambda: system(s) == "two")
            assert generation(s) == 2
            save(tmp_path / "mullama.yaml", text("two", "# a remark\n"))
            save(tmp_path / "mullama.yaml", text("three"))
            await until(lambda: system(s) == "three")
            assert generation(s) == 3
            assert s.stats.reloads["failed"] == 0

    run(test)


def test_swapped_links_of_mounted_configuration_are_followed(tmp_path: Path) -> None:
    def swap(said: str) -> None:
        version = tmp_path / f"..{said}"
        version.mkdir()
        (version / "mullama.yaml").write_text(text(said))
        beside = tmp_path / "..new"
        beside.symlink_to(version.name)
        beside.replace(tmp_path / "..data")

    async def test() -> None:
        swap("one")
        (tmp_path / "..one" / "a.script.json").write_text(json.dumps({"name": "a"}))
        (tmp_path / "mullama.yaml").symlink_to("..data/mullama.yaml")
        async with followed(tmp_path) as s:
            for said in ("two", "three", "four"):
                swap(said)
                await until(lambda said=said: system(s) == said)  # type: ignore[misc]
            assert generation(s) == 4

    run(test)


def test_new_content_of_the_same_size_and_time_is_seen_by_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "READ_EVERY", 0.0)
    monkeypatch.setattr(follower, "_look", lambda path: (path, 0, 0, 0, ""))  # a file system that tells nothing

    async def test() -> None:
        async with followed(tmp_path) as s:
            (tmp_path / "mullama.yaml").write_text(text("two"))
            await until(lambda: system(s) == "two")

    run(test)


def instead(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Something else at the manifest's path."""

    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
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
def test_what_is_no_manifest_leaves_the_last_good_one_serving(
    spoil: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    async def test() -> None:
        async with followed(tmp_path) as s:
            spoil(tmp_path / "mullama.yaml")

            await until(lambda: s.condition("ConfigValid")["status"] is False)

            assert says in s.condition("ConfigValid")["message"]
            assert s.condition("ConfigValid")["message"].startswith("serving revision 1; ")
            assert s.condition("ConfigValid")["reason"] == (
                "ManifestMissing" if says == "there is no manifest" else "InvalidManifest"
            )
            assert s.operator.status()["state"] == "degraded"
            assert s.operator.missing() == ()
            assert await s.ask("a", "say yes") == "yes"
            manifest = tmp_path / "mullama.yaml"
            shutil.rmtree(manifest) if manifest.is_dir() else manifest.unlink(missing_ok=True)
            manifest.write_text(text("good again"))
            await until(lambda: system(s) == "good again")
            await until(lambda: s.condition("ConfigValid")["status"] is True)

    run(test)


def test_a_file_that_was_half_saved_when_it_was_read_is_not_told_as_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, usual = tmp_path / "mullama.yaml", follower.load

    def meanwhile(path: str, **more: Any) -> LoadedManifest:
        """The editor writes the rest after the file was read."""
        try:
            return usual(path, **more)
        finally:
            if manifest.read_text() == "half: [":
                manifest.write_text(text("two"))

    async def test() -> None:
        async with followed(tmp_path) as s:
            monkeypatch.setattr(follower, "load", meanwhile)
            manifest.write_text("half: [")
            await until(lambda: system(s) == "two")
            assert s.stats.reloads["invalid"] == 0

    run(test)


def test_a_change_that_cannot_be_carried_out_is_told_and_tried_again_at_a_slow_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may be mounted later, the hub may come back: but nobody is flooded meanwhile."""
    monkeypatch.setattr(follower, "READ_EVERY", 1.0)

    async def test() -> None:
        async with followed(tmp_path) as s:
            content = text("two").replace("a.script", "later.script")
            (tmp_path / "mullama.yaml").write_text(content)
            await until(lambda: "later.script.json: No such file" in s.condition("Synced")["message"])

            assert s.condition("Synced")["status"] is False
            assert generation(s) == 1
            await until(lambda: s.stats.reloads["failed"] > 1)
            s.script("later")
            await until(lambda: system(s) == "two")
            await until(lambda: s.condition("Synced")["status"] is True)
            assert s.stats.reloads["failed"] <= 4
            assert [e["kind"] for e in s.journal._events].count("not-applied") == 1

    run(test)


def test_a_file_that_is_not_to_be_watched_is_read_when_somebody_asks(tmp_path: Path) -> None:
    async def test() -> None:
        async with followed(tmp_path, text("one", "sync: {watch: false}\n")) as s:
            follower = ManifestWatcher(s.reconciler, s.env)
            follower._follow(s.reconciler.origin)
            (tmp_path / "mullama.yaml").write_text(text("two", "sync: {watch: false}\n"))

            assert system(s) == "one"
            assert "revision 2" in await follower.reload("SIGHUP")
            assert system(s) == "two"

    run(test)
