"""One contract for every source: located, fetched or found in place, described, found again without a network."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mullama.errors import BadWeights, MullamaError, NotFound, Refused, TransferFailed, Unavailable, Unsupported
from mullama.reconcile import lock as lock_file
from mullama.reconcile.pins import pinned
from mullama.sources import fetch, library
from mullama.sources.builtin import builtin_models
from mullama.sources.library import find_stored
from mullama.store import lockfile
from mullama.store.blobs import Blobs
from mullama.store.foreign import Foreign, Roots
from mullama.store.index import Fetched
from mullama.struct import replace
from mullama.weights.facts import ProjectorFacts
from mullama.weights.located import expecting
from mullama.weights.record import for_lock
from mullama.weights.stored import PinnedFile, set_digest
from tests import ggufs
from tests.processor_time import processor_time
from tests.sources.source_fixture import DATA, SourceFixture
from tests.stub_hub import Cut, Status, StubHub, sha256

DIGEST = f"sha256:{sha256(DATA)}"
TINY = builtin_models()["tiny"].read_bytes()


@dataclass(frozen=True)
class Case:
    """A source text, what it should give, how to make it vanish, and a text of the same scheme with nothing behind."""

    text: str
    data: bytes
    remote: bool
    missing: str


@pytest.fixture(params=["builtin", "path", "https", "hf", "ollama"])
def case(request: pytest.FixtureRequest, sources: SourceFixture, hub: StubHub) -> Case:
    match request.param:
        case "builtin":
            return Case("builtin:tiny", TINY, False, "builtin:none")
        case "path":
            path = sources.root / "own" / "m.gguf"
            path.parent.mkdir()
            path.write_bytes(DATA)
            return Case(str(path), DATA, False, str(path.with_name("none.gguf")))
        case "https":
            hub.files["/m.gguf"] = DATA
            return Case(f"{hub.url}/m.gguf", DATA, True, f"{hub.url}/none.gguf")
        case "hf":
            return Case("hf:org/m:Q8_0", DATA, True, "hf:org/none")
        case _:
            hub.model("library/m", "latest", [("model", DATA)])
            return Case(f"ollama:{hub.host}/library/m", DATA, True, f"ollama:{hub.host}/library/none")


def test_files_come_are_described_and_are_found_again_without_a_network(
    case: Case, sources: SourceFixture, hub: StubHub
) -> None:
    if case.remote:
        assert find_stored(case.text, sources.index, sources.foreign) is None
    stored = sources.pull(case.text)
    assert stored.digest == f"sha256:{sha256(case.data)}"
    assert b"".join(Path(file).read_bytes() for file in stored.files) == case.data
    assert (stored.size, stored.source, stored.in_place) == (len(case.data), case.text, not case.remote)
    assert stored.facts.architecture == "llama"
    asked = len(hub.requests)
    assert sources.pull(case.text) == replace(stored, warnings=())
    assert sources.pull(case.text, offline=True).files == stored.files
    again = find_stored(case.text, sources.index, sources.foreign)
    assert again is not None
    assert (again.digest, again.files, again.revision) == (stored.digest, stored.files, stored.revision)
    assert len(hub.requests) == asked


def test_what_is_not_there_is_not_found(case: Case, sources: SourceFixture) -> None:
    with pytest.raises(NotFound, match="none"):
        sources.pull(case.missing)
    assert find_stored(case.missing, sources.index, sources.foreign) is None


def test_a_wrong_digest_is_refused_with_both(case: Case, sources: SourceFixture) -> None:
    located = expecting(sources.library.locate(case.text), "sha256:" + "0" * 64)
    with pytest.raises(TransferFailed, match=f"changed from sha256:0+ to sha256:{sha256(case.data)}"):
        sources.library.ensure(located, sources.seen.append, lambda: False)
    right = expecting(sources.library.locate(case.text), f"sha256:{sha256(case.data)}")
    assert sources.library.ensure(right, sources.seen.append, lambda: False).facts.layers > 0


def test_a_cancelled_pull_leaves_nothing_under_a_final_name(case: Case, sources: SourceFixture) -> None:
    sources.cancelled = lambda: True
    if case.remote:
        with pytest.raises(MullamaError):
            sources.pull(case.text)
    sources.check_blobs()
    sources.cancelled = lambda: False
    assert sources.pull(case.text).size == len(case.data)


def test_a_cut_is_continued(case: Case, sources: SourceFixture, hub: StubHub) -> None:
    if not case.remote:
        pytest.skip("nothing is fetched")
    located = sources.library.locate(case.text)
    hub.script(str(located.files[0].url).removeprefix(hub.url), Cut(5000))
    before = hub.sent
    assert sources.library.ensure(located, sources.seen.append, lambda: False).size == len(DATA)
    assert hub.sent - before == len(DATA)


def test_a_lock_entry_brings_the_same_bytes_without_asking_what_there_is(
    case: Case, sources: SourceFixture, hub: StubHub, tmp_path: Path
) -> None:
    stored = sources.pull(case.text)
    text = lockfile.render({case.text: stored.lock_entry(for_lock(stored.facts))})
    entry = lockfile.parse(text)[case.text]
    assert entry.digest == stored.digest
    fresh = SourceFixture(tmp_path / "fresh", sources.settings)
    hub.requests.clear()
    again = fresh.pull(case.text, entry)
    assert (again.digest, again.revision) == (stored.digest, stored.revision)
    assert not [asked for asked in hub.requests if "/api/" in asked.path]
    assert find_stored(case.text, fresh.index, fresh.foreign, entry) is not None


def test_an_in_place_file_that_changed_since_it_was_locked_is_refused(sources: SourceFixture) -> None:
    path = sources.root / "m.gguf"
    path.write_bytes(DATA)
    stored = sources.pull(str(path))
    entry = stored.lock_entry(stored.facts)
    path.write_bytes(ggufs.model(layers=3).bytes())
    with pytest.raises(TransferFailed, match=f"changed from {DIGEST}"):
        sources.pull(str(path), entry)
    assert sources.pull(str(path)).facts.layers == 3


def test_a_split_set_is_one_model(sources: SourceFixture, hub: StubHub) -> None:
    parts = ggufs.split(ggufs.model(), 3)
    names = [f"m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repo("org/s", dict(zip(names, parts, strict=True)))
    stored = sources.pull("hf:org/s:Q8_0")
    assert len(stored.files) == 3
    assert stored.digest == set_digest([f"sha256:{sha256(part)}" for part in parts])
    assert stored.size == sum(map(len, parts))
    folder = sources.root / "folder"
    folder.mkdir()
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(part)
    for text in (str(folder), str(folder / names[1])):
        assert sources.pull(text).digest == stored.digest
    (folder / names[2]).unlink()
    with pytest.raises(NotFound, match="one of the 3 parts"):
        sources.pull(str(folder / names[0]))


def test_a_set_that_does_not_fit_as_a_whole_is_refused_before_its_first_byte(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ggufs.split(ggufs.model(), 3)
    names = [f"m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    hub.repo("org/s", dict(zip(names, parts, strict=True)))
    monkeypatch.setattr(Blobs, "free", lambda blobs: max(map(len, parts)) + 1)
    with pytest.raises(Refused, match=r"are needed and .* are free"):
        sources.pull("hf:org/s:Q8_0")
    assert hub.sent == 0
    monkeypatch.undo()
    sources.pull("hf:org/s:Q8_0")
    monkeypatch.setattr(Blobs, "free", lambda blobs: 0)
    assert sources.pull("hf:org/s:Q8_0").files, "what is here needs no room"


def test_a_file_that_must_not_be_loaded_is_refused_after_it_came(sources: SourceFixture, hub: StubHub) -> None:
    bad = ggufs.model().with_key("llama.block_count", ggufs.u32(0)).bytes()
    hub.repo("org/bad", {"b-Q8_0.gguf": bad})
    with pytest.raises(BadWeights, match=r"llama\.block_count is 0"):
        sources.pull("hf:org/bad")
    assert find_stored("hf:org/bad", sources.index, sources.foreign) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: __import__("os").mkfifo(path),
        lambda path: path.write_bytes(b""),
    ],
    ids=["folder", "loop", "pipe", "empty"],
)
def test_what_is_no_regular_file_is_refused_without_waiting(
    sources: SourceFixture, make: Callable[[Path], None]
) -> None:
    path = sources.root / "odd.gguf"
    make(path)
    begun = time.monotonic()
    with pytest.raises(MullamaError):
        sources.pull(str(path))
    assert time.monotonic() - begun < 50, "who opens a pipe for reading waits for ever"


def test_a_folder_with_two_models_asks_which(sources: SourceFixture) -> None:
    folder = sources.root / "two"
    folder.mkdir()
    (folder / "a-Q8_0.gguf").write_bytes(DATA)
    (folder / "b-Q4_0.gguf").write_bytes(DATA)
    with pytest.raises(MullamaError, match="has 2 GGUF files"):
        sources.pull(str(folder))
    (folder / "b-Q4_0.gguf").unlink()
    assert sources.pull(str(folder)).digest == DIGEST


def test_a_link_in_a_circle_beside_a_model_hides_nothing(sources: SourceFixture) -> None:
    folder = sources.root / "linked"
    folder.mkdir()
    (folder / "a-Q8_0.gguf").write_bytes(DATA)
    (folder / "odd.gguf").symlink_to("odd.gguf")
    assert sources.pull(str(folder)).digest == DIGEST
    with pytest.raises(MullamaError, match=r"did you mean a-Q8_0\.gguf"):
        sources.pull(str(folder / "a-Q8_1.gguf"))


def test_a_folder_with_one_model_and_its_companions_is_that_model(sources: SourceFixture) -> None:
    folder = sources.root / "one"
    (folder).mkdir()
    (folder / "m.gguf").write_bytes(DATA)
    (folder / "m-draft-Q4_K_M.gguf").write_bytes(DATA)
    for name, key, value in (
        ("eyes.gguf", "general.architecture", "clip"),
        ("style.gguf", "general.type", "adapter"),
        ("weights-of-tokens.gguf", "general.type", "imatrix"),
    ):
        (folder / name).write_bytes(ggufs.model().with_key(key, ggufs.string(value)).bytes())
    assert sources.pull(str(folder)).files == (str(folder / "m.gguf"),)


def test_a_projector_is_no_model_and_a_model_no_projector(sources: SourceFixture, hub: StubHub) -> None:
    projector = ggufs.File(
        {"general.architecture": ggufs.string("clip")}, {"v.patch_embd.weight": ggufs.Stored((32, 4))}
    ).bytes()
    hub.repo("org/v", {"v-Q8_0.gguf": DATA, "mmproj-v-F16.gguf": projector})
    located = sources.library.locate("hf:org/v", wanted="projector")
    found = sources.library.ensure(located, sources.seen.append, lambda: False, wanted="projector")
    assert (found.facts.role, found.digest) == ("projector", f"sha256:{sha256(projector)}")
    assert sources.pull("hf:org/v").facts.role == "model"
    with pytest.raises(BadWeights, match="is a projector, not weights"):
        sources.pull("hf:org/v:mmproj-v-F16.gguf")


def test_a_hub_that_is_down_is_a_warning_when_the_files_are_here(sources: SourceFixture, hub: StubHub) -> None:
    sources.pull("hf:org/m:Q8_0")
    hub.script("org/m", *[Status(503)] * 9)
    located = sources.library.locate("hf:org/m:Q8_0", refresh=True)
    assert "could not be reached" in located.warnings[0]
    assert sources.library.ensure(located, sources.seen.append, lambda: False).digest == DIGEST
    hub.script("org/n", *[Status(503)] * 9)
    with pytest.raises(Unavailable, match=r"answered 503.*try again later; stored models can be served: hf:org/m:Q8_0"):
        sources.pull("hf:org/n")


def test_a_moving_revision_moves_only_when_asked_to(sources: SourceFixture, hub: StubHub) -> None:
    old = sources.pull("hf:org/m:Q8_0")
    new = ggufs.model(layers=3).bytes()
    hub.repo("org/m", {"m-Q8_0.gguf": new}, commit="f" * 40)
    assert sources.pull("hf:org/m:Q8_0").digest == old.digest
    located = sources.library.locate("hf:org/m:Q8_0", refresh=True)
    moved = sources.library.ensure(located, sources.seen.append, lambda: False)
    assert (moved.revision, moved.digest) == ("f" * 40, f"sha256:{sha256(new)}")
    assert sources.pull("hf:org/m:Q8_0").digest == moved.digest


def test_a_file_without_a_digest_is_held_to_the_first_one_seen(sources: SourceFixture, hub: StubHub) -> None:
    hub.files["/m.gguf"] = DATA
    url = f"{hub.url}/m.gguf"
    stored = sources.pull(url)
    assert f"digest: {DIGEST}" in stored.warnings[0]
    entry = stored.lock_entry(stored.facts)
    hub.files["/m.gguf"] = ggufs.model(layers=3).bytes()
    shutil.rmtree(sources.root / "store")
    with pytest.raises(TransferFailed, match=f"changed.* with {DIGEST} are pinned"):
        SourceFixture(sources.root, sources.settings).pull(url, entry)
    hub.files["/m.gguf"] = bytes(len(DATA))
    with pytest.raises(TransferFailed, match=f"changed from {DIGEST}"):
        SourceFixture(sources.root, sources.settings).pull(url, entry)


def test_offline_says_what_is_missing(sources: SourceFixture) -> None:
    with pytest.raises(Unavailable, match=r"hf:org/m is not on this machine.*no download is stored"):
        sources.pull("hf:org/m", offline=True)
    sources.pull("hf:org/m:Q8_0")
    with pytest.raises(Unavailable, match=r"hf:org/m is not on this machine.*can be served: hf:org/m:Q8_0"):
        sources.pull("hf:org/m", offline=True)


def test_a_store_of_another_tool_is_used_in_place(sources: SourceFixture, hub: StubHub) -> None:
    root = sources.root / "ollama"
    (root / "blobs").mkdir(parents=True)
    blob = root / "blobs" / f"sha256-{sha256(DATA)}"
    blob.write_bytes(DATA)
    owner = SourceFixture(sources.root, sources.settings, Roots(ollama=(str(root),)))
    stored = owner.pull("hf:org/m:Q8_0")
    assert stored.files == (str(blob),)
    assert stored.in_place
    assert hub.asked("m-Q8_0.gguf") == []
    blob.unlink()
    assert find_stored("hf:org/m:Q8_0", owner.index, owner.foreign) is None
    assert not owner.pull("hf:org/m:Q8_0").in_place


def test_what_the_hubs_own_client_fetched_is_used_in_place(sources: SourceFixture, hub: StubHub) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    cache = sources.root / "hub"
    hf_hub_download("org/m", "m-Q8_0.gguf", endpoint=hub.url, cache_dir=cache)
    owner = SourceFixture(sources.root, sources.settings, Roots(huggingface=(str(cache),)))
    hub.requests.clear()
    stored = owner.pull("hf:org/m:Q8_0", offline=True)
    assert (stored.digest, stored.in_place) == (DIGEST, True)
    assert hub.requests == []
    shutil.rmtree(cache)
    assert find_stored("hf:org/m:Q8_0", owner.index, owner.foreign) is None


def test_a_store_that_cannot_be_written_to_does_not_stop_files_in_place(
    sources: SourceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only disk: the tests may run as a user who may write everywhere, so the disk is made to refuse."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    stored = sources.pull("builtin:tiny")
    assert stored.digest == f"sha256:{sha256(TINY)}"
    with pytest.raises(MullamaError, match="Read-only file system"):
        sources.pull("hf:org/m:Q8_0")
    assert not (sources.root / "store").exists()


def test_a_file_of_a_plain_folder_is_recognised_by_its_bytes_and_hashed_once(
    sources: SourceFixture, hub: StubHub
) -> None:
    folder = sources.root / "gguf"
    folder.mkdir()
    (folder / "other.gguf").write_bytes(bytes(len(DATA)))
    (folder / "renamed.gguf").write_bytes(DATA)
    owner = SourceFixture(sources.root, sources.settings, Roots(gguf=(str(folder),)))
    stored = owner.pull("hf:org/m:Q8_0")
    assert stored.files == (str(folder / "renamed.gguf"),)
    assert stored.in_place
    assert hub.asked("m-Q8_0.gguf") == []
    owner.seen.clear()
    assert owner.pull("hf:org/m:Q8_0").files == stored.files
    assert "verifying" not in owner.phases


def test_other_formats_name_a_gguf_twin(sources: SourceFixture, hub: StubHub) -> None:
    hub.repo("org/st", {"model.safetensors": b"x", "config.json": b"{}"})
    with pytest.raises(Unsupported, match=r"safetensors, which llama.cpp cannot run.*look for a GGUF conversion"):
        sources.pull("hf:org/st")
    hub.twins = ["twin/st-GGUF"]
    with pytest.raises(Unsupported, match=r"safetensors, which llama.cpp cannot run.*hf:twin/st-GGUF"):
        sources.pull("hf:org/st")
    for repo, files, word in (
        ("org/m-AWQ", {"model.safetensors": b"x"}, "AWQ"),
        ("org/gptq", {"gptq_model-4bit.safetensors": b"x"}, "GPTQ"),
        ("org/pt", {"pytorch_model.bin": b"x"}, "PyTorch"),
    ):
        hub.repo(repo, files)
        with pytest.raises(Unsupported, match=f"{word}, which"):
            sources.pull(f"hf:{repo}")


def test_twenty_stored_models_are_found_in_a_moment_and_nothing_is_read_again(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither hashed nor parsed: a header with a large vocabulary takes a second."""
    hub.repo("org/many", {f"m{number}-Q8_0.gguf": DATA for number in range(20)})
    texts = [f"hf:org/many:m{number}-Q8_0.gguf" for number in range(20)]
    for source in texts:
        sources.pull(source)
    for path in (sources.root / "store" / "blobs").iterdir():
        os.utime(path, ns=(0, path.stat().st_mtime_ns))  # not looked at for long
    again = SourceFixture(sources.root, sources.settings)
    monkeypatch.setattr(library, "look_into", _not_again)
    monkeypatch.setattr(fetch, "hashed", _not_again)
    with processor_time() as cost:
        assert all(find_stored(source, again.index, again.foreign) for source in texts)
    assert cost.seconds < 3.0
    assert hub.sent == len(DATA)


