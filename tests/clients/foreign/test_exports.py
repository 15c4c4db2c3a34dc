"""Exports are valid for the tools that read them: the schemas of Kubernetes and compose, and podman-compose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.e2e.stack import Stack, stack_in

AUTH = {"keys": {"team": {"secret": {"from_env": "TEAM_KEY"}}}}
OPTIONS = (
    (),
    ("--namespace", "ai", "--gpus", "2", "--storage-class", "fast", "--weights-image", "registry.example/w:1"),
    ("--replicas", "3", "--name", "llm"),
)


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A manifest with a key, a certificate, sources of a hub and a device map; no server runs."""
    with stack_in(tmp_path_factory.mktemp("exported")) as stack:
        models = {"a": "builtin:tiny", "b": {"from": "hf:org/repo:Q4_K_M", "gpu": {"layers": {"0": 4, "1": 4}}}}
        stack.write(models, auth=AUTH, server={
            "listen": ["127.0.0.1:8080"], "tls": {"cert": "./c.pem", "key": "./k.pem"},
        })  # fmt: skip
        return stack


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_kubernetes_accepts_the_objects(declared: Stack, options: tuple[str, ...], version: str) -> None:
    text = declared.run("export", "kube", "-f", declared.name, *options).stdout
    found = list(yaml.safe_load_all(text))
    assert len(found) >= 5
    for tree in found:
        if "--weights-image" in options and tree["kind"] == "Deployment" and version == "1.30":
            continue  # volumes of images exist since 1.31
        kubernetes_validate.validate(tree, version, strict=True)


@pytest.mark.parametrize("version", ["1.30", "1.34"])
def test_kubernetes_accepts_the_pods_of_a_service_of_kuberay(tmp_path: Path, version: str) -> None:
    with stack_in(tmp_path) as stack:
        stack.write({"a": {"from": "builtin:tiny", "gpu": {"layers": "all"}}}, auth=AUTH)
        stack.run("export", "ray", "-f", stack.name, "-o", "deploy", "--image", "registry.example/m:1")
        service = yaml.safe_load((stack.home / "deploy/mullama.rayservice.yaml").read_text())
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.parametrize("options", [(), ("--gpus", "2", "--name", "llm")])
def test_the_compose_file_fits_the_schema(declared: Stack, options: tuple[str, ...]) -> None:
    declared.run("export", "compose", "-f", declared.name, "-o", "fitting", *options)
    command = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    file = declared.home / "fitting/compose.yaml"
    done = subprocess.run([*command, file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_podman_compose_reads_the_file(declared: Stack) -> None:
    declared.run("export", "compose", "-f", declared.name, "-o", "deploy")
    if shutil.which("podman") is None:
        pytest.skip("podman-compose asks podman for its version, and there is no podman")
    command = Path(sys.executable).with_name("podman-compose")
    done = subprocess.run(
        [command, "-f", declared.home / "deploy/compose.yaml", "config"],
        env={"PATH": "/usr/bin:/bin", "TEAM_KEY": "k"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    service = yaml.safe_load(done.stdout)["services"]["mullama"]
    assert service["environment"] == {"TEAM_KEY": "k"}
    assert "./config:/etc/mullama:ro" in service["volumes"]
