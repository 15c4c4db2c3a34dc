"""The applications of Ray Serve for a manifest: names, resources and configs, as values. Ray is not needed."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from mullama.errors import Invalid, Refused, Unsupported
from mullama.export import TARGETS
from mullama.export.ray_serve import (
    GATEWAYS,
    PROCESS_BYTES,
    RayInput,
    application_name,
    applications,
    gateway_name,
    model_application,
    resources,
    snapshot_tree,
)
from mullama.manifest.tree import parse_resolved
from mullama.plan.observed import KnownFiles
from tests.export.builders import given
from tests.plan.builders import FACTS

TINY = {"from": "builtin:tiny"}


def ray(models: dict[str, Any] | None = None, *, digest: str = "sha256:a", **rest: Any) -> RayInput:
    inputs = {key: rest.pop(key) for key in ("version", "stack", "history", "keys", "generation") if key in rest}
    manifest = parse_resolved({"mullama": "v1", "models": models or {"chat": TINY}, **rest})
    files = {m.from_: KnownFiles(source=m.from_, digest=digest, size=8, facts=FACTS) for m in manifest.models.values()}
    return RayInput(manifest=manifest, files=files, **{"version": "1", **inputs})


def name(model: dict[str, Any] | None = None, **rest: Any) -> str:
    return application_name(ray({"chat": {**TINY, **(model or {})}}, **rest), "chat")


SAME = [
    {"system": "You answer briefly."},
    {"parameters": {"temperature": 0.5}},
    {"limits": {"queue": 3}},
    {"scale": {"min": 0, "max": 3}},
    {"rollout": {"drain_timeout": 5}},
    {"description": "x"},
    {"system": "You answer at length. " * 50},
]
OTHER = [
    {"context": {"threads": 2}},
    {"context": {"size": 512}},
    {"limits": {"parallel": 2}},
    {"gpu": {"layers": "all"}},
    {"memory": {"mmap": False}},
    {"draft": {"from": "ngram"}},
]


@pytest.mark.parametrize("change", SAME)
def test_a_live_field_keeps_the_application(change: dict[str, Any]) -> None:
    assert name(change) == name()


@pytest.mark.parametrize("change", OTHER)
def test_a_field_of_weights_or_context_is_another_application(change: dict[str, Any]) -> None:
    assert name(change) != name()


def test_names_tell_stacks_versions_and_files_apart() -> None:
    found = {name(), name(stack="b"), name(version="2"), name(digest="sha256:b")}
    assert len(found) == 4
    assert all(one.startswith("m-chat-") and len(one) == len("m-chat-") + 8 for one in found)
    odd = ray({"Qwen3/8B:Q4_K_M": TINY})
    assert application_name(odd, "Qwen3/8B:Q4_K_M").startswith("m-qwen3-8b-q4-k-m-")
    assert gateway_name("prod") == "gateway-prod"


def test_live_fields_are_the_user_config_of_the_deployment() -> None:
    [before], [after] = (
        model_application(ray({"chat": {**TINY, "system": system}}), "chat")["deployments"] for system in ("a", "b")
    )
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"user_config"}
    assert after["user_config"]["manifest"]["models"]["chat"]["system"] == "b"


def test_limits_and_rollout_are_those_of_serve() -> None:
    model = {**TINY, "limits": {"parallel": 3, "queue": 9}, "rollout": {"drain_timeout": 40}}
    [found] = model_application(ray({"chat": model}), "chat")["deployments"]
    assert found["max_ongoing_requests"] == 3
    assert found["max_queued_requests"] * GATEWAYS >= 9 > (found["max_queued_requests"] - 1) * GATEWAYS
    assert found["graceful_shutdown_timeout_s"] == 40
    assert found["num_replicas"] == 1


def test_scale_is_the_autoscaling_of_serve() -> None:
    model = {**TINY, "scale": {"min": 0, "max": 4, "target_ongoing": 2, "idle": 90}}
    [found] = model_application(ray({"chat": model}), "chat")["deployments"]
    assert "num_replicas" not in found
    assert found["autoscaling_config"] == {
        "min_replicas": 0, "initial_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 2.0,
        "downscale_delay_s": 90,
    }  # fmt: skip


def test_a_replica_has_one_model_that_loads_at_its_start_and_no_limits_of_clients() -> None:
    model = {
        **TINY, "residency": {"load": "on_demand", "ttl": 60}, "limits": {"rate": {"requests": "1/m"}},
        "dialects": ["openai"], "scale": {"max": 2},
    }  # fmt: skip
    made = ray({"chat": model, "other": TINY}, routes={"default": "chat"})
    tree = model_application(made, "chat")["deployments"][0]["user_config"]["manifest"]
    inside = parse_resolved(tree)
    assert list(inside.models) == ["chat"]
    only = inside.models["chat"]
    assert (only.residency.load, only.residency.ttl, only.scale, only.limits.rate) == ("at_start", None, None, None)
    assert not inside.routes
    assert not inside.auth.keys


def test_resources_are_those_of_the_plan() -> None:
    cpu = resources(ray({"chat": {**TINY, "context": {"threads": 3, "size": 512}}}), "chat")
    assert (cpu.cpus, cpu.gpus) == (3.0, 0.0)
    assert cpu.memory is not None
    assert cpu.memory > PROCESS_BYTES
    bigger = resources(ray({"chat": {**TINY, "context": {"threads": 3, "size": 65536}}}), "chat")
    assert bigger.memory is not None
    assert bigger.memory > cpu.memory


@pytest.mark.parametrize(
    ("gpu", "budget", "gpus"),
    [
        ({"layers": "auto"}, {}, 0.0),
        ({"layers": "all"}, {}, 1.0),
        ({"layers": 3}, {}, 1.0),
        ({"layers": {"0": 3, "1": 3}}, {}, 2.0),
        ({"layers": "all", "devices": ["CUDA1"]}, {}, 2.0),
        ({"layers": {"0": 3, "1": 3}}, {"0": 2**40}, 2.0),
    ],
)
def test_gpus_are_counted_by_the_devices(gpu: dict[str, Any], budget: dict[str, Any], gpus: float) -> None:
    made = ray({"chat": {**TINY, "gpu": gpu}}, hardware={"budget": {"gpu": budget}})
    assert resources(made, "chat").gpus == gpus


def test_a_part_of_a_gpu_is_asked_for_where_its_size_is_stated() -> None:
    def parts(size: int) -> float:
        budget = {"budget": {"gpu": {"0": size}}}
        return resources(ray({"chat": {**TINY, "gpu": {"layers": "all"}}}, hardware=budget), "chat").gpus

    assert 0 < parts(2**45) <= 0.05
    assert parts(2**45) <= parts(2**37)
    with pytest.raises(Invalid, match=r"needs [0-9]+ bytes of a GPU"):
        parts(1024)


def test_the_snapshot_of_the_gateway_has_digests_and_references_alone() -> None:
    keys = [{"name": "team", "sha256": "ab", "models": ["*"], "roles": ["infer"], "priority": 0}]
    auth = {"keys": {"team": {"secret": {"from_env": "TEAM"}}}}
    history = [{"generation": number} for number in range(9)]
    found = snapshot_tree(ray(auth=auth, keys=keys, history=history, generation=10))
    assert found["keys"] == keys
    assert found["manifest"]["auth"]["keys"]["team"]["secret"]["from_env"] == "TEAM"
    assert [entry["generation"] for entry in found["history"]] == [0, 1, 2]
    assert found["applications"] == {"chat": application_name(ray(), "chat")}
    assert found["facts"]["builtin:tiny"]["digest"] == "sha256:a"


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({"groups": {"g": {"models": ["chat"]}}}, "groups"),
        ({"peers": {"p": {"url": "http://p:1"}}}, "peers"),
        ({"mcp": {"docs": {"from_host": "docs"}}}, "mcp"),
        ({"search": {"provider": "searxng", "url": "https://s.example.org"}}, "search"),
        ({"hardware": {"rpc": ["h:1"]}}, "hardware.rpc"),
        ({"server": {"tls": {"cert": "/c", "key": "/k"}}}, "server.tls"),
        (
            {"models": {"chat": {**TINY, "adapters": [{"from": "/a.gguf", "name": "x", "expose": True}]}}},
            r"models\.chat\.adapters\.\*\.expose",
        ),
        ({"models": {"chat": {**TINY, "residency": {"keep": {"ram": 1}}}}}, "models.chat.residency.keep"),
    ],
)
def test_a_block_without_a_meaning_on_ray_is_refused_by_its_name(block: dict[str, Any], field: str) -> None:
    with pytest.raises(Unsupported, match=f"{field} is not available on Ray"):
        applications(ray(**block))


def closed(**fields: Any) -> dict[str, Any]:
    """The schema of an object with all of these fields and no other."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


