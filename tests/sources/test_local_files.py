"""Files that lie here, looked into before anything native sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.errors import BadWeights, NotFound
from mullama.names import PathRef
from mullama.sources.file import PathSource
from mullama.sources.local_files import check_adapter, look_into
from mullama.struct import replace
from tests import ggufs

ADAPTER = ggufs.adapter()


def test_an_adapter_for_the_weights_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(ADAPTER.bytes())
    (tmp_path / "m.gguf").write_bytes(ggufs.model().bytes())

    weights = (str(tmp_path / "m.gguf"),)
    check_adapter(str(tmp_path / "a.gguf"), weights, look_into(weights))
    check_adapter(str(tmp_path / "a.gguf"), (), None)


def test_an_adapter_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"the adapter .*a\.gguf does not exist"):
        check_adapter(str(tmp_path / "a.gguf"), (), None)


def test_a_link_to_nothing_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.symlink_to("gone.gguf")
    with pytest.raises(NotFound, match=r"m\.gguf is a link to gone\.gguf, which does not exist") as caught:
        PathSource().locate(PathRef(str(path)), lambda: False)
    assert caught.value.hint == ""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"GGUF", "a.gguf"),
        (ggufs.model().bytes(), "is not an adapter: it contains a model"),
        (
            ADAPTER.with_key("general.architecture", ggufs.string("qwen2")).bytes(),
            "is for qwen2, the weights are llama",
        ),
        (
            ADAPTER.with_tensor("blk.0.attn_q.weight.lora_a", ggufs.Stored((32, 4))).bytes(),
            r"a.gguf does not fit .*m.gguf: blk.0.attn_q.weight is 32 x 64, the weights have 64 x 64",
        ),
        (
            ggufs.adapter(**{"adapter.alora.invocation_tokens": ggufs.ints([1, 2])}).bytes(),
            "a.gguf is an activated LoRA",
        ),
        (ggufs.adapter(**{"adapter.type": ggufs.string("ia3")}).bytes(), "adapter.type is 'ia3'"),
    ],
)
def test_what_is_no_adapter_for_the_weights_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(data)
    (tmp_path / "m.gguf").write_bytes(ggufs.model().bytes())
    weights = (str(tmp_path / "m.gguf"),)
    base = replace(look_into(weights), tensors=())

    with pytest.raises(BadWeights, match=says):
        check_adapter(str(tmp_path / "a.gguf"), weights, base)
