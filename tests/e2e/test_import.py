"""`mullama import`: models of other tools are served from where they are, and what is left out is reported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import Stack, tiny_variant

MINE = tiny_variant(9)
GO = b"{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{ .Prompt }}"
GGUF = {"model_format": "gguf", "model_family": "llama", "model_type": "5.6M", "file_type": "Q8_0"}


class OllamaStore:
    """Writes a store in the layout of Ollama: blobs by digest, and a manifest for each name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs").mkdir(parents=True)

    def blob(self, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs" / f"sha256-{digest}").write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def model(self, place: str, *layers: tuple[str, bytes], config: dict[str, Any] | None = None) -> None:
        settings = json.dumps(GGUF if config is None else config).encode()
        tree = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **self.blob(settings)},
            "layers": [{"mediaType": f"application/vnd.ollama.image.{k}", **self.blob(data)} for k, data in layers],
        }
        path = self.root / "manifests" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(tree))

    def bytes_by_name(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> OllamaStore:
    made = OllamaStore(tmp_path / "elsewhere")
    params = json.dumps({"temperature": 0, "num_predict": 3, "num_ctx": 512, "stop": ["END"]}).encode()
    messages = json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]).encode()
    made.model(
        "registry.ollama.ai/library/hello/latest",
        ("model", MINE), ("template", GO), ("system", b"You are brief."), ("params", params), ("messages", messages),
        ("license", b"MIT"), ("license", b"and more"),
    )  # fmt: skip
    made.model("registry.ollama.ai/me/own/1b", ("model", MINE), config={**GGUF, "renderer": "qwen3-coder"})
    made.model("hf.co/user/Some-GGUF/Q8_0", ("model", MINE))
    made.model("registry.ollama.ai/library/tensors/latest", ("tensor", b"x"), config={"model_format": "safetensors"})
    made.model("registry.ollama.ai/library/broken/latest", ("model", b"gone"))
    (made.root / "blobs" / f"sha256-{hashlib.sha256(b'gone').hexdigest()}").unlink()
    (made.root / "manifests/registry.ollama.ai/library/hello/.DS_Store").write_text("no manifest")
    (made.root / "blobs" / f"sha256-{'a' * 64}-partial").write_bytes(b"x")
    return made


def test_models_of_ollama_are_served_in_place_with_their_settings(empty_stack: Stack, store: OllamaStore) -> None:
    before = store.bytes_by_name()
    imported = empty_stack.run("import", "ollama", "elsewhere", "-o", "mullama.yaml", code=8)
    left = [line for line in imported.stderr.splitlines() if line.startswith("left out: ")]
    assert sorted(line.split(": ")[1] for line in left) == ["broken", "me/own:1b", "tensors"]
    assert "its renderer qwen3-coder" in imported.stderr
    assert "not in GGUF form" in imported.stderr

    empty_stack.run("validate")
    empty_stack.manifest.write_text('server: {listen: ["127.0.0.1:0"]}\n' + empty_stack.manifest.read_text())
    empty_stack.apply()

    shown = empty_stack.json("show", "hello", "--json")
    assert shown["paths"][0].startswith(str(store.root))
    assert (shown["system"], shown["license"]) == ("You are brief.", "MIT\n\nand more")
    assert shown["template"] == GO.decode(), "the template of Ollama, not that of the weights file"
    assert shown["parameters"] == {"temperature": 0, "num_predict": 3, "num_ctx": 512, "stop": ["END"]}
    answered = empty_stack.json("run", "hello", "Say hello", "--json")
    plain = empty_stack.json("run", "me/own:1b", "Say hello", "--json", "-n", "3")
    assert answered["tokens"] <= 3
    assert answered["prompt_tokens"] > plain["prompt_tokens"], "system prompt and messages are in the prompt"
    assert empty_stack.run("run", "user/some-gguf:q8_0", "hi", "-n", "2", "--think", "false").stdout.strip()
    assert store.bytes_by_name() == before, "the store was not changed"
    assert empty_stack.run("cache", "size").stdout.startswith("0 B"), "and nothing was copied"


