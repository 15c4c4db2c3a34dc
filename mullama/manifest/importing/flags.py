"""Converts the command line of a llama.cpp server to a model of the manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mullama.chat.types import LONGEST_DRAFT
from mullama.errors import Invalid, masked
from mullama.manifest.interpolate import literal
from mullama.names import JSONValue
from mullama.struct import Struct, field

Tree = dict[str, Any]
Take = Callable[[Tree, str], None]

# Arguments of the server process that an importer converts outside the model, and the name of each in `own`.
_OWN = {
    "--host": "host", "--port": "port", "--api-key": "api_key", "--api-key-file": "api_key_file",
    "--ssl-cert-file": "ssl_cert", "--ssl-key-file": "ssl_key", "-hft": "hf_token", "--hf-token": "hf_token",
}  # fmt: skip
# Flags for a behaviour that mullama always has.
_ALWAYS = frozenset((
    "--jinja", "--metrics", "--slots", "--props", "--no-webui", "--cont-batching", "-cb", "--mmap", "--mmproj-auto",
))  # fmt: skip
_ALWAYS_VARIABLES = frozenset((
    "JINJA", "ENDPOINT_METRICS", "ENDPOINT_SLOTS", "ENDPOINT_PROPS", "NO_WEBUI", "CONT_BATCHING", "MMAP",
))  # fmt: skip
_NEGATIVE = re.compile(r"-[0-9.]")
_SECRET_NAME = re.compile(r"(?:token|secrets?|password|passwd|keys?)$", re.IGNORECASE)


class ServerCommand(Struct, frozen=True, kw_only=True):
    """A command line of a llama.cpp server. left: the arguments that cannot be imported, without their secrets.

    own: values of the server process by name: host, port, api_key, api_key_file, ssl_cert, ssl_key, hf_token.
    """

    model: Tree
    names: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    own: Mapping[str, str] = field(default_factory=dict)


def shown(name: str, value: str) -> str:
    """Return the value of a setting for a message, with `***` for a secret and for the secrets of an address."""
    return "***" if value and _SECRET_NAME.search(name) else masked(value)


def _put(*path: str, kind: Callable[[str], Any] = str) -> Take:
    def take(tree: Tree, value: str) -> None:
        under = tree
        for part in path[:-1]:
            under = under.setdefault(part, {})
        under[path[-1]] = kind(value)

    return take


def _layers(text: str) -> int | str:
    if text in ("all", "auto"):
        return text
    number = int(text)
    return "all" if number >= 99 or number < 0 else number


def _shares(text: str) -> list[float]:
    return [float(part) for part in text.replace("/", ",").split(",")]


def _flash(text: str) -> str:
    return {"1": "on", "0": "off", "true": "on", "false": "off"}.get(text, text)


def _jinja(text: str) -> JSONValue:
    """Return a template; raise `ValueError` for the name of a template that llama.cpp has built in."""
    if "{" not in text:
        raise ValueError(text)
    return literal(text)


def _adapters(tree: Tree, value: str) -> None:
    """Read `a.gguf,b.gguf`, or with scales `a.gguf:0.5,b.gguf:2`."""
    for part in value.split(","):
        path, _, scale = part.rpartition(":")
        given = {"from": path, "scale": float(scale)} if path else {"from": part}
        tree.setdefault("adapters", []).append(given)


def _guesses(text: str) -> int:
    return min(int(text), LONGEST_DRAFT)


def _speculation(tree: Tree, value: str) -> None:
    """Read the kinds of guesses; a draft model has an argument of its own."""
    for kind in value.split(","):
        if kind == "none" or kind.startswith("ngram-"):
            tree.setdefault("draft", {}).setdefault("from", kind.partition("-")[0])
        elif kind == "draft-mtp":
            tree.setdefault("draft", {}).setdefault("from", "mtp")
        elif kind != "draft-simple":
            raise ValueError(kind)


_VALUES: dict[tuple[str, ...], Take] = {
    ("-m", "--model"): _put("from"),
    ("-hf", "-hfr", "--hf-repo"): _put("from", kind=lambda text: f"hf:{text}"),
    ("-mu", "--model-url"): _put("from"),
    ("-c", "--ctx-size"): _put("context", "size", kind=int),
    ("-b", "--batch-size"): _put("context", "batch", kind=int),
    ("-ub", "--ubatch-size"): _put("context", "ubatch", kind=int),
    ("-t", "--threads"): _put("context", "threads", kind=int),
    ("-ctk", "--cache-type-k"): _put("context", "kv", "k"),
    ("-ctv", "--cache-type-v"): _put("context", "kv", "v"),
    ("--pooling",): _put("context", "pooling"),
    ("-ngl", "--gpu-layers", "--n-gpu-layers"): _put("gpu", "layers", kind=_layers),
    ("-sm", "--split-mode"): _put("gpu", "split"),
    ("-ts", "--tensor-split"): _put("gpu", "tensor_split", kind=_shares),
    ("-mg", "--main-gpu"): _put("gpu", "main", kind=int),
    ("-dev", "--device"): _put("gpu", "devices", kind=lambda text: text.split(",")),
    ("-ncmoe", "--n-cpu-moe"): _put("gpu", "experts", kind=int),
    ("-np", "--parallel"): _put("limits", "parallel", kind=int),
    ("-n", "--predict", "--n-predict"): _put("parameters", "num_predict", kind=int),
    ("-s", "--seed"): _put("parameters", "seed", kind=int),
    ("--temp", "--temperature"): _put("parameters", "temperature", kind=float),
    ("--top-k",): _put("parameters", "top_k", kind=int),
    ("--top-p",): _put("parameters", "top_p", kind=float),
    ("--min-p",): _put("parameters", "min_p", kind=float),
    ("--typical",): _put("parameters", "typical_p", kind=float),
    ("--repeat-penalty",): _put("parameters", "repeat_penalty", kind=float),
    ("--repeat-last-n",): _put("parameters", "repeat_last_n", kind=int),
    ("--presence-penalty",): _put("parameters", "presence_penalty", kind=float),
    ("--frequency-penalty",): _put("parameters", "frequency_penalty", kind=float),
    ("--top-nsigma", "--top-n-sigma"): _put("parameters", "top_n_sigma", kind=float),
    ("--xtc-probability",): _put("parameters", "xtc_probability", kind=float),
    ("--xtc-threshold",): _put("parameters", "xtc_threshold", kind=float),
    ("--dynatemp-range",): _put("parameters", "dynatemp_range", kind=float),
    ("--dynatemp-exp",): _put("parameters", "dynatemp_exponent", kind=float),
    ("--dry-multiplier",): _put("parameters", "dry_multiplier", kind=float),
    ("--dry-base",): _put("parameters", "dry_base", kind=float),
    ("--dry-allowed-length",): _put("parameters", "dry_allowed_length", kind=int),
    ("--dry-penalty-last-n",): _put("parameters", "dry_penalty_last_n", kind=int),
    ("--mirostat",): _put("parameters", "mirostat", kind=int),
    ("--mirostat-ent",): _put("parameters", "mirostat_tau", kind=float),
    ("--mirostat-lr",): _put("parameters", "mirostat_eta", kind=float),
    ("--rope-scaling",): _put("context", "rope", "scaling"),
    ("--rope-freq-base",): _put("context", "rope", "base", kind=float),
    ("--rope-freq-scale",): _put("context", "rope", "scale", kind=float),
    ("-mm", "--mmproj", "-mmu", "--mmproj-url"): _put("mmproj"),
    ("-md", "--model-draft"): _put("draft", "from"),
    ("--draft", "--draft-n", "--draft-max", "--spec-draft-n-max"): _put("draft", "tokens", kind=_guesses),
    ("--draft-p-min", "--spec-draft-p-min"): _put("draft", "min_probability", kind=float),
    ("--spec-type",): _speculation,
    ("--chat-template-file",): _put("template", "file"),
    ("--chat-template",): _put("template", "text", kind=_jinja),
    ("-sys", "--system-prompt"): _put("system"),
    ("--lora", "--lora-scaled"): _adapters,
}
_FLAGS: dict[tuple[str, ...], tuple[tuple[str, ...], Any]] = {
    ("--mlock",): (("memory", "mlock"), True),
    ("--no-mmap",): (("memory", "mmap"), False),
    ("-kvu", "--kv-unified"): (("context", "pool"), "auto"),
    ("-cmoe", "--cpu-moe"): (("gpu", "experts"), "all"),
    ("--no-mmproj", "--no-mmproj-auto"): (("mmproj",), "none"),
    ("--embedding", "--embeddings"): (("task",), "embedding"),
    ("--reranking", "--rerank"): (("task",), "rerank"),
}
_TAKERS = {name: take for names, take in _VALUES.items() for name in names}
_SETTERS = {name: given for names, given in _FLAGS.items() for name in names}


# Environment variables of the server that are not named like the long form of their argument.
_VARIABLES = {
    "MODEL": "--model", "HF_REPO": "--hf-repo", "HF_FILE": "--hf-file", "MODEL_URL": "--model-url",
    "CTX_SIZE": "--ctx-size", "BATCH": "--batch-size", "UBATCH": "--ubatch-size", "THREADS": "--threads",
    "N_PARALLEL": "--parallel", "N_GPU_LAYERS": "--n-gpu-layers", "CACHE_TYPE_K": "--cache-type-k",
    "CACHE_TYPE_V": "--cache-type-v", "FLASH_ATTN": "--flash-attn", "SPLIT_MODE": "--split-mode",
    "TENSOR_SPLIT": "--tensor-split", "MAIN_GPU": "--main-gpu", "N_PREDICT": "--n-predict", "POOLING": "--pooling",
    "CHAT_TEMPLATE_FILE": "--chat-template-file", "ALIAS": "--alias", "MMPROJ": "--mmproj",
    "MMPROJ_URL": "--mmproj-url",
    "ROPE_SCALING_TYPE": "--rope-scaling", "ROPE_FREQ_BASE": "--rope-freq-base",
    "ROPE_FREQ_SCALE": "--rope-freq-scale", "HOST": "--host", "PORT": "--port",
}  # fmt: skip
# Environment variables of the server by their complete names.
_OWN_VARIABLES = {
    "LLAMA_API_KEY": "--api-key", "LLAMA_ARG_API_KEY": "--api-key", "HF_TOKEN": "--hf-token",
    "LLAMA_ARG_SSL_CERT_FILE": "--ssl-cert-file", "LLAMA_ARG_SSL_KEY_FILE": "--ssl-key-file",
}  # fmt: skip
_SWITCHES = {"MLOCK": "--mlock", "NO_MMAP": "--no-mmap", "EMBEDDINGS": "--embeddings", "RERANKING": "--reranking"}


def arguments_of(environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the arguments that the server's environment sets, and the variables that cannot be imported."""
    words: list[str] = []
    left: list[str] = []
    for variable, value in environment.items():
        name = variable.removeprefix("LLAMA_ARG_")
        on = value.casefold() in ("1", "on", "true", "enabled")
        if variable in _OWN_VARIABLES:
            words += [_OWN_VARIABLES[variable], value]
        elif name != variable and name in _VARIABLES:
            words += [_VARIABLES[name], value]
        elif name != variable and name in _SWITCHES:
            words += [_SWITCHES[name]] if on else []
        elif name == variable or name not in _ALWAYS_VARIABLES or not on:
            left.append(f"{variable}={shown(variable, value)}")
    return words, left


