"""bundle import of damaged archives: an error with the place and the exit code 4 or 5, nothing outside the folder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

Run = Callable[..., Ran]

BLOB = b"weights" * 100
DIGEST = hashlib.sha256(BLOB).hexdigest()
MANIFEST = b"mullama: v1\nmodels: {m: 'hf:org/m:Q8_0'}\n"
LOCK = json.dumps(
    {
        "mullama.lock": 1,
        "sources": {
            "hf:org/m:Q8_0": {
                "resolved": f"hf:org/m:m-Q8_0.gguf@{'a' * 40}", "revision": "a" * 40,
                "files": [{"name": "m-Q8_0.gguf", "size": len(BLOB), "digest": f"sha256:{DIGEST}", "role": "weights"}],
            }
        },
    }
).encode()  # fmt: skip
HEAD = json.dumps({"format": "mullama.bundle/1", "files": [f"sha256:{DIGEST}"]}).encode()
MEMBERS = {
    "mullama.bundle.json": HEAD, "mullama.yaml": MANIFEST, "mullama.lock": LOCK, f"blobs/sha256-{DIGEST}": BLOB,
}  # fmt: skip


def _archive(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


GOOD = _archive(MEMBERS)


def _with(name: str, data: bytes) -> bytes:
    return _archive({**MEMBERS, name: data})


DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "first header"),
    "no archive": (b"x" * 4000, "first header"),
    "another compression": (b"\x1f\x8b\x08" + b"\x00" * 600, "first header"),
    "cut in a header": (GOOD[:700], "mullama.bundle.json"),
    "cut in a member": (GOOD[: GOOD.index(BLOB) + 100], "blobs/sha256"),
    "a header of noise": (GOOD[:1024] + b"\xff" * 512 + GOOD[1536:], "mullama.yaml"),
    "head is no JSON": (_with("mullama.bundle.json", b"{"), "mullama.bundle.json"),
    "head is not UTF-8": (_with("mullama.bundle.json", b"\xff"), "mullama.bundle.json"),
    "head is a list": (_with("mullama.bundle.json", b"[]"), "unknown format"),
    "head lists a number": (_with("mullama.bundle.json", HEAD.replace(b'["sha', b'[1, "sha')), "mullama.bundle.json"),
    "head has no list": (_with("mullama.bundle.json", b'{"format":"mullama.bundle/1"}'), "mullama.bundle.json"),
    "head is deep": (_with("mullama.bundle.json", b"[" * 200_000), "mullama.bundle.json"),
    "lock is no JSON": (_with("mullama.lock", b"{"), "mullama.lock"),
    "lock is not UTF-8": (_with("mullama.lock", b"\xff"), "mullama.lock"),
    "lock is deep": (_with("mullama.lock", b"[" * 200_000), "mullama.lock"),
    "lock has an odd entry": (_with("mullama.lock", b'{"mullama.lock": 1, "sources": {"hf:o/m": 5}}'), "mullama.lock"),
    "manifest is not UTF-8": (_with("mullama.yaml", b"\xff"), "mullama.yaml"),
    "a wrong blob": (_with(f"blobs/sha256-{'0' * 64}", BLOB), f"blobs/sha256-{'0' * 64}"),
    "no blob": (_archive({k: v for k, v in MEMBERS.items() if not k.startswith("blobs")}), DIGEST),
    "no lock": (_archive({k: v for k, v in MEMBERS.items() if k != "mullama.lock"}), "mullama.lock"),
}


@pytest.mark.parametrize(("data", "place"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_archive_is_named_with_the_place(run: Run, tmp_path: Path, data: bytes, place: str) -> None:
    (tmp_path / "b.tar").write_bytes(data)
    ran = run("bundle", "import", "b.tar", "--into", "out")
    assert ran.code in (4, 5), ran.err
    assert place in ran.err
    assert "a fault in mullama" not in ran.err
    assert not (tmp_path / "out").exists()


def test_every_flipped_byte_of_the_headers_is_an_error_or_does_no_harm(run: Run, tmp_path: Path) -> None:
    for place in (*range(0, 512, 37), *range(1024, 1536, 41)):
        data = bytearray(GOOD)
        data[place] ^= 0xFF
        (tmp_path / "b.tar").write_bytes(data)
        ran = run("bundle", "import", "b.tar", "--into", "out", "--force")
        assert ran.code in (0, 4, 5), (place, ran.err)


def test_a_whole_archive_is_imported_and_a_missing_one_is_not_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(GOOD)
    assert run("bundle", "import", "b.tar", "--into", "out").code == 0
    assert (tmp_path / "out" / "mullama.yaml").read_bytes() == MANIFEST
    assert run("bundle", "import", "none.tar").code == 3
