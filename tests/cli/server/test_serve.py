"""The manifest with which `serve` starts: of a file, of the command line, or the last applied revision."""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest

from mullama.cli.api_client.discover import FoundServer
from mullama.cli.app.context import CommandContext
from mullama.cli.console.terminal import Terminal
from mullama.cli.server import daemon, serve, wiring
from mullama.client.address import ServerAddress
from mullama.client.http import Client
from mullama.manifest.load import load
from mullama.manifest.spec.observability import LogLevel
from mullama.manifest.tree import block_to_tree, revision
from mullama.store.records import Records, Revision, instance_name
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]
TREE = {"from": "/m/my.gguf", "residency": {"load": "on_demand"}, "system": "Be brief."}


@dataclass
class Started:
    """The arguments of `run_server`."""

    calls: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, loaded: Any, **more: Any) -> int:
        self.calls.append((loaded, more))
        return 0

    @property
    def sources(self) -> dict[str, str]:
        return {name: model.from_ for name, model in self.calls[-1][0].manifest.models.items()}

    @property
    def default(self) -> str:
        """The default model, of the manifest or beside it."""
        loaded, more = self.calls[-1]
        return str(loaded.manifest.routes.get("default", more["default"]))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started()
    monkeypatch.setattr(wiring, "run_server", found)
    return found


def add(folder: Path, address: str, **models: dict[str, Any]) -> Records:
    """Add models beside the manifest, as `pull` and `create` do."""
    records = Records(folder / "state", instance_name((address,), None))
    records.save_overlay(models)
    return records


@pytest.mark.parametrize(
    ("arguments", "sources", "default"),
    [
        ((), {}, ""),
        (("--model", "mine"), {}, "mine"),
        (("--model", "Mine:latest"), {}, "mine"),
        (("--model", "mine", "--model", "x=/m/x.gguf"), {"x": "/m/x.gguf"}, "mine"),
        (("--model", "x=/m/x.gguf", "--model", "mine"), {"x": "/m/x.gguf"}, "x"),
        (("--model", "other=mine"), {"other": "/m/my.gguf"}, "other"),
        (("--model", "builtin:tiny"), {"tiny": "builtin:tiny"}, "tiny"),
        (("--model", "/m/a=b.gguf"), {"a-b": "/m/a=b.gguf"}, "a-b"),
        (("--model", "https://h/x.gguf?sig=1"), {"x": "https://h/x.gguf?sig=1"}, "x"),
        (("--model", "y=https://h/x.gguf?sig=1"), {"y": "https://h/x.gguf?sig=1"}, "y"),
        (("--http-port", "8080", "--model", "mine"), {"mine": "/m/my.gguf"}, "mine"),
        (("--http-addr", "0.0.0.0", "--require-api-key", "--model", "mine"), {"mine": "/m/my.gguf"}, "mine"),
    ],
)
def test_a_name_is_first_that_of_an_added_model(
    run: Run, tmp_path: Path, started: Started, arguments: tuple[str, ...], sources: dict[str, str], default: str
) -> None:
    records = add(tmp_path, "127.0.0.1:11434", mine=TREE)

    ran = run("serve", *arguments)

    assert (ran.code, ran.err) == (0, "")
    assert (started.sources, started.default) == (sources, default)
    assert records.overlay() == {"mine": TREE}
    copied = [model.system for model in started.calls[-1][0].manifest.models.values() if model.from_ == TREE["from"]]
    assert set(copied) <= {"Be brief."}


def test_mistakes_of_the_command_line_have_no_places_in_a_file(run: Run) -> None:
    ran = run("serve", "--http-port", "99999", "--model", "a b=builtin:tiny")
    assert ran.code == 4
    port, name, count = ran.err.splitlines()
    assert port == "server.listen[0]: 99999 is not a port (0 to 65535; 0 takes a free one)"
    assert name.startswith("models.a b: 'a b' is not a model name (")
    assert count == "error: 2 problems in the command line"


