"""`mullama quantize` with an importance matrix, on the built-in model."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from mullama.sources.local_files import look_into
from tests.cli.conftest import Ran
from tests.e2e.stack import TINY

Run = Callable[..., Ran]


def matrix(values: dict[str, int]) -> bytes:
    """Return an importance matrix of the older form, with so many rising values for each tensor."""
    data = struct.pack("<i", len(values))
    for name, count in values.items():
        text = name.encode()
        data += struct.pack("<i", len(text)) + text + struct.pack("<ii", 1, count)
        data += struct.pack(f"<{count}f", *(1.0 + number for number in range(count)))
    return data + struct.pack("<ii", 4, 8) + b"wiki.txt"


@pytest.fixture(scope="module")
def columns() -> dict[str, int]:
    """The columns of the built-in model's matrices."""
    facts = look_into((str(TINY),))
    return {t.name: t.shape[0] for t in facts.tensors if t.name.startswith("blk.0.ffn") and len(t.shape) == 2}


def test_an_importance_matrix_changes_the_weights_and_is_named_in_file_and_card(
    run: Run, tmp_path: Path, columns: dict[str, int]
) -> None:
    (tmp_path / "m.dat").write_bytes(matrix(columns))
    common = ("quantize", "builtin:tiny", "Q4_0", "--requantize")
    plain = run(*common, "-o", "plain.gguf", "--no-card")
    assert (plain.code, plain.err) == (0, "")
    assert not (tmp_path / "README.md").exists()
    weighed = run(*common, "-o", "weighed.gguf", "--imatrix", "m.dat")
    assert (weighed.code, weighed.err) == (0, "")

    facts = look_into((str(tmp_path / "weighed.gguf"),))
    noted = {key: value for key, value in facts.metadata.items() if key.startswith("quantize.imatrix.")}
    assert noted == {
        "quantize.imatrix.file": "m.dat", "quantize.imatrix.dataset": "wiki.txt",
        "quantize.imatrix.entries_count": len(columns), "quantize.imatrix.chunks_count": 4,
    }  # fmt: skip
    bare = look_into((str(tmp_path / "plain.gguf"),))
    changed = []
    for one, other in zip(facts.tensors, bare.tensors, strict=True):
        first, second = (tmp_path / "weighed.gguf").read_bytes(), (tmp_path / "plain.gguf").read_bytes()
        if first[one.offset : one.offset + one.bytes] != second[other.offset : other.offset + other.bytes]:
            changed.append(one.name)
    assert set(changed) <= set(columns)
    assert changed
    assert "| [weighed.gguf](./weighed.gguf) | Q4_0 | " in (tmp_path / "README.md").read_text()
    assert "m.dat |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"noise" * 100, "m.dat: the importance matrix cannot be read"),
        (matrix({"blk.0.ffn_up.weight": 3}), "blk.0.ffn_up.weight has 3 values"),
        (matrix({"blk.77.ffn_up.weight": 3}), "blk.77.ffn_up.weight, which the model does not have"),
        (None, "m.dat does not exist"),
    ],
    ids=["noise", "length", "name", "none"],
)
def test_a_matrix_that_does_not_fit_is_refused_and_nothing_is_written(
    run: Run, tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "m.dat").write_bytes(content)
    ran = run("quantize", "builtin:tiny", "Q4_0", "--requantize", "-o", "x.gguf", "--imatrix", "m.dat")
    assert ran.code != 0
    assert message in ran.err
    assert not (tmp_path / "x.gguf").exists()


def test_a_type_that_needs_a_matrix_says_so(run: Run, tmp_path: Path) -> None:
    ran = run("quantize", "builtin:tiny", "IQ2_XXS", "--requantize", "-o", "x.gguf")
    assert ran.code == 4
    assert "IQ2_XXS needs an importance matrix" in ran.err
    assert "--imatrix FILE" in ran.err
