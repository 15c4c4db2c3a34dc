"""The texts for compose, systemd, Kubernetes and the chart: what they contain, and that they never change by chance."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mullama.errors import Invalid, Unsupported
from mullama.export import TARGETS, Exported, MemoryUse
from mullama.export.base import MARK
from tests.export.builders import given

STACK = """
server: {listen: ['127.0.0.1:8080']}
models:
  a: {from: 'builtin:tiny', rollout: {drain_timeout: 60s}, context: {threads: 4}}
  b: {from: 'hf:org/repo:Q4_K_M', residency: {load: on_demand}}
"""
LOCK = '{"mullama.lock": 1, "sources": {}}\n'


def export(target: str, text: str = STACK, **options: Any) -> Exported:
    return TARGETS[target].export(given(text, **options))


def objects(**options: Any) -> dict[str, Any]:
    found = list(yaml.safe_load_all(export("kube", **options).files[0].text))
    assert len({item["kind"] for item in found}) == len(found)
    return {item["kind"]: item for item in found}


def container_of(**options: Any) -> dict[str, Any]:
    [only] = objects(**options)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_is_the_same_each_time_and_says_who_wrote_it(target: str) -> None:
    weights = {"builtin:tiny": "/w/tiny.gguf"}
    first, again = export(target, weights=weights), export(target, weights=weights)
    assert first == again
    for file in first.files:
        assert MARK in file.text.split("\n", 1)[0]
        assert not Path(file.path).is_absolute()
        assert ".." not in file.path


def test_the_objects_hold_the_manifest_and_its_lock() -> None:
    found = objects(lock=LOCK)
    assert list(found) == [
        "ConfigMap", "PersistentVolumeClaim", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy",
    ]  # fmt: skip
    data = found["ConfigMap"]["data"]
    assert data["mullama.lock"] == LOCK
    assert yaml.safe_load(data["mullama.yaml"])["models"]["b"]["from"] == "hf:org/repo:Q4_K_M"
    pod = found["Deployment"]["spec"]["template"]
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert volumes == {mount["name"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}


def test_the_pod_drains_before_it_ends_and_is_probed_for_its_models() -> None:
    pod = objects()["Deployment"]["spec"]["template"]["spec"]
    only = container_of()
    assert pod["terminationGracePeriodSeconds"] >= 120 + 5  # model b has the default of two minutes
    assert only["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert only["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert only["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert only["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert only["ports"] == [{"name": "http", "containerPort": 8080}]


def test_one_replica_keeps_its_volume_and_several_have_their_own() -> None:
    one, three = objects(), objects(replicas=3, storage="9Gi", storage_class="fast")
    assert one["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert "PersistentVolumeClaim" not in three
    assert three["Deployment"]["spec"]["replicas"] == 3
    assert three["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    volumes = {volume["name"]: volume for volume in three["Deployment"]["spec"]["template"]["spec"]["volumes"]}
    claim = volumes["data"]["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("fast", "9Gi")


def test_the_memory_is_that_of_the_plan_or_not_stated() -> None:
    known = container_of(memory=MemoryUse(start=2**30, all=3 * 2**30))["resources"]
    assert known["requests"] == {"cpu": "4", "memory": "2048Mi"}
    assert known["limits"] == {"memory": "4096Mi"}
    assert "resources" not in container_of()


@pytest.mark.parametrize(
    ("gpu", "count"),
    [
        ("{layers: 0}", 0),
        ("{layers: auto}", 0),
        ("{layers: all}", 1),
        ("{layers: {'0': 20, '1': 20}}", 2),
        ("{devices: [CUDA3]}", 4),
    ],
)
def test_the_gpus_are_those_of_the_device_maps(gpu: str, count: int) -> None:
    resources = container_of(text=f"models: {{a: {{from: 'builtin:tiny', gpu: {gpu}}}}}").get("resources", {})
    assert resources.get("limits", {}).get("nvidia.com/gpu", 0) == count
    assert container_of(gpus=2)["resources"]["limits"]["nvidia.com/gpu"] == 2
    text = f"models: {{a: {{from: 'builtin:tiny', gpu: {gpu}}}}}"
    service = yaml.safe_load(export("compose", text).files[0].text)["services"]["mullama"]
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    assert [device["count"] for device in devices] == ([count] if count else [])


def test_a_pod_reaches_the_network_only_for_models_of_the_network() -> None:
    def ports(text: str) -> set[int]:
        rules = objects(text=text)["NetworkPolicy"]["spec"]["egress"]
        return {port["port"] for rule in rules for port in rule["ports"]}

    assert ports(STACK) == {53, 443}
    assert ports("models: {a: 'builtin:tiny'}") == {53}


def test_a_pod_reaches_peers_hooks_collectors_and_lenders_of_devices() -> None:
    text = """
        peers: {a: {url: 'http://10.0.0.2:11434'}, b: {url: 'https://ai.example'}, c: {url: 'http://10.0.0.3:11434'}}
        routes: {r: {to: [x@a, x@b, x@c]}}
        hardware: {rpc: ['10.0.0.4:50052']}
        observability:
          webhooks: [{url: 'http://hooks:8080/a'}, {url: {from_env: HOOK}}]
          otlp: {endpoint: 'http://collector:4318'}
    """
    rules = objects(text=text)["NetworkPolicy"]["spec"]["egress"]
    ports = [[port["port"] for port in rule["ports"]] for rule in rules]
    assert ports == [[53, 53], [443, 11434], [50052], [443, 8080], [4318]]


def test_the_authorities_of_peers_are_mounted_or_refused_and_loopback_is_named() -> None:
    text = "peers: {a: {url: 'https://localhost:1', ca_file: ./ca.pem}}\nroutes: {r: x@a}"
    made = export("compose", text)
    assert (
        mount("/srv/app/ca.pem", "/srv/app/ca.pem")
        in yaml.safe_load(made.files[0].text)["services"]["mullama"]["volumes"]
    )
    assert "peers.a.url: in a container, https://localhost:1 is the container itself" in made.notes
    searching = export("compose", "search: {provider: searxng, url: 'http://127.0.0.1:8888'}")
    assert "search.url: in a container, http://127.0.0.1:8888 is the container itself" in searching.notes
    with pytest.raises(Unsupported, match=r"a pod does not have /srv/app/ca\.pem, which peers\.\*\.ca_file names"):
        export("kube", text)


def test_an_inference_pool_needs_the_name_of_its_picker() -> None:
    assert "InferencePool" not in objects()
    spec = objects(endpoint_picker="epp")["InferencePool"]["spec"]
    assert spec["endpointPickerRef"]["name"] == "epp"
    assert spec["targetPorts"] == [{"number": 8080}]


def test_tls_is_a_secret_and_client_certificates_end_the_http_probes() -> None:
    tls = "server: {tls: {cert: ./c.pem, key: ./k.pem%s}}\nmodels: {a: 'builtin:tiny'}"
    assert container_of(text=tls % "")["livenessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert "tcpSocket" in container_of(text=tls % ", client_ca: ./ca.pem")["readinessProbe"]


@pytest.mark.parametrize("name", ["Prod", "-a", "a_b", "a" * 64])
def test_names_that_kubernetes_refuses_are_refused_here(name: str) -> None:
    with pytest.raises(Invalid, match="no name of Kubernetes"):
        export("kube", name=name)


@pytest.mark.parametrize("target", ["kube", "helm-values"])
def test_a_pod_has_no_files_of_this_machine(target: str) -> None:
    with pytest.raises(Unsupported, match=r"/srv/app/w\.gguf"):
        export(target, "models: {a: ./w.gguf}")


def test_the_chart_gets_the_same_container_as_the_objects() -> None:
    values = yaml.safe_load(export("helm-values", image="reg.example:5000/mullama:7@sha256:ab").files[0].text)
    made = values["controllers"]["main"]["containers"]["main"]
    assert made["image"] == {"repository": "reg.example:5000/mullama", "tag": "7@sha256:ab"}
    same = container_of()
    assert (made["args"], made["securityContext"]) == (same["args"], same["securityContext"])
    assert made["probes"]["readiness"]["spec"] == same["readinessProbe"]
    assert made["envFrom"] == [{"secretRef": {"name": "mullama-secrets"}}]


def mount(source: str, target: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "read_only": True}


def test_compose_mounts_the_folder_of_the_manifest_and_asks_for_the_secrets() -> None:
    text = "models: {a: './w: {$1}.gguf'}\nserver: {tls: {cert: ./c.pem, key: ./k.pem}}"
    files = {file.path: file.text for file in export("compose", text, lock=LOCK, gpus=1, name="llm").files}
    assert set(files) == {"compose.yaml", "config/mullama.yaml", "config/mullama.lock"}
    service = yaml.safe_load(files["compose.yaml"])["services"]["mullama"]
    assert service["volumes"] == [
        "./config:/etc/mullama:ro",
        "data:/var/lib/mullama",
        mount("/srv/app/w: {$$1}.gguf", "/srv/app/w: {$$1}.gguf"),
        mount("/srv/app/c.pem", "/run/mullama-tls/tls.crt"),
        mount("/srv/app/k.pem", "/run/mullama-tls/tls.key"),
    ]
    assert service["environment"] == {"TEAM_KEY": "${TEAM_KEY:?the secret of auth.keys.team.secret}"}
    assert service["stop_grace_period"] == "150s"
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 1


def test_a_unit_reads_the_manifest_where_it_is() -> None:
    text = "models: {a: {from: /home/me/w.gguf, gpu: {layers: 0}, memory: {mlock: true}}}"
    made = export("systemd", text, program="/opt/my apps/mullama", name="llm")
    unit = made.files[0].text
    assert 'ExecStart="/opt/my apps/mullama" serve -f /srv/app/m.yaml\n' in unit
    assert "ProtectHome=read-only\n" in unit
    assert "LimitMEMLOCK=infinity\n" in unit
    assert "SupplementaryGroups" not in unit
    assert "EnvironmentFile=-/etc/llm/environment\n" in unit
    assert "#   TEAM_KEY: auth.keys.team.secret\n" in unit
    assert made.notes == ("the user of the unit must be able to read /home/me/w.gguf",)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("auth: {keys: {k: {secret: {from_file: /home/me/key}}}}\nmodels: {a: 'builtin:tiny'}", "/home/me/key"),
        ("server: {tls: {cert: /root/c.pem, key: /etc/k.pem}}\nmodels: {a: 'builtin:tiny'}", "/root/c.pem"),
    ],
)
def test_a_unit_may_read_each_file_below_a_home_that_the_manifest_names(text: str, path: str) -> None:
    made = export("systemd", text, program="/opt/mullama")
    assert "ProtectHome=read-only\n" in made.files[0].text
    assert made.notes == (f"the user of the unit must be able to read {path}",)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("there is no systemd-analyze")
    program = tmp_path / "mull ama"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "llm.service"
    unit.write_text(export("systemd", program=str(program), name="llm").files[0].text)
    done = subprocess.run([verify, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "llm.service" in line]) == (0, [])


def test_names_that_make_the_same_path_have_files_of_their_own() -> None:
    files = export(
        "modelfile", "models: {'a/b:c': 'builtin:tiny', a_b-c: 'builtin:tiny', 'a_b:c': 'builtin:tiny'}"
    ).files
    assert [file.path for file in files] == ["a_b-c.modelfile", "a_b-c.2.modelfile", "a_b-c.3.modelfile"]
    assert "# mullama create a_b-c -f a_b-c.2.modelfile\n" in files[1].text


def test_a_modelfile_has_what_a_model_declares_and_names_the_rest() -> None:
    text = "models: {'q:7b': {from: 'builtin:tiny', system: Be kind., gpu: {split: row}}, b: 'builtin:tiny'}"
    made = export("modelfile", text, models=("Q:7b",))
    [file] = made.files
    assert file.path == "q-7b.modelfile"
    assert "FROM builtin:tiny\nSYSTEM Be kind.\n" in file.text
    assert made.notes == ("q:7b: left out: a Modelfile has no directive for gpu",)
