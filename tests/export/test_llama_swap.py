"""The configuration of llama-swap: the importer reads the same models from it, and what it cannot have is named."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mullama.errors import NotFound, Unsupported
from mullama.export import TARGETS, Exported
from mullama.manifest.importing import from_llama_swap
from tests.export.builders import given


def export(text: str, **options: Any) -> Exported:
    return TARGETS["llama-swap"].export(given(text, **options))


def swapped(text: str, **options: Any) -> dict[str, Any]:
    found = yaml.safe_load(export(text, **options).files[0].text)
    assert isinstance(found, dict)
    return found


def command(text: str, **options: Any) -> list[str]:
    [entry] = swapped(text, **options)["models"].values()
    return str(entry["cmd"]).splitlines()[1:]


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        ("{from: 'hf:org/repo:Q4_K_M'}", ["--hf-repo org/repo:Q4_K_M", "--parallel 4"]),
        ("{from: 'hf:org/repo:m-Q8_0.gguf', limits: {parallel: 1}}",
         ["--hf-repo org/repo --hf-file m-Q8_0.gguf", "--parallel 1"]),
        ("{from: 'builtin:tiny', context: {size: 1024, kv: {k: q8_0}}, limits: {parallel: 2}}",
         ["--model '/w/my tiny.gguf'", "--ctx-size 2048", "--parallel 2", "--cache-type-k q8_0"]),
        ("{from: 'builtin:tiny', gpu: {layers: {'0': 30, '1': 18}, split: row, experts: all}, memory: {mmap: false}}",
         ["--model '/w/my tiny.gguf'", "--parallel 4", "--gpu-layers 48 --tensor-split 30,18", "--cpu-moe",
          "--split-mode row", "--no-mmap"]),
        ("{from: 'builtin:tiny', task: embedding, parameters: {temperature: 0.3, seed: 7}}",
         ["--model '/w/my tiny.gguf'", "--parallel 4", "--temp 0.3", "--seed 7", "--embeddings"]),
    ],
)  # fmt: skip
def test_the_settings_of_a_model_are_arguments(model: str, lines: list[str]) -> None:
    assert command(f"models: {{a: {model}}}", weights={"builtin:tiny": "/w/my tiny.gguf"}) == lines


def test_the_importer_reads_the_models_back() -> None:
    text = """
        models:
          a:
            from: hf:org/repo:Q4_K_M
            context: {size: 4096, batch: 256, threads: 4, flash_attention: "on"}
            gpu: {layers: 20}
            parameters: {temperature: 0.5, top_k: 10, dry_multiplier: 0.8, mirostat: 2, num_predict: 64}
            residency: {ttl: 10m, load: on_demand}
            limits: {parallel: 3}
          b: {from: /w/b.gguf, memory: {mlock: true}, mmproj: /w/p.gguf}
        routes: {gpt: a}
    """
    tree = swapped(text, weights={"/w/b.gguf": "/w/b.gguf", "/w/p.gguf": "/w/p.gguf"})
    back = from_llama_swap(tree).models
    first = dict(back["a"])
    assert first["context"] == {"size": 4096, "batch": 256, "threads": 4, "flash_attention": "on"}
    assert first["gpu"] == {"layers": 20}
    assert first["parameters"] == {
        "temperature": 0.5, "top_k": 10, "dry_multiplier": 0.8, "mirostat": 2, "num_predict": 64,
    }  # fmt: skip
    assert first["residency"] == {"load": "on_demand", "ttl": "600s"}
    assert (first["from"], first["limits"]) == ("hf:org/repo:Q4_K_M", {"parallel": 3})
    assert (back["b"]["from"], back["b"]["mmproj"], back["b"]["memory"]) == ("/w/b.gguf", "/w/p.gguf", {"mlock": True})
    assert back["b"]["residency"]["load"] == "at_start"


def test_keys_groups_and_routes_are_carried_over() -> None:
    text = """
        models:
          a: hf:o/r:Q8_0
          b: {from: 'hf:o/s:Q8_0', residency: {load: on_demand}, force: {temperature: 0}, strip: [seed, stop]}
        routes: {default: a, exact: {to: [{model: b}], force: {top_k: 1}}}
        groups: {big: {models: [a, b], max: 1}}
    """
    tree = swapped(text)
    assert tree["apiKeys"] == ["${env.TEAM_KEY}"]
    assert tree["models"]["a"]["aliases"] == ["default"]
    filters = tree["models"]["b"]["filters"]
    assert filters == {
        "stripParams": "seed, stop", "setParams": {"temperature": 0.0}, "setParamsByID": {"exact": {"top_k": 1}},
    }  # fmt: skip
    assert tree["groups"] == {"big": {"swap": True, "exclusive": False, "members": ["a", "b"]}}


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("models: {a: {from: 'hf:o/r:Q8_0', system: Hi.}}", "a: llama-swap cannot have system"),
        ("models: {a: {from: 'hf:o/r:Q8_0', draft: ngram}}", "a: llama-swap cannot have draft.from: ngram"),
        ("models: {a: {from: 'hf:o/r:Q8_0', thinking: {budget: 9}}}", "a: llama-swap cannot have thinking"),
        ("models: {a: 'hf:o/r:Q8_0', b: 'hf:o/s:Q8_0'}\nroutes: {r: {to: [a, b]}}",
         "routes.r: llama-swap has no weights and no fallback; a answers"),
        ("peers: {p: {url: 'http://x:1'}}\nmodels: {a: 'hf:o/r:Q8_0'}\nroutes: {r: a@p}",
         "routes.r: llama-swap cannot have models of peers in a route"),
        ("auth: {keys: {k: {secret: {from_file: /k}}}}\nmodels: {a: 'hf:o/r:Q8_0'}",
         "llama-swap reads API keys from the environment only: those of files are left out"),
    ],
)  # fmt: skip
def test_what_llama_swap_cannot_have_is_named(text: str, note: str) -> None:
    assert note in export(text).notes


def test_a_route_to_a_peer_is_no_alias_of_a_model_with_the_same_name() -> None:
    text = "peers: {p: {url: 'http://x:1'}}\nmodels: {a: 'hf:o/r:Q8_0'}\nroutes: {r: a@p, s: {to: [a@p, a]}}"
    assert swapped(text)["models"]["a"]["aliases"] == ["s"]


def test_a_file_that_is_not_stored_is_refused() -> None:
    with pytest.raises(Unsupported, match="a: hf:o/r:Q8_0@abc is not stored"):
        export("models: {a: 'hf:o/r:Q8_0@abc'}")
    with pytest.raises(NotFound, match="no model 'c'"):
        export("models: {a: 'hf:o/r:Q8_0'}", models=("c",))
