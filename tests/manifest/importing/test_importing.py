"""What other tools' configurations become, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.errors import Invalid
from mullama.manifest.importing import (
    GgufFile,
    RegistryModel,
    folder_models,
    from_compose,
    from_llama_swap,
    registry_models,
)
from mullama.manifest.importing.flags import arguments_of, model_of
from mullama.manifest.importing.found import fitting
from mullama.manifest.load import load_text
from mullama.names import ModelName, RegistryRef, parse_source


@pytest.mark.parametrize(
    ("arguments", "tree"),
    [
        ("-m /m.gguf", {"from": "/m.gguf"}),
        ("-hf org/repo:Q8_0 -c 0", {"from": "hf:org/repo:Q8_0"}),
        ("-hf org/repo -hff a.gguf", {"from": "hf:org/repo:a.gguf"}),
        ("-hf org/repo:Q8_0 --hf-file a.gguf", {"from": "hf:org/repo:a.gguf"}),
        ("-m m.gguf -c 8192 -np 4", {"from": "m.gguf", "context": {"size": 2048}, "limits": {"parallel": 4}}),
        ("--model=m.gguf -ngl 99", {"from": "m.gguf", "gpu": {"layers": "all"}}),
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
        ("-m m.gguf --host 0.0.0.0 --port 1 --jinja", {"from": "m.gguf"}),
    ],
)
def test_a_command_line_becomes_a_model(arguments: str, tree: dict[str, object]) -> None:
    made, _, left = model_of(arguments.split())
    assert (made, left) == (tree, ())


@pytest.mark.parametrize(
    ("environment", "tree", "left"),
    [
        (
            {"LLAMA_ARG_MODEL": "/m.gguf", "LLAMA_ARG_CTX_SIZE": "512"},
            {"from": "/m.gguf", "context": {"size": 512}},
            [],
        ),
        ({"LLAMA_ARG_HF_REPO": "o/r", "LLAMA_ARG_MLOCK": "true"}, {"from": "hf:o/r", "memory": {"mlock": True}}, []),
        ({"LLAMA_ARG_MODEL": "m", "LLAMA_ARG_MLOCK": "0", "HOME": "/", "LLAMA_ARG_PORT": "1"}, {"from": "m"}, []),
        ({"LLAMA_ARG_MODEL": "m", "LLAMA_ARG_NEW": "1"}, {"from": "m"}, ["LLAMA_ARG_NEW=1"]),
    ],
)
def test_an_environment_becomes_a_model(environment: dict[str, str], tree: dict[str, object], left: list[str]) -> None:
    words, unknown = arguments_of(environment)
    assert (model_of(words)[0], unknown) == (tree, left)


def test_adapters_are_carried_with_their_scales() -> None:
    made, _, _ = model_of(["-m", "m.gguf", "--lora", "a.gguf", "--lora-scaled", "b.gguf:0.5"])
    assert made["adapters"] == [{"from": "a.gguf"}, {"from": "b.gguf", "scale": 0.5}]


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
    assert found.left_out == ["b: /b is a path inside the container"]


def test_what_has_no_word_is_said() -> None:
    _, names, left = model_of(["-m", "m.gguf", "-a", "x,y", "--rope-scaling", "yarn", "--unheard", "-c", "many", "-t"])
    assert names == ("x", "y")
    assert left == ("--rope-scaling yarn", "--unheard", "-c many", "-t has no value")


def test_a_command_line_without_a_model_is_refused() -> None:
    with pytest.raises(Invalid):
        model_of(["-c", "1"])


def test_llama_swap_becomes_models_and_routes() -> None:
    found = from_llama_swap(
        {
            "macros": {"srv": "/x/llama-server --port ${PORT}"},
            "models": {
                "q": {"cmd": "${srv} -m ${dir}/q.gguf", "macros": {"dir": "/m"}, "ttl": 60, "aliases": ["gpt"]},
                "v": {"cmd": "vllm serve x"},
                "n": "not a map",
            },
            "unheard": {},
        }
    )
    assert found.models == {"q": {"from": "/m/q.gguf", "residency": {"load": "on_demand", "ttl": "60s"}}}
    assert found.routes == {"gpt": "q"}
    assert len(found.left_out) == 3


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
    loading = {"num_ctx": 8192, "temperature": 0.5, "stop": ["END"], "unheard": 1}
    models = [
        RegistryModel(ref=usual, parameters=loading, own_template=True),
        RegistryModel(ref=RegistryRef("registry.ollama.ai", "me", "x", "latest"), renderer="qwen3"),
        RegistryModel(ref=RegistryRef("registry.ollama.ai", "library", "bad", "latest"), problem="it is not whole"),
    ]
    found = registry_models(models)
    on_demand = {"residency": {"load": "on_demand"}}
    assert found.models == {
        "llama3.2:1b": {"from": "ollama:llama3.2:1b", "parameters": {"num_ctx": 8192}, **on_demand},
        "me/x": {"from": str(models[1].ref), **on_demand},
    }
    assert parse_source("ollama:llama3.2:1b") == usual
    assert [text.split(";")[0] for text in found.left_out] == [
        "llama3.2:1b: the parameter unheard, which is unknown",
        "llama3.2:1b: its Go template",
        "me/x: its renderer qwen3",
        "bad: it is not whole",
    ]


def test_a_store_elsewhere_is_named_in_the_manifest() -> None:
    found = registry_models([RegistryModel(ref=RegistryRef("registry.ollama.ai", "library", "a", "latest"))])
    found.stores["ollama"] = "/srv/ollama"
    assert found.tree()["sources"] == {"stores": {"ollama": "/srv/ollama"}}


def test_an_import_is_a_valid_manifest() -> None:
    from mullama.manifest.dump import to_yaml

    found = from_llama_swap({"models": {"q w": {"cmd": "llama-server -m /m/q.gguf -ctk q8_0 -t 4", "aliases": ["y"]}}})
    loaded = load_text(to_yaml(found.tree()), name="x", base_dir="/", profiles=(), env={})
    assert list(loaded.manifest.models) == ["q-w"]
    assert found.left_out == ["the name 'q w' was changed to 'q-w'"]


@given(st.text(max_size=200))
def test_any_text_becomes_a_name_that_clients_can_call(text: str) -> None:
    assert ModelName.parse(fitting(text)).text == fitting(text)


@given(
    st.lists(
        st.sampled_from(["-m", "-c", "1", "-fa", "x", "--alias", "-hf", "o/r", "--temp=2", "-np", "0"]), max_size=8
    )
)
def test_no_command_line_breaks_the_reading(arguments: list[str]) -> None:
    try:
        tree, _, _ = model_of(arguments)
    except Invalid:
        return
    assert tree["from"]