def _not_again(*_: object) -> None:
    raise AssertionError("this was read before")


def test_a_thousand_fetched_sources_are_listed_in_a_moment(sources: SourceFixture) -> None:
    pinned = (PinnedFile(name="m.gguf", size=5, digest=DIGEST),)
    sources.index.remember_fetched(Fetched(source="hf:org/m0", resolved="x", revision=None, files=pinned))
    with sqlite3.connect(sources.root / "store" / "index.sqlite") as table:
        (row,) = table.execute("SELECT * FROM fetched").fetchall()
        rows = [(f"hf:org/m{number}", *row[1:-1], float(number)) for number in range(1, 1000)]
        table.executemany(f"INSERT INTO fetched VALUES ({','.join('?' * len(row))})", rows)
    table.close()
    with processor_time() as cost:
        listed = sources.index.all_fetched()
    assert cost.seconds < 3.0
    assert [entry.source for entry in listed[:2]] == ["hf:org/m999", "hf:org/m998"]


def test_a_projector_that_is_none_is_refused_with_its_model(sources: SourceFixture, hub: StubHub) -> None:
    hub.model("library/v", "7b", [("model", DATA), ("projector", ggufs.model(layers=1).bytes())])
    with pytest.raises(BadWeights, match="is a model, not projector"):
        sources.pull(f"ollama:{hub.host}/library/v:7b")


