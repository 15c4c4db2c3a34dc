"""Reading manifests from the disk: which files, what is refused unread, and what a watcher is told."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mullama.errors import Denied, ManifestError, NotFound
from mullama.manifest.load import Disk, FileRead, LoadedManifest, load, load_text
from tests.manifest.builders import MemoryFiles

PARTS = """\
mullama: v1
include: [parts/*.yaml]
models: {a: {from: x.gguf, template: {file: t.jinja}}}
"""
SMALL = "mullama: v1\nmodels: {a: ./a.gguf}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(path: str, **env: str) -> LoadedManifest:
    return load(path, env=env)


def test_a_manifest_is_read_with_paths_relative_to_itself(folder: Path) -> None:
    write(folder / "sub/m.yaml", SMALL)
    loaded = read("sub/m.yaml")
    assert loaded.manifest.models["a"].from_ == str(folder / "sub/a.gguf")
    assert loaded.path == str(folder / "sub/m.yaml")
    assert str(loaded.places["models.a"]) == "sub/m.yaml:2:10"


def test_a_symlink_to_a_manifest_is_followed_but_paths_stay_beside_the_link(folder: Path) -> None:
    """A mounted ConfigMap is a chain of symlinks; what it names lies beside the name that was given."""
    write(folder / "data/v1/m.yaml", SMALL)
    (folder / "m.yaml").symlink_to("data/v1/m.yaml")
    assert read("m.yaml").manifest.models["a"].from_ == str(folder / "a.gguf")


def test_every_file_that_was_read_is_listed_with_its_digest(folder: Path) -> None:
    write(folder / "m.yaml", PARTS)
    write(folder / "parts/b.yaml", "models: {b: x.gguf}\n")
    write(folder / "t.jinja", "{{ x }}")
    loaded = read("m.yaml")
    assert [file.path for file in loaded.files] == [str(folder / p) for p in ("m.yaml", "parts/b.yaml", "t.jinja")]
    sha256 = "e52c737297f7dad622da7e58f5a16e7437f2716daccb4da859fc567ccd75c9a4"
    assert loaded.files[2] == FileRead(path=str(folder / "t.jinja"), sha256=sha256)
    assert set(loaded.folders) == {str(folder), str(folder / "parts")}


def test_the_digest_changes_with_any_byte_of_any_file(folder: Path) -> None:
    write(folder / "m.yaml", PARTS)
    parts = [write(folder / "parts/b.yaml", "models: {b: x.gguf}\n"), write(folder / "t.jinja", "{{ x }}")]
    seen = [read("m.yaml").digest]
    assert read("m.yaml").digest == seen[0]
    for path in (*parts, folder / "m.yaml"):
        path.write_text(path.read_text() + "# more\n")
        seen.append(read("m.yaml").digest)
    write(folder / "parts/c.yaml", "models: {c: x.gguf}\n")
    seen.append(read("m.yaml").digest)
    assert len(set(seen)) == len(seen)


def test_a_manifest_that_is_not_there_is_not_found_and_named() -> None:
    with pytest.raises(NotFound, match=r"there is no manifest nope/m\.yaml .*mullama init"):
        read("nope/m.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_manifest_that_may_not_be_read_is_denied(folder: Path) -> None:
    write(folder / "m.yaml", SMALL).chmod(0)
    with pytest.raises(Denied, match=r"m\.yaml is not readable"):
        read("m.yaml")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


def unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # a regular file whose first page is none


def weights(path: Path) -> None:
    path.write_bytes(b"GGUF" + bytes(8))


ODD = {
    weights: "holds weights, not a text (name it as a model: mullama run ./FILE.gguf)",
    fifo: "is not a regular file",
    directory: "is not a regular file",
    unix_socket: "is not a regular file",
    device: "is not a regular file",
    huge: "is larger than 1 MiB (split it with include)",
    unreadable: "cannot be read: Input/output error",
}


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_small_regular_file_is_refused_at_once(folder: Path, make: object) -> None:
    """Nobody writes to the pipe: reading it would wait for ever."""
    make(folder / "m.yaml")  # type: ignore[operator]
    with pytest.raises(ManifestError) as caught:
        read("m.yaml")
    assert str(caught.value).startswith("m.yaml:1:1: m.yaml ")
    assert ODD[make] in str(caught.value)  # type: ignore[index]


@pytest.mark.parametrize("make", [fifo, directory, device, unreadable])
def test_an_included_file_and_a_template_are_read_with_the_same_care(folder: Path, make: object) -> None:
    make(folder / "odd")  # type: ignore[operator]
    write(folder / "m.yaml", "mullama: v1\ninclude: [odd]\nmodels: {a: {from: x.gguf, template: {file: odd}}}\n")
    with pytest.raises(ManifestError) as caught:
        read("m.yaml")
    assert [str(problem.place) for problem in caught.value.problems] == ["m.yaml:2:11", "m.yaml:3:45"]


def test_a_loop_of_symlinks_is_an_error_and_no_hang(folder: Path) -> None:
    (folder / "m.yaml").symlink_to("m.yaml")
    with pytest.raises(ManifestError, match="cannot be read"):
        read("m.yaml")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\xfe", "m.yaml:2:45: models.a.template.file: .*t is not UTF-8"),
        (b"", "models.a.template.file: t is empty"),
        (b"  \n", "t is empty"),
    ],
)
def test_a_template_file_must_hold_text(folder: Path, data: bytes, expected: str) -> None:
    (folder / "t").write_bytes(data)
    write(folder / "m.yaml", "mullama: v1\nmodels: {a: {from: x.gguf, template: {file: t}}}\n")
    with pytest.raises(ManifestError, match=expected):
        read("m.yaml")


def test_a_template_that_many_models_share_is_read_once() -> None:
    files = MemoryFiles({"t": "{{ x }}"})
    text = "mullama: v1\ndefaults: {template: {file: ./t}}\nmodels: {a: x.gguf, b: x.gguf, c: x.gguf}\n"
    loaded = load_text(text, name="m.yaml", base_dir="/srv/app", env={}, files=files)
    assert [model.template.text for model in loaded.manifest.models.values() if model.template] == ["{{ x }}"] * 3
    assert files.reads == ["/srv/app/t"]


def test_text_from_elsewhere_has_no_path_and_reads_only_from_the_given_files(folder: Path) -> None:
    """A revision of a repository, or standard input."""
    write(folder / "t", "from the disk")
    files = MemoryFiles({"t": "from the revision"})
    text = b"mullama: v1\nmodels: {a: {from: ./x.gguf, template: {file: t}}}\n"
    loaded = load_text(text, name="main:m.yaml", base_dir="/srv/app", env={}, files=files)
    assert loaded.path is None
    template = loaded.manifest.models["a"].template
    assert template is not None
    assert template.text == "from the revision"
    assert str(loaded.places["models.a"]) == "main:m.yaml:2:10"


def test_standard_input_reads_its_templates_from_the_disk(folder: Path) -> None:
    write(folder / "t", "{{ x }}")
    text = "mullama: v1\nmodels: {a: {from: x.gguf, template: {file: t}}}\n"
    loaded = load_text(text, name="<stdin>", base_dir=str(folder), env={})
    assert [file.path for file in loaded.files] == [str(folder / "<stdin>"), str(folder / "t")]


def test_the_disk_names_what_a_folder_holds(folder: Path) -> None:
    write(folder / "a", "")
    assert list(Disk().names(str(folder))) == ["a"]
    with pytest.raises(NotFound):
        Disk().names(str(folder / "nope"))


def test_mistakes_of_several_files_are_all_said(folder: Path) -> None:
    write(folder / "m.yaml", "mullama: v1\ninclude: [a.yaml, b.yaml]\nsync: {wach: 1}\n")
    write(folder / "a.yaml", "models: {a: {}}\n")
    write(folder / "b.yaml", "models: [\n")
    with pytest.raises(ManifestError) as caught:
        read("m.yaml")
    assert [str(problem.place) for problem in caught.value.problems] == ["a.yaml:1:10", "b.yaml:1:9", "m.yaml:3:8"]