def model_of(arguments: Sequence[str]) -> ServerCommand:
    """Return the model of the arguments, its aliases, and the arguments that cannot be imported.

    Raises `Invalid` if they name no model.
    """
    tree: Tree = {}
    names: list[str] = []
    left: list[str] = []
    own: dict[str, str] = {}
    words = _parted(arguments)
    while words:
        name = words.pop(0)
        if name in _ALWAYS:
            continue
        if name in _SETTERS:
            path, value = _SETTERS[name]
            _put(*path, kind=lambda _, value=value: value)(tree, "")  # type: ignore[misc]
        elif name in ("-fa", "--flash-attn"):
            given = words.pop(0) if words and not words[0].startswith("-") else "on"
            _put("context", "flash_attention")(tree, _flash(given))
        elif name in _OWN and words:
            own[_OWN[name]] = words.pop(0)
        elif name in _OWN or name in _TAKERS or name in ("-a", "--alias", "-hff", "--hf-file"):
            _valued(tree, name, words, names, left)
        else:
            value = [shown(name, words.pop(0))] if words and _is_value(words[0]) else []
            left.append(" ".join([name, *value]))
    return ServerCommand(model=_whole(tree), names=tuple(names), left=tuple(left), own=own)


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NEGATIVE.match(word) is not None