def test_an_ollama_model_brings_its_defaults(sources: SourceFixture, hub: StubHub) -> None:
    projector = ggufs.File(
        {"general.architecture": ggufs.string("clip")}, {"v.patch_embd.weight": ggufs.Stored((32, 4))}
    ).bytes()
    hub.model(
        "library/v",
        "7b",
        [
            ("model", DATA), ("projector", projector), ("template", b"{{ .Prompt }}"), ("system", b"Be kind."),
            ("params", json.dumps({"stop": ["x"], "temperature": 0.1}).encode()), ("license", b"MIT License"),
            ("messages", b'[{"role": "user", "content": "Hi"}]'),
        ],
    )  # fmt: skip
    stored = sources.pull(f"ollama:{hub.host}/library/v:7b")
    assert (stored.defaults.template, stored.defaults.system) == ("{{ .Prompt }}", "Be kind.")
    assert stored.defaults.parameters == {"stop": ["x"], "temperature": 0.1}
    assert stored.defaults.messages == (("user", "Hi"),)
    assert stored.license == "MIT License"
    assert stored.projector is not None
    assert Path(stored.projector.path).read_bytes() == projector
    assert (stored.projector.kinds, stored.warnings) == (("image",), ())
    text = sources.library.locate(f"ollama:{hub.host}/library/v:7b", wanted="text")
    assert sources.library.ensure(text, sources.seen.append, lambda: False, wanted="text").projector is None
    again = find_stored(f"ollama:{hub.host}/library/v:7b", sources.index, sources.foreign)
    assert again is not None
    assert again.defaults == stored.defaults


