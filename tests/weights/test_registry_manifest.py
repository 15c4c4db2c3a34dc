"""Registry manifests: understood, or refused with the field that is wrong."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mullama.errors import MullamaError, TransferFailed
from mullama.weights.registry_manifest import read_defaults, read_manifest

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def layer(kind: str = "model", digest: Any = DIGEST, size: Any = 10) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": digest, "size": size}


def manifest(*layers: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "layers": list(layers), **more}).encode()


def test_layers_become_files_with_roles_and_the_manifest_has_a_digest() -> None:
    raw = manifest(layer(), layer("projector", OTHER), layer("params", OTHER.replace("b", "c")), layer("embed"))
    listing = read_manifest(raw, "m")
    assert [(each.role, each.digest) for each in listing.layers][:2] == [("weights", DIGEST), ("projector", OTHER)]
    assert [each.role for each in listing.layers] == ["weights", "projector", "parameters"]
    assert listing.digest == "sha256:" + hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"not json", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "schemaVersion is 'None'"),
        (manifest(), "layers holds 0"),
        (manifest(*[layer()] * 65), "65 layers"),
        (b'{"schemaVersion": 2, "layers": 3}', "no list of layers"),
        (manifest(7), r"layers\[0\] is not an object"),
        (manifest({"digest": DIGEST, "size": 1}), r"layers\[0\].mediaType is 'None'"),
        (manifest(layer("evil")), "vnd.ollama.image.evil"),
        (manifest(layer(digest="sha256:../../etc/passwd")), r"layers\[0\].digest is 'sha256:../../etc"),
        (manifest(layer(digest=DIGEST.upper())), "digest"),
        (manifest(layer(digest=None)), "digest is 'None'"),
        (manifest(layer(digest=[])), "digest"),
        (manifest(layer(size=-1)), "size is '-1'"),
        (manifest(layer(size=2**60)), "size"),
        (manifest(layer(size=True)), "size is 'True'"),
        (manifest(layer(size="10")), "size"),
        (manifest(layer("template", size=2**21), layer()), "but a text may have at most"),
        (manifest(layer(size=1), layer(size=2)), "two sizes"),
        (manifest(layer("system")), "no GGUF weights"),
        (manifest(layer("tensor")), "tensor layer"),
    ],
)
def test_hostile_manifests_are_refused_with_the_field(raw: bytes, words: str) -> None:
    with pytest.raises(MullamaError, match=words):
        read_manifest(raw, "m")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(
    st.fixed_dictionaries(
        {"schemaVersion": st.just(2) | json_values},
        optional={
            "layers": json_values
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "mediaType": st.sampled_from([layer()["mediaType"], layer("params")["mediaType"]])
                        | json_values,
                        "digest": st.just(DIGEST) | json_values,
                        "size": st.integers() | json_values,
                    },
                ),
                max_size=4,
            ),
            "config": json_values,
        },
    )
)
def test_any_manifest_is_understood_or_refused_by_us(tree: Any) -> None:
    try:
        listing = read_manifest(json.dumps(tree).encode(), "m")
    except MullamaError:
        return
    assert all(each.digest.startswith("sha256:") and len(each.digest) == 71 for each in listing.layers)


def test_small_layers_become_defaults() -> None:
    defaults = read_defaults(
        [
            ("weights", b""),
            ("template", b"{{ .Prompt }}"),
            ("system", b"Be brief."),
            ("parameters", b'{"temperature": 0.5, "stop": ["a", "b"]}'),
            ("messages", b'[{"role": "user", "content": "Hi"}]'),
            ("license", b"MIT"),
            ("license", b"more"),
        ],
        "m",
    )
    assert (defaults.template, defaults.system) == ("{{ .Prompt }}", "Be brief.")
    assert defaults.parameters == {"temperature": 0.5, "stop": ["a", "b"]}
    assert defaults.messages == (("user", "Hi"),)
    assert defaults.license == ("MIT", "more")


@pytest.mark.parametrize(
    ("role", "raw", "words"),
    [
        ("system", b"\xff", "system layer of m is not UTF-8"),
        ("parameters", b"[]", "not an object"),
        ("parameters", b"{", "not JSON"),
        ("parameters", b'{"a": {"b": 1}}', "a is"),
        ("messages", b"{}", "not a list"),
        ("messages", b'[{"role": 1}]', r"messages\[0\] lacks role or content"),
    ],
)
def test_wrong_small_layers_are_refused(role: Any, raw: bytes, words: str) -> None:
    with pytest.raises(TransferFailed, match=words):
        read_defaults([(role, raw)], "m")
