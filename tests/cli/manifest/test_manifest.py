"""init, validate, config and schema need a manifest and no server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import ggufs
from tests.cli.conftest import Ran
from tests.engines.llamacpp import builders

Run = Callable[..., Ran]

GOOD = """mullama: v1
models:
  chat: builtin:tiny
  small: {from: ./s.gguf, system: "on\\nthe way"}
routes: {default: chat}
auth: {keys: {ci: {secret: {from_env: CI_KEY}}}}
"""
BAD = """mullama: v1
models:
  chat: {form: builtin:tiny}
  small: {from: ./s.gguf, context: {size: many}}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "mullama.yaml"
    path.write_text(GOOD)
    return path


def test_a_valid_manifest_is_counted(run: Run, manifest: Path) -> None:
    ran = run("validate")
    assert (ran.code, ran.out, ran.err) == (0, "mullama.yaml is valid: 2 models, 1 route\n", "")


def test_every_mistake_is_shown_with_file_line_and_column(run: Run, manifest: Path) -> None:
    manifest.write_text(BAD)
    ran = run("validate")
    assert (ran.code, ran.out) == (4, "")
    assert "mullama.yaml:3:10: models.chat" in ran.err
    assert "mullama.yaml:4:" in ran.err
    assert "did you mean" in ran.err


def test_mistakes_in_json_keep_their_places(run: Run, manifest: Path) -> None:
    manifest.write_text(BAD)
    ran = run("validate", "--json")
    tree = json.loads(ran.out)
    assert (ran.code, tree["valid"]) == (4, False)
    assert {problem["line"] for problem in tree["problems"]} >= {3, 4}


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("github", "::error file=mullama.yaml,line=3,col=3,title=mullama%3A models.chat.from::is required ("),
        ("sarif", "{"),
        ("junit", '<?xml version="1.0" encoding="UTF-8"?>'),
    ],
)
def test_mistakes_in_the_forms_of_ci(run: Run, manifest: Path, form: str, first: str) -> None:
    manifest.write_text(BAD)
    ran = run("validate", "--format", form)
    assert ran.code == 4
    assert ran.out.startswith(first)
    assert "models.small.context.size" in ran.out


def test_a_valid_manifest_is_a_test_that_passes(run: Run, manifest: Path) -> None:
    ran = run("validate", "--format", "junit")
    (suite,) = ElementTree.fromstring(ran.out)
    assert (ran.code, suite.attrib["tests"], suite.attrib["failures"]) == (0, "1", "0")
    assert run("validate", "--format", "github").out == ""


def test_a_manifest_may_come_from_standard_input(run: Run) -> None:
    assert run("validate", "-f", "-", stdin=GOOD).code == 0
    assert "<stdin>:3:" in run("validate", "-f", "-", stdin=BAD).err


def test_the_resolved_manifest_reads_back_as_the_same(run: Run, manifest: Path) -> None:
    as_json = json.loads(run("config", "--format", "json").out)
    printed = run("config").out
    assert json.loads(run("config", "-f", "-", "--format", "json", stdin=printed).out) == as_json
    assert as_json["models"]["chat"]["from"] == "builtin:tiny"


