"""What other tools' configurations become, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.manifest.dump import to_yaml
from mullama.manifest.importing import (
    GgufFile,
    RegistryModel,
    folder_models,
    from_compose,
    from_llama_swap,
    registry_models,
)
from mullama.manifest.importing.flags import arguments_of, model_of
from mullama.manifest.importing.found import Imported
from mullama.manifest.load import load_text
from mullama.names import ModelName, RegistryRef, parse_source


@pytest.mark.parametrize(
    ("arguments", "tree"),
    [
        ("-m /m.gguf", {"from": "/m.gguf"}),
        ("-hf org/repo:Q8_0 -c 0", {"from": "hf:org/repo:Q8_0"}),
        ("-hf org/repo -hff a.gguf", {"from": "hf:org/repo:a.gguf"}),
        ("-hf org/repo:Q8_0 --hf-file a.gguf", {"from": "hf:org/repo:a.gguf"}),
        (
            "-m m.gguf -c 8192 -np 4 -kvu",
            {"from": "m.gguf", "context": {"size": 8192, "pool": 8192}, "limits": {"parallel": 4}},
        ),
        ("-m m.gguf -kvu", {"from": "m.gguf", "context": {"pool": "auto"}}),
        (
            "-m m.gguf -c 512 --kv-unified --embedding",
            {
                "from": "m.gguf",
                "context": {"size": 512},
                "task": "embedding",
            },
        ),
        ("-m m.gguf -c 8192 -np 4", {"from": "m.gguf", "context": {"size": 2048}, "limits": {"parallel": 4}}),
        ("--model=m.gguf -ngl 99", {"from": "m.gguf", "gpu": {"layers": "all"}}),
        ("-m m.gguf -dev CUDA1,RPC0 -ncmoe 4", {"from": "m.gguf", "gpu": {"devices": ["CUDA1", "RPC0"], "experts": 4}}),
        ("-m m.gguf --cpu-moe", {"from": "m.gguf", "gpu": {"experts": "all"}}),
        ("-m m.gguf -ngl 20 -ts 3,1", {"from": "m.gguf", "gpu": {"layers": 20, "tensor_split": [3.0, 1.0]}}),
        ("-m m.gguf -fa --mlock", {"from": "m.gguf", "context": {"flash_attention": "on"}, "memory": {"mlock": True}}),
        (
            "-m m.gguf -fa off --no-mmap",
            {"from": "m.gguf", "context": {"flash_attention": "off"}, "memory": {"mmap": False}},
        ),
        (
            "-m m.gguf --embeddings --pooling mean",
            {"from": "m.gguf", "task": "embedding", "context": {"pooling": "mean"}},
        ),
        (
            "-m m.gguf --rope-scaling yarn --rope-freq-base 5e5",
            {
                "from": "m.gguf",
                "context": {"rope": {"scaling": "yarn", "base": 5e5}},
            },
        ),
        (
            "-m m.gguf --dry-multiplier 0.8 --mirostat 2 --mirostat-lr 0.2",
            {
                "from": "m.gguf",
                "parameters": {"dry_multiplier": 0.8, "mirostat": 2, "mirostat_eta": 0.2},
            },
        ),
        ("-m m.gguf --no-mmproj", {"from": "m.gguf", "mmproj": "none"}),
        ("-m m.gguf --mmproj-url https://h/p.gguf", {"from": "m.gguf", "mmproj": "https://h/p.gguf"}),
        ("-m m.gguf --mmproj p.gguf -md d.gguf", {"from": "m.gguf", "mmproj": "p.gguf", "draft": {"from": "d.gguf"}}),
        (
            "-m m.gguf --spec-type ngram-mod,draft-simple --draft-max 64 --draft-p-min 0.5",
            {"from": "m.gguf", "draft": {"from": "ngram", "tokens": 63, "min_probability": 0.5}},
        ),
        ("-m m.gguf -md d.gguf --spec-type draft-simple", {"from": "m.gguf", "draft": {"from": "d.gguf"}}),
        ("-m m.gguf --spec-type draft-mtp", {"from": "m.gguf", "draft": {"from": "mtp"}}),
        ("-m m.gguf --chat-template {{x}}", {"from": "m.gguf", "template": {"text": "{{x}}"}}),
        ("-m m.gguf --host 0.0.0.0 --port 1 --jinja", {"from": "m.gguf"}),
    ],
)
def test_a_command_line_becomes_a_model(arguments: str, tree: dict[str, object]) -> None:
    made = model_of(arguments.split())
    assert (made.model, made.left) == (tree, ())


@pytest.mark.parametrize(
    ("environment", "tree", "left"),
    [
        (
            {"LLAMA_ARG_MODEL": "/m.gguf", "LLAMA_ARG_CTX_SIZE": "512"},
            {"from": "/m.gguf", "context": {"size": 512}},
            [],
        ),
        ({"LLAMA_ARG_HF_REPO": "o/r", "LLAMA_ARG_MLOCK": "true"}, {"from": "hf:o/r", "memory": {"mlock": True}}, []),
        ({"LLAMA_ARG_MODEL": "m", "LLAMA_ARG_MLOCK": "0", "LLAMA_ARG_PORT": "1"}, {"from": "m"}, []),
        ({"LLAMA_ARG_MODEL": "m", "HOME": "/", "MY_TOKEN": "x"}, {"from": "m"}, ["HOME=/", "MY_TOKEN=***"]),
        ({"LLAMA_ARG_MODEL": "m", "HTTP_PROXY": "http://u:p@h"}, {"from": "m"}, ["HTTP_PROXY=http://***@h"]),
        (
            {"LLAMA_ARG_MODEL": "m", "LLAMA_ARG_JINJA": "1", "LLAMA_ARG_CONT_BATCHING": "0"},
            {"from": "m"},
            ["LLAMA_ARG_CONT_BATCHING=0"],
        ),
        ({"LLAMA_ARG_MODEL": "m", "LLAMA_ARG_NEW": "1"}, {"from": "m"}, ["LLAMA_ARG_NEW=1"]),
    ],
)
def test_an_environment_becomes_a_model(environment: dict[str, str], tree: dict[str, object], left: list[str]) -> None:
    words, unknown = arguments_of(environment)
    assert (model_of(words).model, unknown) == (tree, left)


def test_adapters_are_carried_with_their_scales() -> None:
    made = model_of(["-m", "m.gguf", "--lora", "a.gguf", "--lora-scaled", "b.gguf:0.5"])
    assert made.model["adapters"] == [{"from": "a.gguf"}, {"from": "b.gguf", "scale": 0.5}]


def test_paths_in_a_container_are_said_as_this_machine_has_them() -> None:
    service = {"image": "ghcr.io/ggml-org/llama.cpp:server", "command": "-m /models/a.gguf"}
    for volumes in (["./weights:/models:ro"], [{"type": "bind", "source": "./weights", "target": "/models"}]):
        found = from_compose({"services": {"s": {**service, "volumes": volumes}}})
        assert (found.models["s"]["from"], found.left_out) == ("./weights/a.gguf", [])
    found = from_compose({"services": {"s": {**service, "volumes": ["named:/models"]}}})
    assert found.left_out == ["services.s: /models/a.gguf is a path inside the container"]


def test_what_a_tool_loads_when_it_starts_is_loaded_at_the_start() -> None:
    found = from_llama_swap(
        {
            "models": {
                "a": {"cmd": "llama-server -m a.gguf", "ttl": 9},
                "b": {"cmd": "docker run x llama-server -m /b"},
            },
            "hooks": {"on_startup": {"preload": ["a", "absent"]}},
        }
    )
    assert found.models["a"]["residency"] == {"load": "at_start", "ttl": "9s"}
    assert found.left_out == [
        "b: /b is a path inside the container", "hooks: preload of absent, which is not imported",
    ]  # fmt: skip


def test_each_argument_without_an_equivalent_is_left_out_without_its_secrets() -> None:
    line = "-m m.gguf -a x,y --unheard -c many --log-file /l -v --no-slots --n -1 --chat-template chatml --a-token t -t"
    made = model_of(line.split())
    assert made.names == ("x", "y")
    assert made.left == (
        "--unheard", "-c many", "--log-file /l", "-v", "--no-slots", "--n -1", "--chat-template chatml",
        "--a-token ***", "-t has no value",
    )  # fmt: skip


def test_a_command_line_without_a_model_is_refused() -> None:
    with pytest.raises(Invalid):
        model_of(["-c", "1"])


def test_llama_swap_becomes_models_and_routes() -> None:
    found = from_llama_swap(
        {
            "macros": {"srv": "/x/llama-server --port ${PORT}"},
            "startPort": 9,
            "models": {
                "q": {"cmd": "${srv} -m ${dir}/q.gguf", "macros": {"dir": "/m"}, "ttl": 60, "aliases": ["gpt"]},
                "u": {"cmd": "${srv} -m ${nowhere}/q.gguf"},
                "v": {"cmd": "vllm serve x"},
                "n": "not a map",
            },
            "unheard": {},
        }
    )
    assert found.models == {"q": {"from": "/m/q.gguf", "residency": {"load": "on_demand", "ttl": "60s"}}}
    assert found.routes == {"gpt": "q"}
    assert found.left_out == [
        "u: the macro ${nowhere} is not set",
        "v: its command runs 'vllm', not a llama.cpp server", "n: it is not a map", "unheard (top level)",
    ]  # fmt: skip


def test_compose_becomes_models_of_hubs_and_llama_services() -> None:
    found = from_compose(
        {
            "services": {
                "llm": {"image": "ghcr.io/ggml-org/llama.cpp:server", "command": "-hf org/repo:Q8_0 -a chat"},
                "db": {"image": "postgres"},
                "o": {"image": "ollama/ollama"},
            },
            "models": {"a": {"model": "ai/x"}, "b": {"model": "hf.co/org/repo", "context_size": 512}},
        }
    )
    assert found.models == {
        "b": {"from": "hf:org/repo", "context": {"size": 512}},
        "llm": {"from": "hf:org/repo:Q8_0"},
    }
    assert found.routes == {"chat": "llm"}
    assert [text.split(":")[0] for text in found.left_out] == ["models.a", "services.o"]


OLLAMA = {
    "OLLAMA_HOST": "0.0.0.0:9000",
    "OLLAMA_KEEP_ALIVE": "24h",
    "OLLAMA_CONTEXT_LENGTH": "8192",
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_FLASH_ATTENTION": 1,
    "OLLAMA_KV_CACHE_TYPE": "q8_0",
    "OLLAMA_MAX_QUEUE": "32",
    "OLLAMA_ORIGINS": "https://ui.example.org,http://localhost:*",
    "OLLAMA_DEBUG": True,
    "OLLAMA_MAX_LOADED_MODELS": "2",
    "OLLAMA_NOPRUNE": "1",
    "OLLAMA_UNHEARD": "x",
    "NVIDIA_VISIBLE_DEVICES": "all",
}


def test_the_settings_of_an_ollama_service_are_those_of_the_manifest() -> None:
    found = from_compose(
        {
            "services": {
                "o": {
                    "image": "ollama/ollama:latest",
                    "ports": ["127.0.0.1:11434:9000", "8:80"],
                    "volumes": ["./ollama:/root/.ollama", "./certs:/certs"],
                    "environment": OLLAMA,
                    "restart": "always",
                    "deploy": {"resources": {}},
                }
            }
        }
    )
    tree = found.tree()
    assert tree == {
        "mullama": "v1",
        "server": {
            "listen": ["127.0.0.1:11434"],
            "limits": {"queue": 32},
            "cors": ["https://ui.example.org", "http://localhost:*"],
        },
        "sources": {"stores": {"ollama": "./ollama/models"}},
        "observability": {"logs": {"level": "debug"}},
        "defaults": {
            "residency": {"ttl": "1d"},
            "context": {"size": 8192, "flash_attention": "on", "kv": {"k": "q8_0", "v": "q8_0"}},
            "limits": {"parallel": 2},
        },
        "models": {},
    }
    load_text(to_yaml(tree), name="m.yaml", base_dir="/", profiles=(), env={})
    assert [text.removeprefix("services.o: ").partition(",")[0] for text in found.left_out] == [
        "its models are in ./ollama/models; mullama import ollama ./ollama/models declares them",
        "volumes ./certs:/certs", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_UNHEARD", "NVIDIA_VISIBLE_DEVICES",
        "restart always", "deploy", "ports 8:80: the server in the container listens at port 9000",
    ]  # fmt: skip
    assert found.notes == ["services.o: OLLAMA_NOPRUNE is not needed: prune.files is off by default"]


@pytest.mark.parametrize(
    ("name", "value", "path", "given"),
    [
        ("OLLAMA_KEEP_ALIVE", "-1", "residency.ttl", "never"),
        ("OLLAMA_KEEP_ALIVE", "-1m", "residency.ttl", "never"),
        ("OLLAMA_KEEP_ALIVE", "0", "residency.ttl", "0s"),
        ("OLLAMA_KEEP_ALIVE", "90", "residency.ttl", "90s"),
        ("OLLAMA_KEEP_ALIVE", "1h30m", "residency.ttl", "90m"),
        ("OLLAMA_KEEP_ALIVE", "${KEEP:-5m}", "residency.ttl", "${KEEP:-5m}"),
        ("OLLAMA_KEEP_ALIVE", "soon", "residency.ttl", None),
        ("OLLAMA_CONTEXT_LENGTH", "0", "context.size", None),
        ("OLLAMA_CONTEXT_LENGTH", "${CTX:-4096}", "context.size", "${CTX:-4096}"),
        ("OLLAMA_FLASH_ATTENTION", "false", "context.flash_attention", "off"),
        ("OLLAMA_KV_CACHE_TYPE", "q7", "context.kv", None),
    ],
)
def test_a_variable_of_ollama_is_converted_or_named(name: str, value: str, path: str, given: str | None) -> None:
    found = from_compose({"services": {"o": {"image": "ollama/ollama", "environment": [f"{name}={value}"]}}})
    tree = found.tree()
    load_text(to_yaml(tree), name="m.yaml", base_dir="/", profiles=(), env={})
    value_there: Any = tree.get("defaults")
    for part in path.split("."):
        value_there = value_there and value_there.get(part)
    assert value_there == given
    assert (f"services.o: {name}={value}, which defaults.{path} cannot express" in found.left_out) is (given is None)


def test_each_problem_of_a_model_is_named() -> None:
    found = from_compose(
        {
            "models": {"a": {"model": "ai/x", "context_size": "many", "unheard": 1}},
            "services": {
                "s": {"provider": {"type": "model", "options": {"model": "hf.co/o/r", "odd": 1}}, "ports": ["1:1"]}
            },
        }
    )
    assert [text.partition(",")[0] for text in found.left_out] == [
        "models.a: context_size", "models.a: unheard", "models.a: ai/x is in a container registry",
        "services.s: ports", "services.s: odd",
    ]  # fmt: skip


def test_settings_of_two_services_that_differ_are_named() -> None:
    def service(size: int) -> dict[str, Any]:
        return {"image": "ollama/ollama", "environment": {"OLLAMA_CONTEXT_LENGTH": size}}

    found = from_compose({"services": {"a": service(1), "b": service(2)}})
    assert found.tree()["defaults"] == {"context": {"size": 1}}
    assert (
        "services.b: OLLAMA_CONTEXT_LENGTH, because defaults.context.size has the value of another service"
        in found.left_out
    )


def test_all_problems_of_a_service_without_a_model_are_named() -> None:
    service = {"image": "llama.cpp:server", "environment": {"LLAMA_ARG_X": 1, "Y": 2}, "restart": "no", "deploy": {}}
    found = from_compose({"services": {"s": service}})
    assert [text.removeprefix("services.s: ").partition(" ")[0] for text in found.left_out] == [
        "LLAMA_ARG_X=1", "Y=2", "restart", "deploy", "the",
    ]  # fmt: skip


@pytest.mark.parametrize("read", [from_llama_swap, from_compose])
def test_another_file_is_refused(read) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Invalid):
        read({"a": 1})


def test_a_folder_becomes_a_model_for_each_set() -> None:
    files = [
        GgufFile(path="/g/A-7B.Q4_K_M.gguf", role="weights", stem="A-7B.Q4_K_M", quant="Q4_K_M"),
        GgufFile(path="/g/b-00001-of-00002.gguf", role="weights", stem="b"),
        GgufFile(path="/g/b-00002-of-00002.gguf", role="weights", stem="b", first=False),
        GgufFile(path="/g/mmproj.gguf", role="projector", stem="mmproj"),
    ]
    found = folder_models(files)
    assert list(found.models) == ["a-7b:q4_k_m", "b"]
    assert found.left_out == ["/g/mmproj.gguf: it is a projector, not a model"]


def test_a_registry_store_becomes_a_model_for_each_name() -> None:
    usual = RegistryRef("registry.ollama.ai", "library", "llama3.2", "1b")
    loading = {"num_ctx": 8192, "temperature": 0.5, "stop": ["END"], "unheard": 1, "numa": True}
    models = [
        RegistryModel(ref=usual, parameters=loading),
        RegistryModel(ref=RegistryRef("registry.ollama.ai", "me", "x", "latest"), renderer="qwen3", template="{{ . }}"),
        RegistryModel(ref=RegistryRef("registry.ollama.ai", "library", "bad", "latest"), problem="it is not whole"),
    ]
    found = registry_models(models)
    on_demand = {"residency": {"load": "on_demand"}}
    assert found.models == {
        "llama3.2:1b": {"from": "ollama:llama3.2:1b", "parameters": {"num_ctx": 8192}, **on_demand},
        "me/x": {"from": str(models[1].ref), **on_demand},
    }
    assert parse_source("ollama:llama3.2:1b") == usual
    assert found.left_out == [
        "llama3.2:1b: the parameter unheard, which is unknown",
        "me/x: its renderer qwen3; its Go template is used",
        "bad: it is not whole",
    ]
    assert found.notes == ["llama3.2:1b: the parameter numa has no effect"]


GO = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}${x}{{ end }}"


@pytest.mark.parametrize(
    ("template", "weights", "renderer", "declared", "left"),
    [
        (GO, True, "", GO, []),
        (GO, False, "", None, []),  # the template of the layer applies by itself
        ("", True, "", None, []),
        (GO, True, "harmony", None, ["a: its renderer harmony; the template in the weights file is used"]),
        ("", False, "harmony", None, ["a: its renderer harmony; set `template`"]),
        ("silent", True, "", None, [
            "a: its Go template (the template does not render the user's message); "
            "the template in the weights file is used",
        ]),
        ("silent", False, "", None, [
            "a: its Go template (the template does not render the user's message); set `template`",
        ]),
    ],
)  # fmt: skip
def test_a_go_template_is_imported_if_it_can_be_rendered(
    template: str, weights: bool, renderer: str, declared: str | None, left: list[str]
) -> None:
    ref = RegistryRef("registry.ollama.ai", "library", "a", "latest")
    found = registry_models([
        RegistryModel(ref=ref, template=template, weights_template=weights, renderer=renderer)
    ])  # fmt: skip
    assert found.left_out == left
    loaded = load_text(to_yaml(found.tree()), name="x", base_dir="/", profiles=(), env={}).manifest.models["a"]
    if declared is None:
        assert loaded.template is None
    else:
        assert loaded.template is not None
        assert (loaded.template.text, loaded.template.syntax) == (declared, "go")


def test_a_store_elsewhere_is_named_in_the_manifest() -> None:
    found = registry_models([RegistryModel(ref=RegistryRef("registry.ollama.ai", "library", "a", "latest"))])
    found.stores["ollama"] = "/srv/ollama"
    assert found.tree()["sources"] == {"stores": {"ollama": "/srv/ollama"}}


def test_an_import_is_a_valid_manifest() -> None:
    found = from_llama_swap({"models": {"q w": {"cmd": "llama-server -m /m/q.gguf -ctk q8_0 -t 4", "aliases": ["y"]}}})
    loaded = load_text(to_yaml(found.tree()), name="x", base_dir="/", profiles=(), env={})
    assert list(loaded.manifest.models) == ["q-w"]
    assert (found.left_out, found.notes) == ([], ["the name 'q w' was changed to 'q-w'"])


def test_a_second_name_is_a_note_and_a_taken_alias_is_left_out() -> None:
    found = from_llama_swap({
        "models": {
            "X": {"cmd": "llama-server -m /x.gguf", "aliases": ["y", "Z z"]},
            "x": {"cmd": "llama-server -m /x.gguf --alias y,x-2"},
            "y": {"cmd": "llama-server -m /y.gguf"},
        }
    })  # fmt: skip
    assert list(found.models) == ["X", "x-2", "y"]
    assert found.routes == {"Z-z": "X"}
    assert found.notes == ["the name 'x' was changed to 'x-2'", "the name 'Z z' was changed to 'Z-z'"]
    assert found.left_out == ["X: the alias 'y', which is a name of y", "x: the alias 'y', which is a name of y"]


LLAMA = {"image": "ghcr.io/ggml-org/llama.cpp:server"}


@pytest.mark.parametrize(
    ("service", "listen", "left", "notes"),
    [
        ({"ports": ["127.0.0.1:8080:8080"]}, ["127.0.0.1:8080"], [], []),
        ({"ports": ["[::1]:81:8080/tcp"]}, ["[::1]:81"], [], []),
        ({"ports": ["9000:8080"], "command": "-m m --api-key ${K}"}, ["0.0.0.0:9000"], [], []),
        ({"ports": ["9000:8080"], "environment": ["LLAMA_API_KEY"]}, ["0.0.0.0:9000"], [], []),
        ({"ports": ["192.0.2.1:9:8"], "command": "-m m --port 8 --api-key $K"}, ["192.0.2.1:9"], [], []),
        ({"ports": [{"target": 8080, "published": "81", "host_ip": "::1"}]}, ["[::1]:81"], [], []),
        ({"ports": ["9000:8080"]}, ["127.0.0.1:9000"], [
            "ports 9000:8080: server.listen has 127.0.0.1:9000, because an address for other machines needs auth.keys"
        ], []),
        ({"ports": 8080, "command": "-m m --api-key ${K}"}, ["0.0.0.0:8080"], [], [
            "ports 8080: Compose chooses the port of this machine; server.listen has 8080"
        ]),
        ({"ports": ["1:9"]}, None, ["ports 1:9: the server in the container listens at port 8080"], []),
        ({"ports": ["1-3:8080"]}, None, ["ports 1-3:8080: it is not one TCP port"], []),
        ({"ports": ["99999:8080"]}, None, ["ports 99999:8080: 99999 is not a port"], []),
        ({"ports": ["8080:8080/udp"]}, None, ["ports 8080:8080/udp: it is not one TCP port"], []),
        ({"network_mode": "host"}, ["127.0.0.1:8080"], [], []),
        ({"network_mode": "bridge", "deploy": {}, "restart": "always"}, None,
         ["network_mode bridge", "deploy", "restart always"], []),
        ({"environment": {"CUDA_VISIBLE_DEVICES": 0, "S_KEY": "v"}}, None,
         ["CUDA_VISIBLE_DEVICES=0", "S_KEY=***"], []),
        ({"volumes": ["c:/root/.cache", "./l:/logs"]}, None, ["volumes c:/root/.cache", "volumes ./l:/logs"], []),
        ({"entrypoint": ["/app/llama-server", "-m", "m"], "command": "-v"}, None, ["-v"], []),
    ],
)  # fmt: skip
def test_compose_carries_ports_and_reports_each_other_line(
    service: dict[str, object], listen: list[str] | None, left: list[str], notes: list[str]
) -> None:
    found = from_compose({"services": {"s": {"command": "-m m", **LLAMA, **service}}})
    assert found.server.get("listen") == listen
    assert found.left_out == [f"services.s: {text}" for text in left]
    assert found.notes == [f"services.s: {text}" for text in notes]
    load_text(to_yaml(found.tree()), name="x", base_dir="/", profiles=(), env={"K": "k", "LLAMA_API_KEY": "k"})


STEP = "because a manifest contains no secrets; set {0} to the value where the server runs"


@pytest.mark.parametrize(
    ("service", "secrets", "notes"),
    [
        ({"command": "-m m --api-key sekret"}, [{"from_env": "API_KEY_S"}],
         ["services.s: --api-key is from_env: API_KEY_S, " + STEP.format("API_KEY_S")]),
        ({"command": "-m m --api-key=one,two"}, [{"from_env": "API_KEY_S"}, {"from_env": "API_KEY_S_2"}],
         [f"services.s: --api-key is from_env: {name}, " + STEP.format(name) for name in ("API_KEY_S", "API_KEY_S_2")]),
        ({"command": "-m m", "environment": {"LLAMA_API_KEY": "sekret"}}, [{"from_env": "API_KEY_S"}],
         ["services.s: --api-key is from_env: API_KEY_S, " + STEP.format("API_KEY_S")]),
        ({"command": "-m m", "environment": {"LLAMA_API_KEY": None}}, [{"from_env": "LLAMA_API_KEY"}], []),
        ({"command": "-m m --api-key $KEY"}, [{"from_env": "KEY"}], []),
        ({"command": "-m m --api-key ${KEY:-sekret}"}, [{"from_env": "KEY"}],
         ["services.s: --api-key is from_env: KEY, " + STEP.format("KEY")]),
        ({"command": "-m m --api-key-file /run/secrets/k", "secrets": ["k"]}, [{"from_file": "./k.txt"}],
         ["services.s: --api-key-file is auth.keys with from_file: ./k.txt; the file must hold one key"]),
        ({"command": "-m m --api-key-file /k/key", "volumes": ["./d:/k"]}, [{"from_file": "./d/key"}],
         ["services.s: --api-key-file is auth.keys with from_file: ./d/key; the file must hold one key"]),
        ({"command": "-m m --api-key-file /run/secrets/e", "secrets": [{"source": "e"}]}, [{"from_env": "E"}], []),
    ],
)  # fmt: skip
def test_keys_become_references_and_no_secret_is_written(
    service: dict[str, object], secrets: list[dict[str, str]], notes: list[str]
) -> None:
    tree = {
        "services": {"s": {**LLAMA, **service}},
        "secrets": {"k": {"file": "./k.txt"}, "e": {"environment": "E"}},
    }
    found = from_compose(tree)
    assert list(found.keys.values()) == [{"secret": secret} for secret in secrets]
    assert (found.left_out, found.notes) == ([], notes)
    assert "sekret" not in to_yaml(found.tree())


def test_a_key_opens_its_models_and_those_without_a_key() -> None:
    server = "llama-server -m /m.gguf"
    found = from_llama_swap({
        "models": {
            "a": {"cmd": f"{server} --api-key ${{env.A}}", "aliases": ["x"]},
            "b": {"cmd": f"{server} --api-key ${{env.B}}"},
            "c": {"cmd": server},
        }
    })  # fmt: skip
    assert found.keys == {
        "a": {"secret": {"from_env": "A"}, "models": ["a", "c", "x"]},
        "b": {"secret": {"from_env": "B"}, "models": ["b", "c"]},
    }
    assert found.notes == ["c: it had no API key; clients need one of auth.keys"]
    found = from_llama_swap({"models": {"c": {"cmd": server}}, "apiKeys": ["sk-1", "${env.K}"], "globalTTL": 9})
    assert found.keys == {
        "client": {"secret": {"from_env": "API_KEY_CLIENT"}},
        "client-2": {"secret": {"from_env": "K"}},
    }
    assert found.notes == ["apiKeys[0]: the key is from_env: API_KEY_CLIENT, " + STEP.format("API_KEY_CLIENT")]
    assert found.models["c"]["residency"] == {"load": "on_demand", "ttl": "9s"}


def test_llama_swap_reports_each_setting_that_has_no_equivalent() -> None:
    entry = {
        "cmd": "llama-server -m /m.gguf --hf-token secret", "env": ["LLAMA_ARG_CTX_SIZE=9", "A_KEY=v"],
        "ttl": "soon", "concurrencyLimit": 3, "unlisted": True, "proxy": "http://localhost:1",
    }  # fmt: skip
    found = from_llama_swap({"models": {"m": entry}, "logLevel": "debug", "hooks": {"on_startup": {"x": 1}, "y": 2}})
    assert found.models["m"]["context"] == {"size": 9}
    assert found.hub == {"token": {"from_env": "HF_TOKEN"}}
    assert found.left_out == [
        "m: ttl soon", "m: A_KEY=***", "m: concurrencyLimit", "m: unlisted", "hooks: y", "hooks: on_startup.x",
        "logLevel (top level)",
    ]  # fmt: skip
    assert found.notes == [
        "m: proxy is not needed",
        "m: --hf-token is from_env: HF_TOKEN, " + STEP.format("HF_TOKEN"),
    ]


def test_compose_maps_each_path_in_the_container_and_models_of_providers() -> None:
    line = "-m /w/m.gguf --mmproj /w/p.gguf --lora /w/sub/l.gguf -md /d.gguf --ssl-cert-file /w/c --ssl-key-file /w/k"
    found = from_compose({
        "name": "stack",
        "services": {
            "s": {**LLAMA, "command": line, "volumes": ["${HOME:-/h}/g:/w"]},
            "p": {"provider": {"type": "model", "options": {"model": "hf.co/o/r", "context-size": 64}}},
            "db": {"image": "postgres"},
        },
        "networks": {},
    })  # fmt: skip
    home = "${HOME:-/h}/g"
    assert found.tree()["metadata"] == {"name": "stack"}
    assert found.models["s"] == {
        "from": f"{home}/m.gguf", "mmproj": f"{home}/p.gguf", "draft": {"from": "/d.gguf"},
        "adapters": [{"from": f"{home}/sub/l.gguf"}],
    }  # fmt: skip
    assert found.models["p"] == {"from": "hf:o/r", "context": {"size": 64}}
    assert found.server == {"tls": {"cert": f"{home}/c", "key": f"{home}/k"}}
    assert found.left_out == ["services.s: /d.gguf is a path inside the container"]
    assert found.notes == [
        "services.db: it runs no llama.cpp server, and is not imported", "networks (top level) is not imported",
    ]  # fmt: skip


def test_long_names_of_files_stay_apart() -> None:
    found = Imported()
    names = [found.add("x" * 90 + end, {}) for end in ("", "y", "z")]
    assert names == ["x" * 80, "x" * 78 + "-2", "x" * 78 + "-3"]
    assert [ModelName.parse(name).text for name in names] == names


@given(
    st.lists(
        st.sampled_from(["-m", "-c", "1", "-fa", "x", "--alias", "-hf", "o/r", "--temp=2", "-np", "0"]), max_size=8
    )
)
def test_no_command_line_breaks_the_reading(arguments: list[str]) -> None:
    try:
        tree = model_of(arguments).model
    except Invalid:
        return
    assert tree["from"]


def test_values_of_another_kind_do_not_vanish() -> None:
    found = from_compose({"services": {"s": {"command": "-m m", **LLAMA}, "t": "text"}, "models": ["x"]})
    assert found.left_out == ["models: it is not a map", "services.t: it is not a map"]
    swap = from_llama_swap({"models": {"q": {"cmd": "llama-server -m m", "aliases": "one"}}})
    assert swap.routes == {"one": "q"}


def test_an_address_with_a_secret_is_noted_without_it() -> None:
    line = "--model-url https://h/x.gguf?sig=S --proxy http://u:p@h/?k=v"
    found = from_compose({"services": {"s": {**LLAMA, "command": line}}})
    assert found.models["s"] == {"from": "https://h/x.gguf?sig=S"}
    assert found.left_out == ["services.s: --proxy http://***@h/?k=***"]
    assert found.notes == [
        "services.s: the manifest has the address https://h/x.gguf?sig=***; "
        "write a secret of its query as from_env:NAME"
    ]


def test_equal_keys_share_a_variable_and_different_ones_do_not() -> None:
    given = {"a-b": "one", "a.b": "two", "a_b": "one", "c": "x,y", "c-2": "z"}
    found = from_compose({
        "services": {name: {**LLAMA, "command": f"-m m --api-key {key}"} for name, key in given.items()}
    })  # fmt: skip
    assert {name: (key["secret"]["from_env"], key["models"]) for name, key in found.keys.items()} == {
        "a-b": ("API_KEY_A_B", ["a-b", "a_b"]),
        "a.b": ("API_KEY_A_B_2", ["a.b"]),
        "c": ("API_KEY_C", ["c"]),
        "c-2": ("API_KEY_C_2", ["c"]),
        "c-2-2": ("API_KEY_C_2_2", ["c-2"]),
    }
    tokens = {name: {**LLAMA, "command": f"-m m --hf-token {name}"} for name in ("s", "t")}
    left = from_compose({"services": tokens}).left_out
    assert left == ["services.t: --hf-token ***, because sources.hf has one token"]
