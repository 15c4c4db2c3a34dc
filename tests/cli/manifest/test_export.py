"""`mullama export`: printed, written, compared, and never over the file of somebody else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Ran
from tests.cli.manifest.test_bundle import LOCK

Run = Callable[..., Ran]

MANIFEST = """mullama: v1
auth: {keys: {team: {secret: {from_env: TEAM_KEY}}}}
models: {tiny: 'builtin:tiny'}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mullama.yaml").write_text(MANIFEST)
    return tmp_path


def test_one_file_is_printed_with_the_memory_of_the_models(run: Run, folder: Path) -> None:
    ran = run("export", "kube", "--namespace", "ai")
    assert (ran.code, "create the secret mullama-secrets before" in ran.err) == (0, True)
    kinds = {item["kind"]: item for item in yaml.safe_load_all(ran.out)}
    [only] = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    needed = int(only["resources"]["requests"]["memory"].removesuffix("Mi"))
    assert 1024 < needed < 1024 + 512
    assert kinds["Service"]["metadata"]["namespace"] == "ai"


def test_memory_is_not_stated_for_weights_whose_header_is_not_known(run: Run, folder: Path) -> None:
    """The lock file has the size of this model, and no facts of its header."""
    (folder / "mullama.yaml").write_text(MANIFEST.replace("builtin:tiny", "hf:org/m:Q8_0"))
    (folder / "mullama.lock").write_bytes(LOCK)
    kinds = {item["kind"]: item for item in yaml.safe_load_all(run("export", "kube").out)}
    [only] = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "resources" not in only


def test_several_files_need_a_folder_and_are_compared(run: Run, folder: Path) -> None:
    ran = run("export", "compose")
    assert (ran.code, "-o FOLDER" in ran.err) == (4, True)
    assert run("export", "compose", "-o", "deploy", "--check").code == 2
    assert run("export", "compose", "-o", "deploy").code == 0
    assert sorted(path.name for path in (folder / "deploy").rglob("*.yaml")) == ["compose.yaml", "mullama.yaml"]
    assert run("export", "compose", "-o", "deploy", "--check").code == 0
    (folder / "mullama.yaml").write_text(MANIFEST.replace("tiny:", "other:"))
    checked = run("export", "compose", "-o", "deploy", "--check")
    assert (checked.code, "config/mullama.yaml differs" in checked.out) == (2, True)
    again = run("export", "compose", "-o", "deploy")
    assert (again.code, again.out.count("wrote ")) == (0, 1)


def test_the_file_of_somebody_else_stays(run: Run, folder: Path) -> None:
    (folder / "mullama.service").write_text("[Unit]\nDescription=mine\n")
    refused = run("export", "systemd", "-o", ".")
    assert (refused.code, "--force overwrites it" in refused.err) != (0, True)
    assert "mine" in (folder / "mullama.service").read_text()
    assert run("export", "systemd", "-o", ".", "--force").code == 0
    assert "ExecStart=" in (folder / "mullama.service").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["export", "swarm"], "swarm"),
        (["export", "compose", "--replicas", "2"], "compose has no --replicas"),
        (["export", "kube", "tiny"], "kube has no MODEL"),
        (["export", "kube", "--replicas", "0"], "--replicas 0 is too small"),
        (["export", "kube", "--storage", "many"], "'many' is no size of Kubernetes"),
        (["export", "kube", "--name", "a b"], "'a b' is no name"),
        (["export", "kube", "--check"], "--output FOLDER"),
    ],
)
def test_a_wrong_option_is_refused(run: Run, folder: Path, line: list[str], message: str) -> None:
    ran = run(*line)
    assert (ran.code, ran.out) == (4, "")
    assert message in ran.err


def test_the_text_of_config_and_of_a_bundle_reads_as_the_same_manifest(run: Run, folder: Path) -> None:
    system = "models: {tiny: {from: 'builtin:tiny', system: 'costs $${X}'}}\n"
    (folder / "mullama.yaml").write_text(MANIFEST.replace("models: {tiny: 'builtin:tiny'}\n", system))
    printed = run("config").out
    (folder / "again.yaml").write_text(printed)
    assert run("config", "-f", "again.yaml").out == printed
    assert yaml.safe_load(printed)["models"]["tiny"]["system"] == "costs $${X}"