def test_another_address_serves_what_was_added_at_the_default_one(run: Run, tmp_path: Path, started: Started) -> None:
    text = {**TREE, "system": "Pay ${PRICE} at ./here"}
    add(tmp_path, "127.0.0.1:11434", mine=text, other=TREE, short={"route": "mine"}, default={"route": "other"})
    own = add(tmp_path, "127.0.0.1:8080", Other={"from": "/m/own.gguf"})

    ran = run("serve", "--http-port", "8080")

    assert (ran.code, ran.err) == (0, "serving 1 model added at 127.0.0.1:11434\n")
    manifest = started.calls[-1][0].manifest
    assert (started.sources, manifest.models["mine"].system) == ({"mine": "/m/my.gguf"}, text["system"])
    assert started.calls[-1][1]["added"] == {"mine"}
    assert manifest.routes == {"short": "mine"}, "a route to a model that is not copied is left out"
    assert list(own.overlay()) == ["Other"]
    assert run("serve", "--http-port", "8080", "--model", "mine").err == ""
    assert started.calls[-1][0].manifest.models["mine"].system == text["system"]
    assert not started.calls[-1][1]["added"], "models that the command line names are served all or none"


def test_a_restart_keeps_the_settings_of_models_that_were_added_elsewhere(tmp_path: Path, tiny: TinyServer) -> None:
    add(tmp_path, "127.0.0.1:11434", mine=TREE)
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    call = CommandContext(Namespace(), terminal, {"MULLAMA_STATE_DIR": str(tmp_path / "state")}, tmp_path)
    server = FoundServer(client=Client(ServerAddress.parse(tiny.url)))
    models = {"x": {"from": "/m/x.gguf"}, "mine": TREE}
    tree = {"server": {"listen": ["127.0.0.1:8080"]}, "models": models, "routes": {"default": "mine"}}
    tiny.answers["GET /api/v1/stack"] = Answer({"manifest": tree})
    at = {"http_addr": "127.0.0.1", "http_port": 8080}

    assert daemon._settings_of(call, server) == {**at, "model": ["mine", "x=/m/x.gguf"]}
    tiny.answers["GET /api/v1/stack"] = Answer({"manifest": {**tree, "routes": {}}})
    assert daemon._settings_of(call, server) == at, "it was started without --model"


def searching(started: Started) -> tuple[Any, dict[str, bool]]:
    manifest = started.calls[-1][0].manifest
    return manifest.search, {name: model.search for name, model in manifest.models.items()}


def test_a_search_of_the_command_line(run: Run, started: Started) -> None:
    assert run("serve", "--model", "builtin:tiny", "--enable-search", "http://127.0.0.1:8888").code == 0
    search, models = searching(started)
    assert (search.provider, search.url, search.embed, models) == (
        "searxng",
        "http://127.0.0.1:8888",
        None,
        {"tiny": True},
    )
    ran = run("serve", "--model", "builtin:tiny", "--enable-search", "--search-embedding-model", "rank=/m/e.gguf")
    assert (ran.code, ran.err) == (0, "")
    search, models = searching(started)
    assert (search.provider, search.key.from_env, search.embed) == ("brave", "BRAVE_API_KEY", "rank")
    assert models == {"tiny": True, "rank": False}
    assert started.calls[-1][0].manifest.models["rank"].task == "embedding"
    run("serve", "--model", "builtin:tiny")
    assert searching(started) == (None, {"tiny": False})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--search-embedding-model", "/m/e.gguf"), "--search-embedding-model needs --enable-search"),
        (
            ("--model", "e=/m/e.gguf", "--enable-search", "--search-embedding-model", "e=/m/f.gguf"),
            "e is a model of its own already",
        ),
        (("--enable-search", "not an address"), "search.url: 'not an address' is not the address of a search engine"),
    ],
)
def test_a_search_that_cannot_be_made(run: Run, started: Started, arguments: tuple[str, ...], message: str) -> None:
    ran = run("serve", "--model", "builtin:tiny", *arguments)
    assert ran.code == 4
    assert message in ran.err
    assert not started.calls


def test_a_restart_keeps_the_search(tmp_path: Path, tiny: TinyServer) -> None:
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), {})
    call = CommandContext(Namespace(), terminal, {"MULLAMA_STATE_DIR": str(tmp_path / "state")}, tmp_path)
    server = FoundServer(client=Client(ServerAddress.parse(tiny.url)))
    models = {"x": {"from": "/m/x.gguf"}, "rank": {"from": "/m/e.gguf"}}
    tree = {"server": {"listen": ["127.0.0.1:8080"]}, "models": models, "routes": {"default": "x"}}
    engine = {"provider": "searxng", "url": "http://127.0.0.1:8888", "embed": "rank"}
    tiny.answers["GET /api/v1/stack"] = Answer({"manifest": {**tree, "search": engine}})
    assert daemon._settings_of(call, server) == {
        "http_addr": "127.0.0.1", "http_port": 8080, "model": ["x=/m/x.gguf"],
        "enable_search": "http://127.0.0.1:8888", "search_embedding_model": "rank=/m/e.gguf",
    }  # fmt: skip


