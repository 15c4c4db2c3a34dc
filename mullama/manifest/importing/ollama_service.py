"""Converts a Compose service that runs Ollama: the variables that a manifest can express, and its store of models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from mullama.errors import MullamaError
from mullama.manifest.importing.found import Imported
from mullama.manifest.spec.readers import CacheType
from mullama.manifest.spec.web_origins import origin_pattern
from mullama.units import duration_literal, parse_go_duration

DEFAULT_PORT = "11434"
HOME = "/root/.ollama"

_REFERENCE = re.compile(r"\$\{[^}]*\}")
_PORT = re.compile(r":([0-9]{1,5})/?$")
_IDLE = {
    "OLLAMA_NOPRUNE": "prune.files is off by default",
    "OLLAMA_NOHISTORY": "it concerns the terminal of Ollama",
}
_OTHERWISE = {
    "OLLAMA_MAX_LOADED_MODELS": "hardware.budget limits the memory of all models instead",
    "OLLAMA_LOAD_TIMEOUT": "a load ends after a minute without progress",
    "OLLAMA_GPU_OVERHEAD": "hardware.budget.gpu is the memory that models may use",
    "OLLAMA_SCHED_SPREAD": "gpu.split and gpu.tensor_split of a model distribute its layers",
}


def _ttl(text: str) -> str:
    """Return how long a model stays: seconds, or a duration of Go; a negative one is for ever."""
    if text.startswith("-"):
        return "never"
    return duration_literal(float(text) if text.isdecimal() else parse_go_duration(text))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _switch(text: str) -> bool:
    """Return a flag as Go's `strconv.ParseBool` reads it; any other text is true for Ollama."""
    return text.casefold() not in ("0", "f", "false", "")


def _cache(text: str) -> dict[str, str]:
    if text not in get_args(CacheType):
        raise ValueError(text)
    return {"k": text, "v": text}


def _origins(text: str) -> list[str]:
    origins = [part.strip() for part in text.split(",") if part.strip()]
    for origin in origins:
        origin_pattern(origin)
    return origins


_VARIABLES: Mapping[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "OLLAMA_KEEP_ALIVE": (("defaults", "residency", "ttl"), _ttl),
    "OLLAMA_CONTEXT_LENGTH": (("defaults", "context", "size"), _positive),
    "OLLAMA_NUM_PARALLEL": (("defaults", "limits", "parallel"), _positive),
    "OLLAMA_FLASH_ATTENTION": (
        ("defaults", "context", "flash_attention"), lambda text: "on" if _switch(text) else "off",
    ),
    "OLLAMA_KV_CACHE_TYPE": (("defaults", "context", "kv"), _cache),
    "OLLAMA_MAX_QUEUE": (("server", "limits", "queue"), _positive),
    "OLLAMA_ORIGINS": (("server", "cors"), _origins),
    "OLLAMA_DEBUG": (("observability", "logs", "level"), lambda text: "debug" if _switch(text) else "info"),
}  # fmt: skip


def add_settings(found: Imported, where: str, environment: Mapping[str, str]) -> str:
    """Add the settings of the service's variables, name the others, and return the port of the server."""
    port = DEFAULT_PORT
    for name, value in environment.items():
        place = f"{where}: {name}"
        if name == "OLLAMA_HOST":
            match = _PORT.search(value)
            port = match[1] if match else port
        elif name in _VARIABLES:
            path, convert = _VARIABLES[name]
            try:
                _put(found, place, path, value if _REFERENCE.fullmatch(value) else convert(value.strip()))
            except (ValueError, MullamaError):
                found.left_out.append(f"{place}={value}, which {'.'.join(path)} cannot express")
        elif name in _IDLE:
            found.notes.append(f"{place} is not needed: {_IDLE[name]}")
        elif name != "OLLAMA_MODELS":
            reason = _OTHERWISE.get(name, "")
            found.left_out.append(f"{place}{f', because {reason}' if reason else ''}")
    return port


def _put(found: Imported, place: str, path: tuple[str, ...], value: Any) -> None:
    """Set a value of the manifest; another value of another service stays."""
    tree = found.settings
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    if tree.setdefault(path[-1], value) != value:
        found.left_out.append(f"{place}, because {'.'.join(path)} has the value of another service")


def add_store(found: Imported, where: str, environment: Mapping[str, str], mounts: Mapping[str, str]) -> None:
    """Add the store of the service's models, if it is a folder of this machine; mounts: host path by container path."""
    models = environment.get("OLLAMA_MODELS", f"{HOME}/models").rstrip("/")
    target = max((t for t in mounts if models == t or models.startswith(f"{t}/")), key=len, default="")
    source = mounts.get(target, "")
    if source.startswith((".", "/", "~", "$")):
        folder = f"{source.rstrip('/')}{models.removeprefix(target)}"
        found.stores["ollama"] = folder
        found.left_out.append(f"{where}: its models are in {folder}; mullama import ollama {folder} declares them")
    else:
        step = "mullama import ollama PATH declares those of a store"
        found.left_out.append(f"{where}: its models are in a volume; {step}")
    found.left_out += [f"{where}: volumes {mounts[other]}:{other}" for other in mounts if other != target]
