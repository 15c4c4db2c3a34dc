"""Short names: the package's table, suffixes, the user's own table, near names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mullama.errors import Invalid, NotFound
from mullama.names import HubRef, RegistryRef, parse_source
from mullama.sources.aliases import aliases, expand, read_table
from mullama.weights.choose import PREFERENCE, SUFFIXES
from tests.sources.source_fixture import DATA, SourceFixture
from tests.stub_hub import StubHub

TABLE = aliases({"HOME": "/nonexistent"})


def test_every_entry_of_the_package_is_whole_and_names_a_quantisation_or_a_file() -> None:
    assert len(TABLE) >= 45
    for name, alias in TABLE.items():
        expanded = expand(parse_source(name), TABLE)
        assert isinstance(expanded.ref, HubRef)
        assert bool(alias.file) != bool(alias.quant)
        assert alias.quant in ("", *PREFERENCE)
        assert alias.description
        assert alias.tags
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


@pytest.mark.parametrize("name", ["lama3.2:1b", "llama3.2:1c", "llama3.2:1b-q9", "nothing-like-it"])
def test_an_unknown_name_says_what_comes_near_and_what_else_it_could_be(name: str) -> None:
    with pytest.raises(NotFound, match=f"ollama:{name} asks Ollama's registry") as caught:
        expand(parse_source(name), TABLE)
    assert ("llama3.2:1b" in caught.value.near) == name.startswith(("lama", "llama"))


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
        ("[aliases.a]", "either repo or source"),
        ('[aliases.a]\nrepo = "../x"', "does not name a repository"),
        ('[aliases.a]\nrepo = "a/b"\nfile = "../x.gguf"', "not a file name"),
    ],
)
def test_a_wrong_table_is_refused_with_its_entry(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_table(text, "mine")


def test_an_alias_with_a_projector_brings_it_along(sources: SourceFixture, hub: StubHub) -> None:
    from mullama.sources.library import Library
    from tests import ggufs

    projector = ggufs.File(
        {"general.architecture": ggufs.string("clip")}, {"v.patch_embd.weight": ggufs.Stored((32, 4))}
    ).bytes()
    hub.repo("org/v", {"v-Q4_K_M.gguf": DATA, "v-Q8_0.gguf": DATA, "v-mmproj.gguf": projector})
    table = read_table('[aliases."v:1"]\nrepo = "org/v"\nquant = "Q4_K_M"\nmmproj = "v-mmproj.gguf"', "mine")
    library = Library(sources.index, sources.foreign, sources.settings, table)
    stored = library.ensure(library.locate("v:1"), sources.seen.append, lambda: False)
    assert stored.projector is not None
    assert Path(stored.projector).read_bytes() == projector
    assert stored.resolved.startswith("hf:org/v:v-Q4_K_M.gguf@")
    again = library.locate("v:1", None, True)
    assert library.ensure(again, sources.seen.append, lambda: False) == stored
    assert library.locate("v:1-q8").files[0].name == "v-Q8_0.gguf"
