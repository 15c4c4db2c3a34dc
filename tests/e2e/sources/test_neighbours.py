"""Two servers: one has a file, and the other gets it from there."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.stack import Stack, stack_in, tiny_variant
from tests.stub_hub import StubHub

WEIGHTS = tiny_variant(3)
SOURCE = "hf:org/tiny-GGUF:Q8_0"


def test_a_file_comes_from_the_neighbour_that_has_it_with_a_key_for_files(tmp_path: Path, hub: StubHub) -> None:
    hub.repo("org/tiny-GGUF", {"tiny-Q8_0.gguf": WEIGHTS})
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with stack_in(there) as far, stack_in(here) as near:
        far.variables = near.variables = {
            "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "BOX_KEY": "sk-files-of-the-box",
        }  # fmt: skip
        keys = {"box": {"secret": {"from_env": "BOX_KEY"}, "roles": ["files"]}}
        far.write({"t": {"from": SOURCE}}, auth={"keys": keys})
        far.serve()
        far.ready()
        assert origin_of(far) == hub.host

        sent = hub.sent
        peers = {"box": {"url": far.url, "key": {"from_env": "BOX_KEY"}, "share": True}}
        near.write({"t": {"from": SOURCE}}, peers=peers)
        near.apply()
        assert (origin_of(near), hub.sent) == ("peer box", sent)
        assert "t: files from peer box" in near.run("status").stdout
        assert near.run("run", "t", "hi").stdout.strip()


def origin_of(stack: Stack) -> str:
    (model,) = stack.status()["models"]
    origin: str = model["fetched_from"]
    return origin