def test_config_shows_where_a_secret_is_and_never_the_secret(
    run: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_KEY", "hidden-4711")
    ran = run("config")
    assert "from_env: CI_KEY" in ran.out
    assert "hidden" not in ran.out + ran.err


def test_config_masks_secrets_in_addresses_and_changes_no_text(run: Run, manifest: Path) -> None:
    manifest.write_text(
        "mullama: v1\n"
        "models:\n  a:\n    from: https://h/a.gguf?sig=hidden&v=from_env:V\n    system: See https://h/?q=text\n"
        "  b: {from: builtin:tiny}\n"
    )
    ran = run("config", "--format", "json")
    model = json.loads(ran.out)["models"]["a"]
    assert "hidden" not in ran.out + run("config").out
    assert (model["from"], model["system"]) == ("https://h/a.gguf?sig=***&v=from_env:V", "See https://h/?q=text")
    assert "from_env:NAME" in ran.err


def test_config_shows_the_origin_of_each_value(run: Run, manifest: Path) -> None:
    manifest.write_text(
        "mullama: v1\n"
        "defaults: {context: {size: 512}}\n"
        "models: {a: 'https://h/a.gguf?sig=canary', b: {like: a, system: See https://h/?q=text}}\n"
    )
    ran = run("config", "--origins", "b")
    assert ran.code == 0
    assert "canary" not in ran.out
    rows = [line.split() for line in ran.out.splitlines()[1:]]
    assert ["b", "context.size", "512", "defaults", "mullama.yaml:2", "context"] in rows
    assert ["b", "from", "https://h/a.gguf?sig=***", "like", "a", "mullama.yaml:3", "files"] in rows
    tree = json.loads(run("config", "--origins", "--format", "json").out)
    values = {value["path"]: value for value in tree["b"]}
    assert (values["system"]["value"], values["limits.parallel"]["layer"]) == ("See https://h/?q=text", "builtin")
    assert run("config", "--origins", "nobody").code == 3


def test_a_missing_manifest_is_not_found(run: Run) -> None:
    assert run("validate", "-f", "none.yaml").code == 3


def test_init_writes_a_manifest_that_is_valid_and_never_overwrites_one(run: Run, tmp_path: Path) -> None:
    assert run("init", "--name", "small", "--from", "hf:org/repo:Q4_K_M").code == 0
    assert run("validate").out == "mullama.yaml is valid: 1 model, 1 route\n"
    before = (tmp_path / "mullama.yaml").read_text()
    again = run("init")
    assert (again.code, (tmp_path / "mullama.yaml").read_text()) == (9, before)
    assert "already exists" in again.err


@pytest.mark.parametrize("option", [("--name", "a b"), ("--from", "builtin:")])
def test_init_refuses_what_no_manifest_may_say(run: Run, tmp_path: Path, option: tuple[str, str]) -> None:
    assert run("init", *option).code == 4
    assert not (tmp_path / "mullama.yaml").exists()


def test_schema_prints_the_committed_file(run: Run) -> None:
    committed = Path(__file__).parents[3] / "schemas" / "mullama.v1.schema.json"
    assert run("schema").out == committed.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("draft", "why"),
    [
        ("mtp", "draft.from is mtp, and builtin:tiny has no layers that predict further tokens"),
        ("./other.gguf", "has another vocabulary than builtin:tiny: its tokenizer is llama, not gpt2"),
    ],
)
def test_a_draft_that_the_headers_refuse_is_a_mistake_with_its_place(
    draft: str, why: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "other.gguf").write_bytes(ggufs.model("llama").bytes())
    (tmp_path / "mullama.yaml").write_text(f"mullama: v1\nmodels:\n  a: {{from: builtin:tiny, draft: {draft}}}\n")
    ran = run("validate")
    assert ran.code == 4
    assert "mullama.yaml:3:" in ran.err
    assert "models.a.draft.from: " in ran.err
    assert why in ran.err
    (tmp_path / "mullama.yaml").write_text("mullama: v1\nmodels:\n  a: {from: builtin:tiny, draft: builtin:tiny}\n")
    assert run("validate").code == 0


def test_files_that_do_not_belong_together_are_mistakes_with_their_places(run: Run, tmp_path: Path) -> None:
    builders.llama(tmp_path / "main.gguf")
    builders.llama(tmp_path / "draft.gguf", renamed=1000)
    builders.adapter(tmp_path / "lora.gguf")
    (tmp_path / "mullama.yaml").write_text(
        "mullama: v1\nmodels:\n  a:\n    from: ./main.gguf\n"
        "    draft: ./draft.gguf\n    adapters: [{from: ./lora.gguf}]\n"
    )
    ran = run("validate")
    assert ran.code == 4
    assert "mullama.yaml:5:" in ran.err
    assert "models.a.draft.from: the draft model " in ran.err
    assert "main.gguf: its token 1000 is 'Ġsheep?', not 'Ġsheep'" in ran.err
    assert "mullama.yaml:6:" in ran.err
    assert "models.a.adapters[0].from: the adapter " in ran.err
    assert " does not fit " in ran.err


def test_a_projector_of_other_weights_is_a_mistake_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(ggufs.model("llama").bytes())
    (tmp_path / "eyes.gguf").write_bytes(ggufs.projector(7 * 64).bytes())
    text = "mullama: v1\nmodels:\n  a: {{from: ./m.gguf, mmproj: {}, requires: [{}]}}\n"
    (tmp_path / "mullama.yaml").write_text(text.format("./eyes.gguf", "vision"))
    ran = run("validate")
    assert (ran.code, "mullama.yaml:3:" in ran.err) == (4, True)
    assert "models.a.mmproj: the projector" in ran.err
    assert "its vectors have 448 numbers" in ran.err
    (tmp_path / "eyes.gguf").rename(tmp_path / "mmproj-m.gguf")
    (tmp_path / "mullama.yaml").write_text("mullama: v1\nmodels:\n  a: ./m.gguf\n")
    beside = run("validate")
    assert (beside.code, "mullama.yaml:3:" in beside.err) == (4, True)
    assert "models.a.mmproj: the projector" in beside.err
    (tmp_path / "mmproj-m.gguf").unlink()
    (tmp_path / "mullama.yaml").write_text(text.format("./eyes.gguf", "vision"))
    (tmp_path / "eyes.gguf").write_bytes(ggufs.projector(ggufs.WIDTH).bytes())
    assert run("validate").code == 0
    (tmp_path / "mullama.yaml").write_text(text.format("./eyes.gguf", "audio"))
    ran = run("validate")
    assert "models.a.requires: a lacks audio: its projector reads image" in ran.err
    for fields, message in (
        ("from: builtin:tiny, mmproj: builtin:tiny", "a.mmproj: mmproj names builtin:tiny, which reads neither images"),
        ("from: builtin:tiny, task: transcription", "a.task: a lacks audio: builtin:tiny has no projector"),
    ):
        (tmp_path / "mullama.yaml").write_text(f"mullama: v1\nmodels:\n  a: {{{fields}}}\n")
        ran = run("validate")
        assert (ran.code, "mullama.yaml:3:" in ran.err) == (4, True)
        assert message in ran.err
