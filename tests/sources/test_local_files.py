"""Files that lie here, looked into before anything native sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mullama.errors import BadWeights, NotFound
from mullama.sources.local_files import check_adapter, look_into
from tests import ggufs

ADAPTER = ggufs.File(
    keys={
        "general.architecture": ggufs.string("llama"),
        "general.type": ggufs.string("adapter"),
        "adapter.type": ggufs.string("lora"),
        "adapter.lora.alpha": ggufs.f32(8.0),
    },
    tensors={"blk.0.attn_q.weight.lora_a": ggufs.Stored((64, 4)), "blk.0.attn_q.weight.lora_b": ggufs.Stored((4, 64))},
)
OTHER = ADAPTER.with_key("general.architecture", ggufs.string("qwen2"))


def test_an_adapter_for_the_weights_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(ADAPTER.bytes())
    (tmp_path / "m.gguf").write_bytes(ggufs.model().bytes())

    check_adapter(str(tmp_path / "a.gguf"), look_into((str(tmp_path / "m.gguf"),)))
    check_adapter(str(tmp_path / "a.gguf"), None)


def test_an_adapter_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"the adapter .*a\.gguf does not exist"):
        check_adapter(str(tmp_path / "a.gguf"), None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GGUF", "a.gguf"),
        (ggufs.model().bytes(), "is not an adapter: it contains a model"),
        (
            ADAPTER.with_key("general.architecture", ggufs.string("qwen2")).bytes(),
            "is for qwen2, the weights are llama",
        ),
    ],
)
def test_what_is_no_adapter_for_the_weights_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(data)
    (tmp_path / "m.gguf").write_bytes(ggufs.model().bytes())
    base = replace(look_into((str(tmp_path / "m.gguf"),)), tensors=())

    with pytest.raises(BadWeights, match=says):
        check_adapter(str(tmp_path / "a.gguf"), base)
