"""The examples are right, in every profile, and harmless when they are cut off anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mullama.errors import ManifestError
from mullama.manifest.load import load, load_text
from mullama.manifest.starter_manifest import starter
from tests.manifest.builders import read

ROOT = Path(__file__).parents[2]
NESTED = [ROOT / "examples" / folder / "mullama.yaml" for folder in ("container", "include")]
MANIFESTS = [ROOT / "mullama.yaml", *sorted(ROOT.glob("examples/*.yaml")), *NESTED]


pytestmark = pytest.mark.timeout(60)  # each example is loaded hundreds of times


def profiles_of(path: Path) -> list[str]:
    """The names under `profiles:`, which is the last block but for notes."""
    lines = path.read_text().partition("\nprofiles:")[2].splitlines()
    return [line.strip().rstrip(":") for line in lines if line.startswith("  ") and line[2].isalpha()]


def runs() -> Iterator[tuple[Path, tuple[str, ...]]]:
    for path in MANIFESTS:
        yield path, ()
        for profile in profiles_of(path):
            yield path, (profile,)


@pytest.mark.parametrize(("path", "profiles"), list(runs()), ids=lambda value: getattr(value, "name", str(value)))
def test_every_example_is_valid_in_every_profile_and_with_an_empty_environment(
    path: Path, profiles: tuple[str, ...]
) -> None:
    loaded = load(str(path), profiles=profiles, env={})
    assert loaded.manifest.models
    assert not loaded.warnings


def test_the_examples_have_profiles_at_all() -> None:
    assert profiles_of(ROOT / "examples/team.yaml") == ["laptop"]
    assert profiles_of(ROOT / "examples/full.yaml") == ["laptop", "ci"]


def test_the_root_manifest_serves_the_built_in_model_as_default() -> None:
    manifest = load(str(ROOT / "mullama.yaml"), env={}).manifest
    assert {name: model.from_ for name, model in manifest.models.items()} == {"tiny": "builtin:tiny"}
    assert manifest.routes == {"default": "tiny"}


def test_the_full_example_shows_every_block_of_one_server() -> None:
    text = (ROOT / "examples/full.yaml").read_text()
    said = read(text).manifest
    unsaid = [name for name in type(said).model_fields if f"\n{name}:" not in text]
    assert unsaid == ["search", "fleet", "lock"]  # an apply of a fleet writes the last one
    fleet = read((ROOT / "examples/fleet.yaml").read_text()).manifest.fleet
    assert type(fleet).model_fields.keys() == fleet.model_fields_set
    chat = said.models["chat"]
    assert not (type(chat).model_fields.keys() - chat.model_fields_set) - {
        "adapters", "mmproj", "draft", "digest", "template", "task", "embedding", "transcription",
        "hosts", "replicas", "scale", "search",
    }  # fmt: skip


def prefixes(path: Path) -> Iterator[bytes]:
    """Every prefix of a small example; of a large one enough to cut every word and indentation once."""
    data = path.read_bytes()
    step = 1 if len(data) < 700 else 53
    return (data[:end] for end in range(0, len(data), step))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_prefix_of_an_example_is_a_manifest_or_has_mistakes_with_places(path: Path) -> None:
    """A file that is read while it is being saved is such a prefix."""
    outcomes = {"whole": 0, "wrong": 0}
    for data in prefixes(path):
        try:
            load_text(data, name="m.yaml", base_dir=str(path.parent), env={})
            outcomes["whole"] += 1
        except ManifestError as error:
            outcomes["wrong"] += 1
            if any(problem.place is None for problem in error.problems):
                pytest.fail(f"{error} has no place")
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("chat", "builtin:tiny"),
        ("qwen3:8b", "hf:Qwen/Qwen3-8B-GGUF:Q4_K_M@main"),
        ("true", "llama3.2:1b"),
        ("1e3", "/srv/my models/a #1.gguf"),
        ("a", "./x: y's.gguf"),
        ("a", "~/x.gguf"),
        ("a", "https://example.org/a.gguf?x=[1]"),
    ],
)
def test_a_starter_is_valid_whatever_it_is_asked_for(name: str, source: str) -> None:
    manifest = read(starter(name=name, source=source), env={"HOME": "/home/me"}).manifest
    assert list(manifest.models) == [name]
    assert manifest.models[name].from_.endswith(source.lstrip("~."))
    assert manifest.routes == {"default": name}


def test_what_the_starter_comments_out_is_valid_too() -> None:
    lines = starter().splitlines()
    options = [line.replace("# ", "", 1) for line in lines if line.lstrip().startswith("# ") and ": {" in line]
    options += ["    system: You answer briefly.", "auth:", "  keys:"]
    assert len(options) >= 6
    text = "\n".join(line for line in lines if not line.startswith(("#", "routes", "  default")))
    inside = "\n".join(line for line in options if line.startswith("    ") and "secret" not in line)
    outside = 'server: {listen: ["0.0.0.0:11434"]}\nauth:\n  keys:\n    me: {secret: {from_env: MULLAMA_KEY}}\n'
    assert 'server: {listen: ["0.0.0.0:11434"]}' in options
    assert read(f"{text}\n{inside}\n{outside}").manifest.models["chat"].context.size == 8192
