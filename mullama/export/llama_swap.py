"""A configuration of llama-swap: a command of llama-server for each model.

`mullama import llama-swap` reads it back.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mullama.errors import Unsupported, masked
from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.export.modelfile import chosen_models
from mullama.manifest.dump import Comment, TextBlock, to_yaml
from mullama.manifest.spec import Manifest, Model, RequestParameters, Route
from mullama.manifest.spec.readers import PEER_SIGN, targets_of
from mullama.manifest.tree import block_to_tree, unusual
from mullama.names import HubRef, UrlRef, parse_source

_PARAMETERS = {
    "temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p", "typical_p": "--typical",
    "top_n_sigma": "--top-nsigma", "xtc_probability": "--xtc-probability", "xtc_threshold": "--xtc-threshold",
    "dynatemp_range": "--dynatemp-range", "dynatemp_exponent": "--dynatemp-exp",
    "repeat_last_n": "--repeat-last-n", "repeat_penalty": "--repeat-penalty",
    "presence_penalty": "--presence-penalty", "frequency_penalty": "--frequency-penalty",
    "dry_multiplier": "--dry-multiplier", "dry_base": "--dry-base", "dry_allowed_length": "--dry-allowed-length",
    "dry_penalty_last_n": "--dry-penalty-last-n", "mirostat": "--mirostat", "mirostat_tau": "--mirostat-ent",
    "mirostat_eta": "--mirostat-lr", "seed": "--seed", "num_predict": "--predict",
}  # fmt: skip
_VALUES: dict[str, str] = {
    "context.batch": "--batch-size", "context.ubatch": "--ubatch-size", "context.threads": "--threads",
    "context.kv.k": "--cache-type-k", "context.kv.v": "--cache-type-v", "context.pooling": "--pooling",
    "context.flash_attention": "--flash-attn", "context.rope.scaling": "--rope-scaling",
    "context.rope.base": "--rope-freq-base", "context.rope.scale": "--rope-freq-scale",
    "gpu.split": "--split-mode", "gpu.main": "--main-gpu",
    "draft.tokens": "--draft-max", "draft.min_probability": "--draft-p-min",
    **{f"parameters.{name}": flag for name, flag in _PARAMETERS.items()},
}  # fmt: skip
"""The argument of llama-server with the value of a field."""


def export_llama_swap(given: ExportInput) -> Exported:
    """Return the configuration. Raises `Unsupported` for a model whose files llama-server cannot find."""
    manifest, notes = given.manifest, list[str]()
    models = chosen_models(given)
    entries = {}
    for name, model in models.items():
        lost: list[str] = []
        entries[name] = _entry(given, name, model, lost)
        notes += [f"{name}: llama-swap cannot have {field}" for field in lost]
    for route, to in manifest.routes.items():
        notes += _route(entries, route, to)
    tree: dict[str, Any] = {Comment(header("llama-swap", "Start it with: llama-swap --config llama-swap.yaml")): None}
    keys = [key.secret.from_env for key in manifest.auth.keys.values() if key.secret.from_env]
    if keys:
        tree["apiKeys"] = [f"${{env.{name}}}" for name in keys]
    if len(keys) < len(manifest.auth.keys):
        notes.append("llama-swap reads API keys from the environment only: those of files are left out")
    tree["models"] = entries
    tree |= _groups(manifest, entries)
    preload = [name for name, model in models.items() if model.residency.load == "at_start"]
    if preload:
        tree["hooks"] = {"on_startup": {"preload": preload}}
    return Exported(files=(ExportedFile(path="llama-swap.yaml", text=to_yaml(tree)),), notes=tuple(notes))


def _entry(given: ExportInput, name: str, model: Model, lost: list[str]) -> dict[str, Any]:
    """Return the entry of a model, and add the fields that it cannot have to `lost`."""
    lines = ["llama-server --port ${PORT} --jinja", *_arguments(given, name, model, lost)]
    ttl = model.residency.ttl
    filters: dict[str, Any] = {}
    if model.strip:
        filters["stripParams"] = ", ".join(model.strip)
    if forced := _set(model.force):
        filters["setParams"] = forced
    return {
        "cmd": TextBlock("\n".join(lines) + "\n"),
        **({"description": model.description} if model.description else {}),
        **({"ttl": int(ttl) if ttl < 10**9 else 0} if ttl is not None else {}),
        **({"filters": filters} if filters else {}),
        **({"concurrencyLimit": model.limits.parallel + model.limits.queue} if "limits" in unusual(model) else {}),
    }


def _arguments(given: ExportInput, name: str, model: Model, lost: list[str]) -> Iterator[str]:
    """Yield the arguments of llama-server, one option a line; fields without one are added to `lost`."""
    yield _file_arguments(given, name, model.from_, "--model", "--hf-repo", "--hf-file", "--model-url")
    fields = dict(_leaves(unusual(model)))
    slots = model.limits.parallel
    if model.context.size is not None:
        # The slots of llama-server share the context; context.size is for one request.
        yield f"--ctx-size {model.context.size * slots}"
    yield f"--parallel {slots}"
    handled: dict[str, Callable[[Any], str | None]] = {
        "gpu.layers": _layers,
        "gpu.devices": lambda value: f"--device {','.join(map(str, value))}",
        "gpu.tensor_split": lambda value: f"--tensor-split {','.join(f'{share:g}' for share in value)}",
        "gpu.experts": lambda value: "--cpu-moe" if value == "all" else f"--n-cpu-moe {value}",
        "memory.mmap": lambda value: None if value else "--no-mmap",
        "memory.mlock": lambda value: "--mlock" if value else None,
        "task": lambda value: {"embedding": "--embeddings", "rerank": "--reranking"}.get(value),
    }
    for path, value in fields.items():
        if path in _VALUES:
            yield f"{_VALUES[path]} {value}"
        elif path in handled:
            made = handled[path](value)
            if made:
                yield made
            elif path == "task":
                lost.append("task: transcription")
        elif path in ("system", "messages", "license", "digest", "probe") or path.partition(".")[0] not in _COVERED:
            lost.append(path)
    if model.template is not None:
        if model.template.text and model.template.syntax == "jinja":
            yield f"--chat-template {shlex.quote(model.template.text)}"
        else:
            lost.append("template")
    yield from _companions(given, name, model, lost)


_BLOCKS = ("context", "context.kv", "context.rope", "gpu", "memory", "draft", "parameters")
_COVERED = frozenset((
    "from", "context", "gpu", "memory", "task", "template", "draft", "adapters", "mmproj", "parameters", "residency",
    "limits", "force", "strip", "description", "rollout",
))  # fmt: skip
"""Fields that have an argument or an entry, or no meaning for a process that llama-swap starts."""


def _companions(given: ExportInput, name: str, model: Model, lost: list[str]) -> Iterator[str]:
    """Yield the arguments of the files beside the weights."""
    if model.mmproj == "none":
        yield "--no-mmproj"
    elif model.projector_source:
        yield f"--mmproj {shlex.quote(_path(given, name, model.projector_source))}"
    if model.adapters:
        scaled = ",".join(f"{_path(given, name, item.from_)}:{item.scale:g}" for item in model.adapters)
        yield f"--lora-scaled {shlex.quote(scaled)}"
    if model.draft is None:
        return
    if model.draft.source:
        yield f"--model-draft {shlex.quote(_path(given, name, model.draft.source))}"
    else:
        lost.append(f"draft.from: {model.draft.from_}")


def _file_arguments(given: ExportInput, name: str, source: str, path: str, repo: str, file: str, url: str) -> str:
    match parse_source(source):
        case HubRef(repo=repository, file=wanted, quant=quant, revision=None):
            if wanted:
                return f"{repo} {repository} {file} {shlex.quote(wanted)}"
            return f"{repo} {repository}{f':{quant}' if quant else ''}"
        case UrlRef() if masked(source) == source and "from_env:" not in source:
            return f"{url} {shlex.quote(source)}"
        case _:
            return f"{path} {shlex.quote(_path(given, name, source))}"


def _path(given: ExportInput, name: str, source: str) -> str:
    """Return the stored file of a source."""
    if source not in given.weights:
        raise Unsupported(
            f"{name}: {masked(source)} is not stored, and llama-server cannot fetch it",
            hint="mullama pull or mullama apply stores it",
        )
    return given.weights[source]


def _layers(value: Any) -> str | None:
    """Return the layers on devices; a map of devices is their sum, with the shares of the devices."""
    if isinstance(value, Mapping):
        shares = ",".join(str(count) for count in value.values())
        return f"--gpu-layers {sum(value.values())} --tensor-split {shares}"
    return f"--gpu-layers {99 if value == 'all' else value}"


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of each field that is no map of fields."""
    for key, value in tree.items():
        inside = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and inside in _BLOCKS:
            yield from _leaves(value, inside)
        else:
            yield inside, value