def test_a_folder_with_a_name_that_is_not_utf8_is_a_clear_error(sources: SourceFixture) -> None:
    folder = sources.root / "odd"
    folder.mkdir()
    (folder / "ok.gguf").write_bytes(DATA)
    (folder / os.fsdecode(b"b\xff.gguf")).write_bytes(DATA)
    with pytest.raises(MullamaError, match=r"'b\\udcff.gguf' is not UTF-8"):
        sources.pull(str(folder))
    stores = Foreign(Roots(gguf=(str(folder),)))
    assert [Path(path).name for path, _ in stores.ggufs()] == ["ok.gguf"]
    assert "is not UTF-8" in stores.problems[str(folder)]


def test_a_repository_brings_its_projector_and_text_alone_leaves_it_out(sources: SourceFixture, hub: StubHub) -> None:
    eyes = ggufs.projector(96).bytes()
    hub.repo("org/v", {"v-Q8_0.gguf": DATA, "mmproj-v-F16.gguf": eyes})
    located = sources.library.locate("hf:org/v", wanted="text")
    alone = sources.library.ensure(located, sources.seen.append, lambda: False, wanted="text")
    assert (alone.projector, [file.name for file in alone.pinned]) == (None, ["v-Q8_0.gguf"])
    assert hub.asked("mmproj-v-F16.gguf") == []
    assert sources.library.here("hf:org/v") is None
    stored = sources.pull("hf:org/v")
    assert stored.projector is not None
    assert (stored.projector.digest, stored.projector.size) == (f"sha256:{sha256(eyes)}", len(eyes))
    assert stored.projector.facts == ProjectorFacts(vision=True, width=96)
    assert [file.role for file in stored.pinned] == ["weights", "projector"]
    entry = stored.lock_entry(stored.facts)
    assert lockfile.parse(lockfile.render({"hf:org/v": entry}))["hf:org/v"].projector == stored.projector.facts
    assert find_stored("hf:org/v", sources.index, sources.foreign, entry) == stored
    assert find_stored("hf:org/v", sources.index, sources.foreign, entry, "text").projector is None  # type: ignore[union-attr]