def test_a_folder_is_served_in_place(empty_stack: Stack) -> None:
    folder = empty_stack.home / "weights" / "sub"
    folder.mkdir(parents=True)
    (folder.parent / "Tiny Model.Q8_0.gguf").write_bytes(MINE)
    (folder / "broken.gguf").write_bytes(b"GG")
    (folder / "part-00001-of-00002.gguf").write_bytes(MINE)
    (folder / "mmproj-x-f16.gguf").write_bytes(MINE)
    imported = empty_stack.run("import", "dir", "weights", "-o", "mullama.yaml", code=8)
    assert "broken.gguf: " in imported.stderr
    assert "its part part-00002-of-00002.gguf is missing" in imported.stderr
    assert "it is a projector" in imported.stderr
    empty_stack.manifest.write_text('server: {listen: ["127.0.0.1:0"]}\n' + empty_stack.manifest.read_text())
    empty_stack.apply()
    assert empty_stack.run("run", "tiny-model:q8_0", "Hello", "-n", "2", "--think", "false").stdout.strip()


def test_a_configuration_of_llama_swap_is_served(empty_stack: Stack) -> None:
    (empty_stack.home / "m.gguf").write_bytes(MINE)
    (empty_stack.home / "swap.yaml").write_text(
        "macros:\n  srv: llama-server --port ${PORT}\n"
        "models:\n  q:\n    cmd: |\n      # a comment\n      ${srv}\n      -m m.gguf -c 512 --temp 0 \\\n      -n 2\n"
        "    aliases: [gpt]\n    ttl: 60\n    filters: {strip_params: top_p}\n"
        "hooks: {on_startup: {preload: [q]}}\n"
    )
    imported = empty_stack.run("import", "llama-swap", "swap.yaml", "-o", "mullama.yaml", code=8)
    assert imported.stderr == "left out: q: filters\n"
    empty_stack.manifest.write_text('server: {listen: ["127.0.0.1:0"]}\n' + empty_stack.manifest.read_text())
    empty_stack.apply()
    assert empty_stack.json("run", "gpt", "Hello", "--json")["tokens"] <= 2
    assert empty_stack.json("show", "q", "--json")["context"] == 512


def test_a_compose_file_becomes_a_manifest(empty_stack: Stack) -> None:
    (empty_stack.home / "weights").mkdir()
    (empty_stack.home / "weights/m.gguf").write_bytes(MINE)
    (empty_stack.home / "compose.yaml").write_text(
        "services:\n  llm:\n    image: ghcr.io/ggml-org/llama.cpp:server\n    volumes: [./weights:/models]\n"
        "    environment: [LLAMA_ARG_MODEL=/models/m.gguf, LLAMA_ARG_CTX_SIZE=512]\n"
        "    ports: ['127.0.0.1:0:8080']\n    command: --api-key sekret\n"
        "  db: {image: postgres}\n"
    )
    imported = empty_stack.run("import", "compose", "compose.yaml", "-o", "mullama.yaml")
    assert imported.stderr == (
        "note: services.llm: --api-key is from_env: API_KEY_LLM, because a manifest contains no secrets; "
        "set API_KEY_LLM to the value where the server runs\n"
        "note: services.db: it runs no llama.cpp server, and is not imported\n"
    )
    text = empty_stack.manifest.read_text()
    assert "sekret" not in text
    assert 'listen:\n    - "127.0.0.1:0"\n' in text
    # This server has no variable for the key, and takes a free port.
    models = text[text.index("models:") :]
    empty_stack.manifest.write_text(f'mullama: v1\nserver: {{listen: ["127.0.0.1:0"]}}\n{models}')
    empty_stack.apply()
    assert empty_stack.run("run", "llm", "Hello", "-n", "2", "--think", "false").stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ollama", "nowhere"), 3, "no Ollama model found in"),
        (("dir", "nowhere"), 3, "is not a folder"),
        (("dir",), 4, "import dir needs a path"),
        (("compose", "absent.yaml"), 3, "absent.yaml"),
        (("llama-swap", "broken.yaml"), 4, "broken.yaml:1:9: this bracket is not closed"),
    ],
)
def test_a_missing_or_broken_input_is_an_error(
    empty_stack: Stack, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (empty_stack.home / "broken.yaml").write_text("models: [unclosed\n")
    assert message in empty_stack.run("import", *arguments, code=code).stderr