def test_an_option_that_an_added_model_would_not_follow_is_refused(run: Run, tmp_path: Path, started: Started) -> None:
    add(tmp_path, "127.0.0.1:11434", mine=TREE)

    ran = run("serve", "--model", "mine", "--context-size", "512")

    assert ran.code == 4
    assert "--context-size cannot change 'mine'" in ran.err
    without = run("serve", "--ctx-size", "512", "-t", "1")
    assert without.code == 4
    assert "--context-size, --threads cannot change models that commands add" in without.err
    assert started.calls == []


BREAKS: dict[str, Callable[[Path], None]] = {
    "a missing include": lambda folder: (folder / "more.yaml").unlink(),
    "a damaged include": lambda folder: (folder / "more.yaml").write_text("models: {b: ["),  # type: ignore[dict-item]
    "a missing template": lambda folder: (folder / "t.jinja").unlink(),
    "a damaged manifest": lambda folder: (folder / "mullama.yaml").write_text("mullama: v1\nmodel: {}"),  # type: ignore[dict-item]
    "a missing manifest": lambda folder: (folder / "mullama.yaml").unlink(),
}


@pytest.mark.parametrize("harm", BREAKS.values(), ids=BREAKS)
def test_the_last_applied_revision_starts_when_the_file_cannot_be_used(
    run: Run, tmp_path: Path, started: Started, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "mullama.yaml"
    path.write_text("mullama: v1\ninclude: [more.yaml]\nmodels: {a: {from: ./a.gguf, template: {file: ./t.jinja}}}\n")
    (tmp_path / "more.yaml").write_text("models: {b: ./b.gguf}\n")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    manifest = load(str(path), env={}).manifest
    tree = {**block_to_tree(manifest), "models": {**block_to_tree(manifest)["models"], "added": TREE}}
    records = Records(tmp_path / "state", instance_name(manifest.server.listen, str(path)))
    records.commit(
        Revision(
            generation=3, revision=revision(manifest), manifest=tree, when=0.0, trigger="apply", by="",
            origin={"path": str(path), "profiles": [], "digest": "x"}, summary={}, overlay=("added",),
        )
    )  # fmt: skip
    harm(tmp_path)

    ran = run("serve", "-f", "mullama.yaml")
    never_applied = run("serve", "-f", "mullama.yaml", "--profile", "other")

    assert (ran.code, never_applied.code in (3, 4)) == (0, True)
    ((loaded, more),) = started.calls
    assert loaded.manifest == manifest
    assert (loaded.path, loaded.digest) == (str(path), "")
    assert more["records"].folder == records.folder
    assert more["problem"] is not None


def test_the_levels_of_the_option_are_those_of_the_manifest() -> None:
    assert get_args(LogLevel) == serve.LOG_LEVELS


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        (["warning"], {"": "warning"}),
        (["scheduler=debug", "http=error"], {"scheduler": "debug", "http": "error"}),
        (["http=debug", "http=error", "info"], {"http": "error", "": "info"}),
    ],
)
def test_log_levels_by_part(given: list[str], levels: dict[str, str], run: Run, started: Started) -> None:
    ran = run("serve", "-m", "builtin:tiny", *(word for level in given for word in ("--log-level", level)))
    assert ran.code == 0, ran.err
    assert started.calls[-1][1]["log_levels"] == levels


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("schedular=debug", "no part of the log is called 'schedular' (did you mean scheduler?)"),
        ("warn", "no level is called 'warn' (did you mean warning?)"),
        ("http=loud", "no level is called 'loud'"),
        ("=debug", "no part of the log is called ''"),
        ("", "no level is called ''"),
    ],
)
def test_an_unknown_part_or_level_is_refused_with_the_nearest(given: str, words: str, run: Run) -> None:
    ran = run("serve", "-m", "builtin:tiny", "--log-level", given)
    assert ran.code != 0
    assert words.partition(" (")[0] in ran.err
    assert words.partition("(")[2].rstrip(")") in ran.err