def test_a_projector_beside_a_path_belongs_to_it(sources: SourceFixture) -> None:
    folder = sources.root / "models"
    folder.mkdir()
    (folder / "m-Q8_0.gguf").write_bytes(DATA)
    (folder / "mmproj-m-F16.gguf").write_bytes(ggufs.projector(96, audio=True).bytes())
    for source in (str(folder), str(folder / "m-Q8_0.gguf")):
        stored = find_stored(source, sources.index, sources.foreign)
        assert stored is not None
        assert stored.files == (str(folder / "m-Q8_0.gguf"),)
        assert stored.projector is not None
        assert (stored.projector.path, stored.projector.kinds) == (
            str(folder / "mmproj-m-F16.gguf"),
            ("image", "audio"),
        )
        assert stored.projector.digest.startswith("sha256:")
        assert stored.projector.stamp
    text = find_stored(str(folder), sources.index, sources.foreign, None, "text")
    assert text is not None
    assert text.projector is None
    eyes = find_stored(str(folder / "mmproj-m-F16.gguf"), sources.index, sources.foreign, None, "projector")
    assert eyes is not None
    assert eyes.facts.projector == ProjectorFacts(vision=True, audio=True, width=96)


def test_a_lock_has_the_abilities_of_a_projector_without_its_download(sources: SourceFixture, hub: StubHub) -> None:
    hub.repo("org/v", {"v-Q8_0.gguf": DATA, "mmproj-v-F16.gguf": ggufs.projector(96, audio=True).bytes()})
    facts = ProjectorFacts(vision=True, audio=True, width=96)
    entry, warnings = lock_file.resolve(
        sources.library, sources.settings, "hf:org/v", offline=False, refresh=False, report=sources.seen.append
    )
    assert ([file.role for file in entry.files], entry.projector, warnings) == (["weights", "projector"], facts, ())
    alone, _ = lock_file.resolve(
        sources.library, sources.settings, "hf:org/v:mmproj-v-F16.gguf", offline=False, refresh=False,
        report=sources.seen.append, wanted="projector",
    )  # fmt: skip
    assert alone.facts is not None
    assert alone.facts.projector == facts
    assert sources.seen == []
    known = [pinned(entry).projector, pinned(alone).projector]
    assert [one.facts for one in known if one] == [facts, facts]
    assert [one.size for one in known if one] == [entry.files[1].size] * 2
    stored = sources.pull("hf:org/v", lock=entry)
    assert stored.projector is not None
    assert stored.projector.digest == entry.files[1].digest