def _valued(tree: Tree, name: str, words: list[str], names: list[str], left: list[str]) -> None:
    """Apply an argument that has a value."""
    if not words:
        left.append(f"{name} has no value")
        return
    value = words.pop(0)
    if name in ("-a", "--alias"):
        names += [alias.strip() for alias in value.split(",") if alias.strip()]
    elif name in ("-hff", "--hf-file"):
        tree["x-file"] = value
    elif name in _TAKERS:
        try:
            _TAKERS[name](tree, value)
        except ValueError:
            left.append(f"{name} {shown(name, value)}")


def _whole(tree: Tree) -> Tree:
    """Finish the model. The slots of that server share its context; here `context.size` is for one request.

    With `--kv-unified` each slot may have all of that context, which is a pool of one request.
    """
    file = tree.pop("x-file", None)
    if "from" not in tree:
        raise Invalid("the arguments name no model", hint="-m PATH or -hf REPO")
    if file is not None and str(tree["from"]).startswith("hf:"):
        tree["from"] = f"{str(tree['from']).rpartition(':')[0] if tree['from'].count(':') > 1 else tree['from']}:{file}"
    slots = tree.get("limits", {}).get("parallel", 1)
    context = tree.get("context", {})
    unified = context.get("pool")
    if "task" in tree:
        context.pop("pool", None)
    elif unified and context.get("size"):
        context["pool"] = context["size"]
    if slots > 1 and context.get("size") and not unified:
        context["size"] = context["size"] // slots
    if context.get("size") == 0:
        del context["size"]  # 0 is the trained size
    return {"from": tree["from"], **{key: value for key, value in tree.items() if value != {}}}


def _parted(arguments: Sequence[str]) -> list[str]:
    """Return `--name=value` as two arguments."""
    words: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        words += [name, value] if equals and name.startswith("--") else [argument]
    return words