def _route(entries: dict[str, Any], name: str, to: str | Route) -> Iterator[str]:
    """Add a route as an alias of its model; yield what llama-swap cannot have of it."""
    named = targets_of(to)
    targets = [target for target in named if PEER_SIGN not in target]
    if len(targets) < len(named):
        yield f"routes.{name}: llama-swap cannot have models of peers in a route"
    entry = entries.get(targets[0]) if targets else None
    if entry is None:
        return
    if len(targets) > 1 or (isinstance(to, Route) and to.fallback):
        yield f"routes.{name}: llama-swap has no weights and no fallback; {targets[0]} answers"
    given = {**_set(to.parameters), **_set(to.force)} if isinstance(to, Route) else {}
    if given:
        entry.setdefault("filters", {}).setdefault("setParamsByID", {})[name] = given
    else:
        entry.setdefault("aliases", []).append(name)


def _set(parameters: RequestParameters) -> dict[str, Any]:
    """Return the parameters that are set."""
    return {key: value for key, value in block_to_tree(parameters).items() if value != []}


def _groups(manifest: Manifest, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups; llama-swap has those of one loaded model and those of all."""
    groups = {}
    for name, group in manifest.groups.items():
        members = [model for model in group.models if model in entries]
        groups[name] = {"swap": group.max < len(members), "exclusive": False, "members": members}
    return {"groups": groups} if groups else {}
