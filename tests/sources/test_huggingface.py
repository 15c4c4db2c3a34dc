"""What a hub's repository holds and which of it is meant, through the real library."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.errors import Denied, Invalid, MullamaError, NotFound, TransferFailed, Unavailable
from mullama.names import HubRef
from mullama.sources import huggingface
from mullama.sources.settings import HubSettings
from mullama.struct import replace
from tests import ggufs
from tests.sources.source_fixture import DATA, SourceFixture, source_fixture
from tests.stub_hub import COMMIT, Status, StubHub

UPPER = dict.fromkeys(("M-Q4_K_M.gguf", "M-Q8_0.gguf", "README.md"), DATA) | {
    "mmproj-M-F16.gguf": ggufs.projector().bytes()
}


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("hf:org/u", "M-Q4_K_M.gguf"),
        ("hf:org/u:q8_0", "M-Q8_0.gguf"),
        ("hf:org/u:Q8_0@main", "M-Q8_0.gguf"),
        (f"hf:org/u@{COMMIT}", "M-Q4_K_M.gguf"),
        ("hf:org/u:m-q8_0.gguf", "M-Q8_0.gguf"),
        ("hf.co/org/u:Q8_0", "M-Q8_0.gguf"),
        ("huggingface.co/org/u", "M-Q4_K_M.gguf"),
    ],
)
def test_every_form_of_a_source_names_its_file_at_a_commit(
    sources: SourceFixture, hub: StubHub, source: str, file: str
) -> None:
    hub.repo("org/u", UPPER)
    located = sources.library.locate(source)
    assert [(found.name, found.role) for found in located.files] == [
        (file, "weights"),
        ("mmproj-M-F16.gguf", "projector"),
    ]
    text = sources.library.locate(source, wanted="text")
    assert [found.name for found in text.files] == [file]
    assert (located.revision, located.license) == (COMMIT, "mit")
    assert located.files[0].url == f"{hub.url}/org/u/resolve/{COMMIT}/{file}"


def test_a_branch_becomes_its_commit(sources: SourceFixture, hub: StubHub) -> None:
    hub.repo("org/u", UPPER, revisions={"dev": "d" * 40})
    assert sources.library.locate("hf:org/u@dev").revision == "d" * 40
    with pytest.raises(NotFound, match="has no revision 'nope'"):
        sources.library.locate("hf:org/u@nope")


def test_a_missing_file_says_what_there_is(sources: SourceFixture, hub: StubHub) -> None:
    hub.repo("org/u", UPPER)
    with pytest.raises(NotFound, match=r"no Q6_K file.*it has Q4_K_M, Q8_0"):
        sources.library.locate("hf:org/u:Q6_K")
    with pytest.raises(NotFound, match=r"no file 'M-Q4_KM.gguf'.*M-Q4_K_M.gguf"):
        sources.library.locate("hf:org/u:M-Q4_KM.gguf")


def test_a_missing_repository_says_where_a_token_was_looked_for(sources: SourceFixture) -> None:
    with pytest.raises(NotFound, match=r"no model org/none, or it is private.*no token was found; looked in HF_TOKEN"):
        sources.library.locate("hf:org/none")


def test_a_gated_repository_needs_a_token_and_the_error_says_which_was_looked_at(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/g", UPPER, gated=True)
    with pytest.raises(Denied, match=r"org/g is gated.*no token was found; looked in HF_TOKEN and .*token"):
        sources.library.locate("hf:org/g")
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    assert sources.pull("hf:org/g:Q8_0").size == len(DATA)
    assert hub.asked("M-Q8_0.gguf")[0].headers["Authorization"] == "Bearer hf_abc"


def test_a_token_of_the_manifest_goes_before_the_environment(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("org/g", UPPER, gated=True)
    monkeypatch.setenv("HF_TOKEN", "hf_env")
    sources.settings = replace(sources.settings, hub=replace(sources.settings.hub, token="hf_manifest", token_from="X"))
    sources.library.locate("hf:org/g")
    assert hub.requests[0].headers["Authorization"] == "Bearer hf_manifest"
    assert "hf_manifest" not in repr(sources.settings)


def test_a_refused_token_is_told_with_its_origin(sources: SourceFixture, hub: StubHub) -> None:
    sources.settings = replace(sources.settings, hub=replace(sources.settings.hub, token="bad", token_from="MY_TOKEN"))
    hub.script("org/m", *[Status(403)] * 5)
    with pytest.raises(Denied, match=r"answered 403.*a token was sent; looked in MY_TOKEN"):
        sources.library.locate("hf:org/m")


@pytest.mark.parametrize("code", [429, 500, 503])
def test_questions_are_asked_again_and_then_the_status_is_told(sources: SourceFixture, hub: StubHub, code: int) -> None:
    hub.script("org/m", Status(code, {"Retry-After": "0"}))
    assert sources.library.locate("hf:org/m").revision == COMMIT
    hub.script("org/m", *[Status(code, {"Retry-After": "0"})] * 5)
    with pytest.raises(Unavailable, match=f"answered {code} for org/m"):
        sources.library.locate("hf:org/m")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "cannot be read.*JSONDecodeError"),
        (b"[]", "cannot be read.*TypeError"),
        (b"[" * 200_000, "cannot be read.*RecursionError"),
        (b"{}", "cannot be read|commit ''"),
        (json.dumps({"id": "x", "sha": "../../etc"}).encode(), "commit '../../etc'"),
        (json.dumps({"id": "x", "sha": COMMIT, "siblings": "abc"}).encode(), "cannot be read"),
        (json.dumps({"id": "x", "sha": COMMIT, "siblings": [{"rfilename": "a"}] * 20_001}).encode(), "20001 files"),
    ],
)
def test_answers_that_make_no_sense_are_refused(sources: SourceFixture, hub: StubHub, body: bytes, words: str) -> None:
    hub.script("org/m", Status(200, {}, body))
    with pytest.raises(TransferFailed, match=words):
        sources.library.locate("hf:org/m")


@pytest.mark.parametrize(
    "name",
    ["../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "c:\\x.gguf", "a\\b.gguf", "x\0.gguf", "//h/s.gguf", "a//b.gguf"],
)
def test_hostile_file_names_are_refused(sources: SourceFixture, hub: StubHub, name: str) -> None:
    tree = {"id": "org/m", "sha": COMMIT, "siblings": [{"rfilename": name, "size": 3}]}
    hub.script("org/m", Status(200, {}, json.dumps(tree).encode()))
    with pytest.raises(Invalid, match="not a file name inside a repository"):
        sources.pull("hf:org/m")


def test_pictures_with_odd_names_do_not_spoil_a_repository(sources: SourceFixture, hub: StubHub) -> None:
    hub.repo("org/u", {**UPPER, "what?: a picture.png": b"x"})
    assert sources.library.locate("hf:org/u:Q8_0").files[0].name == "M-Q8_0.gguf"


def test_a_search_gives_names_and_counts_and_leaves_out_what_is_no_name(sources: SourceFixture, hub: StubHub) -> None:
    answer = [
        {"id": "a/b", "downloads": 5, "likes": 2, "gated": "manual", "lastModified": "2025-01-01T00:00:00Z",
         "tags": ["gguf", "license:mit"], "pipeline_tag": "text-generation"},
        {"id": "../../x"}, {"id": 5}, {"id": "c/d", "downloads": "many"}, {"id": "e/f"},
    ]  # fmt: skip
    hub.script("/api/models", Status(200, {}, json.dumps(answer).encode()))
    found = huggingface.search("b", sources.settings, limit=4, every=False)
    assert [(model.name, model.downloads, model.gated) for model in found] == [("a/b", 5, True), ("c/d", 0, False)]
    assert (found[0].updated, found[0].license, found[0].task) == ("2025-01-01T00:00:00.000Z", "mit", "text-generation")
    asked = parse_qs(urlsplit(hub.requests[0].path).query)
    assert {"search": ["b"], "filter": ["gguf"], "sort": ["downloads"], "limit": ["4"]}.items() <= asked.items()
    huggingface.search("b", sources.settings, limit=1, every=True)
    assert "filter" not in parse_qs(urlsplit(hub.requests[1].path).query)


def test_a_search_that_is_refused_or_no_list_is_an_error(sources: SourceFixture, hub: StubHub) -> None:
    hub.script("/api/models", Status(400))
    with pytest.raises(TransferFailed, match="answered 400 for 'b'"):
        huggingface.search("b", sources.settings, limit=1, every=False)
    hub.script("/api/models", Status(200, {}, b'["x"]'))
    with pytest.raises(TransferFailed, match=r"the description of 'b'.* cannot be read"):
        huggingface.search("b", sources.settings, limit=1, every=False)
    hub.script("/api/models", *[Status(503, {"Retry-After": "0"})] * 5)
    with pytest.raises(Unavailable, match="answered 503 for 'b'"):
        huggingface.search("b", sources.settings, limit=1, every=False)
    assert len(hub.requests) == 1 + 1 + 3, "the library repeats no request that was repeated already"


def test_a_repository_lists_its_gguf_files_with_their_sizes(sources: SourceFixture, hub: StubHub) -> None:
    hub.repo("org/u", UPPER)
    found = huggingface.repository(HubRef("org/u"), sources.settings)
    assert found.files == tuple((name, len(data)) for name, data in UPPER.items() if name.endswith(".gguf"))
    assert (found.name, found.license) == ("org/u", "mit")
    with pytest.raises(NotFound, match="no model org/none"):
        huggingface.repository(HubRef("org/none"), sources.settings)


def test_a_token_has_the_name_of_its_user(hub: StubHub) -> None:
    hub.script("/api/whoami-v2", Status(200, {}, b'{"name": "me"}'), Status(401))
    settings = HubSettings(endpoint=hub.url, token="hf_abc", token_from="a test")
    assert huggingface.user(settings) == "me"
    assert hub.requests[0].headers["Authorization"] == "Bearer hf_abc"
    with pytest.raises(Denied, match=r"answered 401 for the token.*looked in a test"):
        huggingface.user(settings)
    with pytest.raises(Denied, match="needs a token"):
        huggingface.user(replace(settings, token=""))


@pytest.mark.parametrize(
    "endpoint", ["http://me:s3cret@127.0.0.1:9", "http://127.0.0.1:9/x?token=s3cret", "http://h#a"]
)
def test_an_address_with_a_secret_is_refused_and_not_shown(endpoint: str) -> None:
    with pytest.raises(Invalid, match="is not the address of a hub") as caught:
        huggingface.user(HubSettings(endpoint=endpoint, token="t"))
    assert "s3cret" not in str(caught.value)


def test_a_token_that_a_mirror_does_not_know_is_named(hub: StubHub) -> None:
    hub.script("whoami-v2", Status(404))
    with pytest.raises(NotFound, match=r"^127\.0\.0\.1:\d+ does not know the token$"):
        huggingface.user(HubSettings(endpoint=hub.url, token="t"))


def test_the_librarys_own_requests_keep_working(sources: SourceFixture, hub: StubHub) -> None:
    """Other code of the process may use the library; its requests have no bounds of ours."""
    from huggingface_hub import HfApi

    sources.library.locate("hf:org/m")
    assert HfApi(endpoint=hub.url, token=False).model_info("org/m").sha == COMMIT


names = st.text(alphabet=st.sampled_from("ab./\\%2f:\0 ~\u202e\ud800C"), min_size=1, max_size=12).map(
    lambda text: text + ".gguf"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(names, max_size=3),
    st.one_of(st.text(max_size=70), st.just("a" * 64), st.none()),
    st.one_of(st.integers(-5, 2**70), st.text(max_size=3), st.none()),
)
def test_no_answer_of_a_hub_touches_anything_outside_the_store(
    tmp_path: Path, hub: StubHub, files: list[str], sha: object, size: object
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "precious").write_bytes(b"precious")
    siblings = [
        {"rfilename": name, "size": size, "lfs": {"sha256": sha, "size": 1, "pointerSize": 1}} for name in files
    ]
    tree = {"id": "org/m", "sha": COMMIT, "siblings": siblings}
    hub.script("org/m", Status(200, {}, json.dumps(tree).encode()))
    sources = source_fixture(tmp_path / "inside", hub)
    with contextlib.suppress(MullamaError):
        sources.pull("hf:org/m")
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_bytes() == b"precious"
    store = tmp_path / "inside" / "store"
    folders = {path.parent for path in (tmp_path / "inside").rglob("*") if path.is_file()}
    assert folders <= {store, store / "blobs", store / "partial", store / "locks"}
    sources.check_blobs()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha256", "../../etc/passwd"), ("sha256", "a" * 63), ("sha256", "A" * 64), ("sha256", 5), ("sha256", ""),
        ("size", "12"), ("size", -1), ("size", 2**60), ("size", True), ("size", 1.5), ("size", [1]),
    ],
)  # fmt: skip
def test_an_odd_digest_or_size_is_refused_and_not_taken_for_an_absent_one(
    sources: SourceFixture, hub: StubHub, field: str, value: object
) -> None:
    lfs = {"sha256": "a" * 64, "size": 1, "pointerSize": 1}
    sibling = {"rfilename": "m-Q8_0.gguf", "size": 1, "lfs": lfs}
    (lfs if field == "sha256" else sibling)[field] = value
    tree = {"id": "org/m", "sha": COMMIT, "siblings": [sibling]}
    hub.script("org/m", Status(200, {}, json.dumps(tree).encode()))
    with pytest.raises(TransferFailed, match=r"(size|digest|cannot be read)"):
        sources.pull("hf:org/m")
    assert not hub.asked("m-Q8_0.gguf")
