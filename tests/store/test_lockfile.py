"""The lock file: the same lock is the same text, and every mistake is named."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.store.lockfile import parse, parse_tools, render
from mullama.weights.inspect import inspect
from mullama.weights.memory import ContextShape, WeightsPlacement, need
from mullama.weights.record import for_lock
from mullama.weights.stored import LockEntry, PinnedFile, set_digest
from tests import ggufs

FACTS = inspect([ggufs.reader(ggufs.model().bytes())])
FILES = (
    PinnedFile(name="m.gguf", size=5, digest="sha256:" + "a" * 64),
    PinnedFile(name="mmproj.gguf", size=6, digest="sha256:" + "b" * 64, role="projector"),
)
HUB = LockEntry(
    source="hf:org/m:Q8_0", resolved="hf:org/m:m.gguf@" + "c" * 40, revision="c" * 40, files=FILES,
    facts=for_lock(FACTS), license="mit",
)  # fmt: skip
PLAIN = LockEntry(source="https://x.org/m.gguf", resolved="https://x.org/m.gguf", revision=None, files=FILES[:1])


def test_a_lock_comes_back_as_it_was() -> None:
    lock = {entry.source: entry for entry in (HUB, PLAIN)}
    assert parse(render(lock)) == lock
    assert render(parse(render(lock))) == render(lock)


def test_the_order_of_entries_does_not_matter() -> None:
    there, back = {HUB.source: HUB, PLAIN.source: PLAIN}, {PLAIN.source: PLAIN, HUB.source: HUB}
    assert render(there) == render(back)
    assert render({}).endswith("}\n")


def test_memory_can_be_counted_from_the_lock_alone() -> None:
    facts = parse(render({HUB.source: HUB}))[HUB.source].facts
    assert facts is not None
    contexts = (ContextShape(size=2048, parallel=4),)
    assert need(facts, WeightsPlacement(), contexts) == need(FACTS, WeightsPlacement(), contexts)


def test_the_digest_of_an_entry_is_that_of_its_weights() -> None:
    assert HUB.digest == FILES[0].digest
    both = set_digest([file.digest for file in FILES])
    assert both.startswith("sha256:")
    assert both not in {file.digest for file in FILES}
    assert set_digest([FILES[0].digest, ""]) == ""


def changed(**fields: Any) -> str:
    tree = json.loads(render({HUB.source: HUB}))
    tree["sources"][HUB.source].update(fields)
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("[]", "format None"),
        ('{"mullama.lock": 9}', "format 9"),
        ('{"mullama.lock": 1, "mullama.lock": 1}', "there twice"),
        ('{"mullama.lock": 1, "x": 1}', "unknown field 'x'"),
        ('{"mullama.lock": 1, "sources": []}', "sources is not an object"),
        ('{"mullama.lock": 1, "sources": {"hf:org/m": 3}}', "hf:org/m: Expected `object`, got `int`"),
        ('{"mullama.lock": 1, "sources": {"hf:../m": {}}}', "does not name a repository"),
        (changed(revision="main"), "revision is 'main'"),
        (changed(files=[]), "files holds no files"),
        (changed(files=[{"name": "x", "size": -1, "digest": "sha256:" + "a" * 64}]), r"files\[0\].size is -1"),
        (changed(files=[{"name": "x", "size": 1, "digest": "sha256:../../x"}]), "is not a digest"),
        (
            changed(files=[{"name": "x", "size": 1, "digest": "sha256:" + "a" * 64, "role": "boss"}]),
            r"files\[0\].role: Invalid enum value 'boss'",
        ),
        (changed(files=[{"name": "", "size": 1, "digest": "sha256:" + "a" * 64}]), "name is ''"),
        (changed(resolved=None), "hf:org/m:Q8_0.resolved: Expected `str`, got `null`"),
        (changed(resolved="hf:nothing"), "does not name a repository"),
        (changed(facts={"layers": "x"}), "facts"),
        (changed(more=1), "unknown field 'more'"),
        (changed(license=5), "license: Expected `str`, got `int`"),
    ],
)
def test_a_wrong_lock_is_refused_with_entry_and_field(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["mullama.lock", "sources", "hf:org/m", "files", "facts", "name", "size", "digest", "resolved", "revision"]
    ), inner, max_size=6)), max_leaves=25))  # fmt: skip
def test_any_json_is_a_lock_or_our_error(tree: Any) -> None:
    for text in (json.dumps(tree), json.dumps({"mullama.lock": 1, "sources": {"hf:org/m": tree}})):
        try:
            assert isinstance(parse(text), dict)
        except Invalid as error:
            assert error.message  # noqa: PT017 - both ways are right


TOOLS = {"docs": {"search": "sha256:" + "a" * 64, "read": "sha256:" + "b" * 64}}


def test_the_tools_of_servers_are_pinned_beside_the_files() -> None:
    text = render({}, None, TOOLS)
    assert parse_tools(text) == TOOLS
    assert parse(text) == {}
    assert text == render({}, None, {"docs": dict(reversed(TOOLS["docs"].items()))})
    assert "tools" not in render({})


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([], "mullama.lock: tools is not an object"),
        ({"docs": []}, "mullama.lock: tools.docs is not a map of tools and digests"),
        ({"docs": {"a": 1}}, "mullama.lock: tools.docs is not a map of tools and digests"),
        ({"docs": {"a": "md5:1"}}, "md5:1"),
    ],
)
def test_pins_of_tools_that_cannot_be_read_are_refused(tools: object, message: str) -> None:
    text = json.dumps({"mullama.lock": 1, "sources": {}, "tools": tools})
    with pytest.raises(Invalid, match=re.escape(message)):
        parse_tools(text)