STRING, COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": STRING}
POD = closed(spec={"type": "object", "required": ["containers"]})
WORKERS = closed(
    groupName=STRING, replicas=COUNT, minReplicas=COUNT, maxReplicas=COUNT, rayStartParams=STRINGS, template=POD
)
RAY_SERVICE = closed(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=closed(name=STRING, namespace=STRING, labels=STRINGS),
    spec=closed(
        upgradeStrategy=closed(type={"enum": ["None", "NewCluster", "NewClusterWithIncrementalUpgrade"]}),
        serveConfigV2=STRING,
        rayClusterConfig=closed(
            rayVersion=STRING,
            enableInTreeAutoscaling={"type": "boolean"},
            headGroupSpec=closed(rayStartParams=STRINGS, template=POD),
            workerGroupSpecs={"type": "array", "items": WORKERS},
        ),
    ),
)
"""The fields of KubeRay's documentation that the export has. Its pods are checked by the schemas of Kubernetes."""


def test_the_service_has_fields_of_kuberay_alone() -> None:
    made = TARGETS["ray"].export(given("models: {a: {from: 'builtin:tiny', gpu: {layers: all}}}", namespace="llm"))
    Draft202012Validator(RAY_SERVICE).validate(yaml.safe_load(made.files[1].text))


def test_the_export_has_the_config_of_serve_and_a_service_of_kuberay() -> None:
    made = TARGETS["ray"].export(given("models: {a: {from: 'builtin:tiny'}}", namespace="llm", image="reg/x:1"))
    config, service = (yaml.safe_load(file.text) for file in made.files)
    names = [entry["name"] for entry in config["applications"]]
    assert names[0].startswith("m-a-")
    assert names[1] == "gateway-mullama"
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == config
    assert service["metadata"]["namespace"] == "llm"
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    [container] = group["template"]["spec"]["containers"]
    assert container["image"] == "reg/x:1"
    assert {"TEAM_KEY", "MULLAMA_MANIFEST_REVISION"} == {entry["name"] for entry in container["env"]}
    with pytest.raises(Refused, match=r"auth\.keys is empty"):
        TARGETS["ray"].export(given("auth: {keys: {}}\nmodels: {a: {from: 'builtin:tiny'}}"))
