"""A parsed Modelfile as a value, and the tables of its words."""

from __future__ import annotations

from typing import Literal

from mullama.chat.sampling_fields import SAMPLING_FIELDS
from mullama.names import JSONValue
from mullama.problems import Problem
from mullama.struct import Struct

# File names of the Modelfile in a folder, in order of preference.
NAMES = ("Mullamafile", "Modelfile", "mullamafile", "modelfile", ".mullamafile", ".modelfile")

Kind = Literal["whole", "number", "truth", "text"]

PARAMETERS: dict[str, Kind] = {
    **{field.name: "whole" if field.type is int else "number" for field in SAMPLING_FIELDS.values()},
    **dict.fromkeys(("num_ctx", "num_predict", "num_keep", "num_batch", "num_thread", "num_gpu", "main_gpu"), "whole"),
    "use_mmap": "truth",
    "use_mlock": "truth",
    "draft_num_predict": "whole",
    "stop": "text",
}
"""The names of PARAMETER that have an effect, with the kind of their values."""

# Parameters of older versions of Ollama: parsed and checked, with a warning, because they have no effect.
WITHOUT_EFFECT: dict[str, Kind] = {
    "tfs_z": "number",
    **dict.fromkeys(("numa", "low_vram", "penalize_newline", "f16_kv", "logits_all", "vocab_only"), "truth"),
}

DIRECTIVES = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER", "PARSER",
    "REQUIRES", "DRAFT", "CAPABILITY", "GPU_LAYERS", "FLASH_ATTENTION", "VISION_PROJECTOR", "MMPROJ", "DIGEST",
    "THINKING", "TOOLFORMAT", "AUTHOR",
)  # fmt: skip
ROLES = ("system", "user", "assistant")
ABILITIES = ("completion", "tools", "thinking", "vision", "audio", "embedding", "insert")

# Built-in renderers and parsers of Ollama. mullama uses the template in the weights file instead.
BUILT_IN = frozenset((
    "cogito", "cohere", "deepseek3", "deepseek3.1", "functiongemma", "gemma4", "gemma4-large", "gemma4-no-thinking",
    "gemma4-small", "glimmer", "glm-4.7", "glm-ocr", "harmony", "laguna", "lfm2", "lfm2-thinking", "ministral",
    "nemotron-3-nano", "nemotron-3.5-nano", "olmo3", "olmo3-32b-think", "olmo3-think", "olmo3.1", "ornith",
    "passthrough", "poolside-v1", "qwen3", "qwen3-coder", "qwen3-thinking", "qwen3-vl-instruct",
    "qwen3-vl-thinking", "qwen3.5", "qwen3.8",
))  # fmt: skip


class ModelfileSpec(Struct, frozen=True, kw_only=True):
    """A parsed Modelfile or Mullamafile."""

    base: str
    """The source that FROM names."""
    adapters: tuple[str, ...] = ()
    """Paths, in order."""
    projector: str | None = None
    draft: str | None = None
    digest: str | None = None
    gpu_layers: int | Literal["all"] | None = None
    flash_attention: Literal["on", "off", "auto"] | None = None
    template: str | None = None
    jinja: str | None = None
    """A template in Jinja, which only mullama reads."""
    system: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    """(role, text) pairs."""
    parameters: tuple[tuple[str, JSONValue], ...] = ()
    """(name, value) pairs; the value of `stop` is a tuple of texts."""
    license: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    """Capabilities that CAPABILITY declares."""
    author: str | None = None


class ReadModelfile(Struct, frozen=True, kw_only=True):
    """A parsed Modelfile, with a warning for each directive without effect."""

    spec: ModelfileSpec
    remarks: tuple[Problem, ...] = ()
