"""Short names: the package's table, suffixes, the user's own table, near names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.errors import Invalid, NotFound, Unavailable
from mullama.names import HubRef, RegistryRef, parse_source
from mullama.sources.aliases import aliases, expand, read_table, unknown
from mullama.sources.library import Library
from mullama.weights.choose import PREFERENCE, SUFFIXES
from tests.sources.source_fixture import DATA, SourceFixture
from tests.stub_hub import StubHub

TABLE = aliases({"HOME": "/nonexistent"})


def test_every_entry_of_the_package_is_whole_and_names_a_quantisation_or_a_file() -> None:
    assert len(TABLE) >= 45
    for name, alias in TABLE.items():
        expanded = expand(parse_source(name), TABLE)
        assert not expanded.guessed
        assert alias.description
        assert alias.tags
        if not alias.repo:
            continue
        assert isinstance(expanded.ref, HubRef)
        assert bool(alias.file) != bool(alias.quant)
        assert alias.quant in ("", *PREFERENCE)
        assert ("vision" in alias.tags) == bool(alias.mmproj)


@pytest.mark.parametrize(
    ("name", "ref", "quants"),
    [
        ("llama3.2:1b", HubRef("bartowski/Llama-3.2-1B-Instruct-GGUF", None, "Q4_K_M"), ()),
        ("LLAMA3.2:1B", HubRef("bartowski/Llama-3.2-1B-Instruct-GGUF", None, "Q4_K_M"), ()),
        ("llama3.2:1b-q8", HubRef("bartowski/Llama-3.2-1B-Instruct-GGUF"), ("Q8_0",)),
        ("llama3.2:1b-q4", HubRef("bartowski/Llama-3.2-1B-Instruct-GGUF"), SUFFIXES["q4"]),
        ("llama3.2:1b-iq4_xs", HubRef("bartowski/Llama-3.2-1B-Instruct-GGUF"), ("IQ4_XS",)),
        ("phi3:mini", HubRef("microsoft/Phi-3-mini-4k-instruct-gguf", "Phi-3-mini-4k-instruct-q4.gguf"), ()),
        ("qwen2.5:7b-instruct", HubRef("bartowski/Qwen2.5-7B-Instruct-GGUF", None, "Q4_K_M"), ()),
    ],
)
def test_names_and_suffixes_stand_for_repositories(name: str, ref: HubRef, quants: tuple[str, ...]) -> None:
    expanded = expand(parse_source(name), TABLE)
    assert (expanded.ref, expanded.quants) == (ref, quants)


def library(model: str, tag: str = "latest", namespace: str = "library") -> RegistryRef:
    return RegistryRef("registry.ollama.ai", namespace, model, tag)


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("llama3.2", HubRef("bartowski/Llama-3.2-3B-Instruct-GGUF", None, "Q4_K_M")),
        ("Llama3.2:latest", HubRef("bartowski/Llama-3.2-3B-Instruct-GGUF", None, "Q4_K_M")),
        ("library/llama3.2", HubRef("bartowski/Llama-3.2-3B-Instruct-GGUF", None, "Q4_K_M")),
        ("registry.ollama.ai/library/llama3.2:latest", HubRef("bartowski/Llama-3.2-3B-Instruct-GGUF", None, "Q4_K_M")),
        ("llama3.1", HubRef("bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", None, "Q4_K_M")),
        ("mistral", HubRef("TheBloke/Mistral-7B-Instruct-v0.2-GGUF", None, "Q4_K_M")),
        ("qwen3", HubRef("Qwen/Qwen3-8B-GGUF", None, "Q4_K_M")),
        ("gemma3", HubRef("ggml-org/gemma-3-4b-it-GGUF", None, "Q4_K_M")),
        ("phi3", HubRef("microsoft/Phi-3-mini-4k-instruct-gguf", "Phi-3-mini-4k-instruct-q4.gguf")),
        ("gpt-oss", HubRef("ggml-org/gpt-oss-20b-GGUF", None, "MXFP4")),
        ("nomic-embed-text", HubRef("nomic-ai/nomic-embed-text-v1.5-GGUF", None, "F16")),
        ("gemma", library("gemma")),
        ("granite4", library("granite4")),
        ("command-r:latest", library("command-r")),
    ],
)
def test_a_bare_family_means_its_default_tag(name: str, ref: HubRef | RegistryRef) -> None:
    expanded = expand(parse_source(name), TABLE)
    assert (expanded.ref, expanded.quants, expanded.guessed) == (ref, (), False)


def test_a_bare_family_takes_a_suffix_where_a_repository_holds_it() -> None:
    expanded = expand(parse_source("llama3.2-q8"), TABLE)
    assert (expanded.ref, expanded.quants) == (HubRef("bartowski/Llama-3.2-3B-Instruct-GGUF"), ("Q8_0",))
    with pytest.raises(Invalid, match="gemma stands for ollama:gemma"):
        expand(parse_source("gemma-q8"), TABLE)


FAMILIES = [
    "llama3.2",
    "llama3.1",
    "llama3",
    "llama2",
    "llama3.3",
    "mistral",
    "mistral-nemo",
    "mistral-small",
    "mistral-large",
    "mixtral",
    "qwen2.5",
    "qwen2.5-coder",
    "qwen3",
    "qwen3-coder",
    "qwq",
    "qwen2",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3n",
    "codegemma",
    "phi",
    "phi3",
    "phi3.5",
    "phi4",
    "phi4-mini",
    "deepseek-r1",
    "deepseek-v3",
    "deepseek-coder",
    "deepseek-coder-v2",
    "codellama",
    "codestral",
    "starcoder2",
    "granite3.1-dense",
    "granite3.2",
    "granite3.3",
    "granite4",
    "smollm",
    "smollm2",
    "tinyllama",
    "olmo2",
    "command-r",
    "command-r-plus",
    "aya",
    "aya-expanse",
    "nomic-embed-text",
    "mxbai-embed-large",
    "all-minilm",
    "bge-m3",
    "snowflake-arctic-embed",
    "embeddinggemma",
    "gpt-oss",
    "llava",
    "moondream",
    "minicpm-v",
    "falcon3",
    "hermes3",
    "dolphin3",
    "dolphin-mistral",
    "dolphin-mixtral",
    "dolphin-llama3",
    "stable-code",
    "yi",
    "solar",
    "vicuna",
    "orca-mini",
    "zephyr",
    "openchat",
    "neural-chat",
    "wizardlm2",
    "nous-hermes2",
    "everythinglm",
    "magistral",
    "devstral",
    "cogito",
    "exaone3.5",
    "exaone-deep",
    "glm4",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_has_the_families_of_ollamas_library(family: str) -> None:
    bare, latest = (expand(parse_source(name), TABLE) for name in (family, f"{family}:latest"))
    assert bare == latest
    assert not bare.guessed
    assert family in TABLE


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("lama3.2:1b", library("lama3.2", "1b")),
        ("llama3.2:1b-q9", library("llama3.2", "1b-q9")),
        ("llama3.2:3b-instruct-q4_K_M", library("llama3.2", "3b-instruct-q4_K_M")),
        ("nothing-like-it", library("nothing-like-it")),
        ("mannix/llama3.1-8b", library("llama3.1-8b", namespace="mannix")),
        ("registry.ollama.ai/library/new-one:7b", library("new-one", "7b")),
    ],
)
def test_a_name_that_no_table_has_is_one_of_ollamas_registry(name: str, ref: RegistryRef) -> None:
    expanded = expand(parse_source(name), TABLE)
    assert (expanded.ref, expanded.guessed) == (ref, True)


def test_a_name_that_the_registry_cannot_have_is_refused() -> None:
    with pytest.raises(NotFound, match="'a/b/llama3' is not a known short name") as caught:
        expand(parse_source("a/b/llama3"), TABLE)
    assert "hf:org/repo" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "hint"), [("Qwen/Qwen3-4B", "hf:Qwen/Qwen3-4B names a "), ("other", "hf:org/repo names a ")]
)
def test_an_unknown_name_of_the_form_of_a_repository_is_shown_as_one(name: str, hint: str) -> None:
    assert hint in unknown(name, TABLE, "").hint


def test_an_unknown_name_is_asked_of_the_registry(
    sources: SourceFixture, hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.names.REGISTRY_HOST", hub.host)
    hub.model("library/new-one", "latest", [("model", DATA)])
    assert sources.pull("new-one").resolved == f"ollama:{hub.host}/library/new-one:latest"
    assert sources.pull("new-one:latest", offline=True).resolved == f"ollama:{hub.host}/library/new-one:latest"
    with pytest.raises(NotFound, match="'other' is not a known short name, and Ollama's registry does not have it"):
        sources.pull("other")


def test_an_unknown_name_without_a_network_names_both_tries(
    sources: SourceFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(sources.index, sources.foreign, sources.settings, TABLE)
    with pytest.raises(NotFound, match="is not a known short name, and Ollama's registry was not asked") as caught:
        library.locate("lama3.2:1b", offline=True)
    assert caught.value.near[0] == "llama3.2:1b"
    assert caught.value.hint.startswith("did you mean llama3.2:1b")
    monkeypatch.setattr("mullama.names.REGISTRY_HOST", "127.0.0.1:1")
    with pytest.raises(NotFound, match="is not a known short name, and Ollama's registry could not be asked"):
        library.locate("lama3.2:1b")
    monkeypatch.setattr("mullama.names.REGISTRY_HOST", "127.0.0.1:1")
    with pytest.raises(Unavailable, match="gemma"):
        library.locate("gemma")


def test_a_users_own_table_goes_first(tmp_path: Path) -> None:
    own = tmp_path / "mullama" / "aliases.toml"
    own.parent.mkdir()
    own.write_text(
        '[aliases."llama3.2:1b"]\nrepo = "me/mine"\nquant = "Q8_0"\n[aliases.house]\nsource = "ollama:house:7b"\n'
    )
    table = aliases({"XDG_CONFIG_HOME": str(tmp_path)})
    assert expand(parse_source("llama3.2:1b"), table).ref == HubRef("me/mine", None, "Q8_0")
    assert isinstance(expand(parse_source("house"), table).ref, RegistryRef)
    assert "gemma2:2b" in table
    with pytest.raises(Invalid, match="another quantization"):
        expand(parse_source("house-q8"), table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x =", "is not TOML"),
        ("[other]\na = 1", "must hold"),
        ("[aliases]\na = 1", "aliases.a is not a table"),
        ('[aliases.a]\nrepo = "a/b"\nrpo = "x"', "unknown key 'rpo'"),
        ("[aliases.a]\nrepo = 5", "every value is a text"),
        ("[aliases.a]", "needs one of repo, source, tag"),
        ('[aliases.a]\nrepo = "a/b"\ntag = "7b"', "needs one of repo, source, tag"),
        ('[aliases.a]\nrepo = "../x"', "does not name a repository"),
        ('[aliases.a]\nrepo = "a/b"\nfile = "../x.gguf"', "not a file name"),
    ],
)
def test_a_wrong_table_is_refused_with_its_entry(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_table(text, "mine")


def test_an_alias_with_a_projector_brings_it_along(sources: SourceFixture, hub: StubHub) -> None:
    from tests import ggufs

    projector = ggufs.File(
        {"general.architecture": ggufs.string("clip")}, {"v.patch_embd.weight": ggufs.Stored((32, 4))}
    ).bytes()
    hub.repo("org/v", {"v-Q4_K_M.gguf": DATA, "v-Q8_0.gguf": DATA, "v-mmproj.gguf": projector})
    table = read_table('[aliases."v:1"]\nrepo = "org/v"\nquant = "Q4_K_M"\nmmproj = "v-mmproj.gguf"', "mine")
    library = Library(sources.index, sources.foreign, sources.settings, table)
    stored = library.ensure(library.locate("v:1"), sources.seen.append, lambda: False)
    assert stored.projector is not None
    assert Path(stored.projector.path).read_bytes() == projector
    assert stored.resolved.startswith("hf:org/v:v-Q4_K_M.gguf@")
    again = library.locate("v:1", None, True)
    assert library.ensure(again, sources.seen.append, lambda: False) == stored
    assert library.locate("v:1-q8").files[0].name == "v-Q8_0.gguf"
