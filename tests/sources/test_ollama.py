"""A registry that speaks Ollama's protocol: manifest, anonymous token, hostile answers."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.errors import Denied, MullamaError, NotFound, Unavailable
from tests.sources.source_fixture import DATA, SourceFixture
from tests.stub_hub import Cut, Redirect, Status, StubHub, sha256


def test_an_anonymous_token_is_asked_for_at_the_registry_and_used(sources: SourceFixture, hub: StubHub) -> None:
    hub.model("library/m", "latest", [("model", DATA)])
    hub.realm = f"{hub.url}/token"
    stored = sources.pull(f"ollama:{hub.host}/library/m")
    assert stored.digest == f"sha256:{sha256(DATA)}"
    assert len(hub.asked("/token")) == 1
    assert hub.asked("/token")[0].path == "/token?service=stub&scope=pull"
    entry = stored.lock_entry(stored.facts)
    fresh = SourceFixture(sources.root / "fresh", sources.settings)
    assert fresh.pull(f"ollama:{hub.host}/library/m", entry).digest == stored.digest


def test_a_realm_on_another_host_gets_no_question(sources: SourceFixture, hub: StubHub) -> None:
    hub.model("library/m", "latest", [("model", DATA)])
    with StubHub("127.0.0.2") as other:
        hub.realm = f"{other.url}/token"
        with pytest.raises(Denied, match=f"refers to {other.host} for its tokens"):
            sources.pull(f"ollama:{hub.host}/library/m")
        assert other.requests == []


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"x", b'{"token": 5}', b'{"token": "a\\r\\nX-Evil: 1"}', b'{"token": ""}']
)
def test_a_token_that_is_none_is_refused(sources: SourceFixture, hub: StubHub, body: bytes) -> None:
    hub.realm = f"{hub.url}/token"
    hub.script("/token", Status(200, {}, body))
    with pytest.raises(Denied, match="gave no token"):
        sources.pull(f"ollama:{hub.host}/library/m")


def test_blobs_are_continued_and_redirected_without_the_token(sources: SourceFixture, hub: StubHub) -> None:
    hub.model("library/m", "latest", [("model", DATA)])
    hub.realm = f"{hub.url}/token"
    with StubHub("127.0.0.2") as cdn:
        cdn.files["/blob"] = DATA
        hub.script(sha256(DATA), *[Redirect(f"{cdn.url}/blob", 307)] * 2)
        cdn.script("/blob", Cut(5000))
        assert sources.pull(f"ollama:{hub.host}/library/m").size == len(DATA)
        assert [asked.headers.get("Authorization") for asked in cdn.requests] == [None, None]
        assert cdn.requests[1].headers["Range"] == "bytes=5000-"
    assert cdn.sent == len(DATA)


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        (Status(404), NotFound, "has no model library/m:latest"),
        (Status(403), Denied, "answered 403"),
        (Status(500, {"Retry-After": "0"}), Unavailable, "answered 500"),
        (Status(418), MullamaError, "answered 418"),
        (Status(200, {}, b"nonsense"), MullamaError, "is not JSON"),
        (Status(200, {}, b"{" + b'"a":1,' * 900_000 + b'"b":2}'), MullamaError, "larger than"),
    ],
)
def test_refusals_are_told_in_our_words(
    sources: SourceFixture, hub: StubHub, step: Status, error: type[Exception], words: str
) -> None:
    hub.script("/latest", *[step] * 4)
    with pytest.raises(error, match=words):
        sources.pull(f"ollama:{hub.host}/library/m")


def test_a_layer_that_is_other_than_its_digest_is_never_used(sources: SourceFixture, hub: StubHub) -> None:
    hub.model("library/m", "latest", [("model", DATA), ("system", b"Be kind.")])
    hub.blobs[sha256(b"Be kind.")] = b"Be evil."
    with pytest.raises(MullamaError, match="has the digest"):
        sources.pull(f"ollama:{hub.host}/library/m")
    sources.check_blobs()


def test_a_million_layers_are_refused_by_number(sources: SourceFixture, hub: StubHub) -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + "0" * 64, "size": 1}
    hub.manifests["library/m/latest"] = json.dumps({"schemaVersion": 2, "layers": [layer] * 20_000}).encode()
    with pytest.raises(MullamaError, match="20000 layers"):
        sources.pull(f"ollama:{hub.host}/library/m")


odd = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just([]), st.just({})
)
digests = st.one_of(
    odd,
    st.just(f"sha256:{sha256(DATA)}"),
    st.just("sha256:" + "0" * 64),
    st.sampled_from(["sha256:../../../../outside/x", "sha256-" + "0" * 64, "/etc/passwd", "sha256:" + "A" * 64]),
)
media = st.one_of(
    odd,
    st.sampled_from(["model", "params", "template", "license", "projector", "tensor", "embed", "other"]).map(
        "application/vnd.ollama.image.{}".format
    ),
)
layers = st.one_of(
    odd,
    st.fixed_dictionaries(
        {}, optional={"mediaType": media, "digest": digests, "size": st.one_of(odd, st.just(len(DATA)))}
    ),
)
manifests = st.one_of(
    odd,
    st.fixed_dictionaries(
        {"schemaVersion": st.sampled_from([2, 2, 2, 1, "2", None])},
        optional={"layers": st.one_of(odd, st.lists(layers, max_size=4)), "config": layers, "mediaType": odd},
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(manifests)
def test_no_manifest_of_a_registry_touches_anything_outside_the_store(
    sources: SourceFixture, hub: StubHub, tree: object
) -> None:
    """Whatever it says, the end is weights that are what their digest says, or an error of ours."""
    outside = sources.root / "outside"
    outside.mkdir(exist_ok=True)
    hub.blobs[sha256(DATA)] = DATA
    hub.manifests["library/m/latest"] = json.dumps(tree).encode()

    with contextlib.suppress(MullamaError):
        assert sources.pull(f"ollama:{hub.host}/library/m").digest == f"sha256:{sha256(DATA)}"

    store = sources.root / "store"
    folders = {path.parent for path in sources.root.rglob("*") if path.is_file()}
    assert folders <= {store, store / "blobs", store / "partial", store / "locks"}
    assert list(outside.iterdir()) == []
    sources.check_blobs()
