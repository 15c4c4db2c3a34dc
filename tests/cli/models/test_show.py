"""`mullama show` of a model whose files are not here: no line claims a fact of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

Run = Callable[..., Ran]


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("./gone.gguf", "the file is missing or damaged; restore it"),
        ("hf:org/m:Q8_0", "not on this machine; mullama pull or apply downloads it"),
    ],
)
def test_absent_files_have_no_facts_and_a_next_step(run: Run, tmp_path: Path, source: str, path: str) -> None:
    (tmp_path / "mullama.yaml").write_text(
        f"mullama: v1\nserver: {{listen: ['127.0.0.1:0']}}\n"
        f"models: {{m: {{from: '{source}', context: {{size: 64}}}}}}\n"
    )
    ran = run("show", "m")
    shown = dict(line.split(maxsplit=1) for line in ran.out.split("\n\n")[0].splitlines())
    assert (ran.code, shown["Path"], shown["Context"]) == (0, path, "64")
    assert not shown.keys() & {"Embedding", "Vocabulary", "Template", "Size", "Digest"}


def test_a_model_that_is_here_has_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mullama.yaml").write_text(
        "mullama: v1\nserver: {listen: ['127.0.0.1:0']}\nmodels: {m: builtin:tiny}\n"
    )
    out = run("show", "m").out
    assert "Embedding     256\n" in out
    assert "Template      from the weights file\n" in out
