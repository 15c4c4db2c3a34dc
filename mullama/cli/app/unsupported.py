"""What other tools have as a command or an option and mullama has elsewhere or not at all: refused by name.

Each entry is a hint: what does the same here, or what to do instead. Nothing of it is listed by `--help`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from mullama.cli.app.context import Parser, UsageError

COMMANDS: Mapping[str, str] = {
    "push": "weights are shared by naming their source in a manifest, or with mullama bundle export",
    "signin": "there is no account; mullama login saves the token of a hub",
    "signout": "there is no account; mullama login --remove deletes the token of a hub",
    "session": "a conversation is kept as a model: /save NAME in a chat, then mullama run, list, rm NAME",
    "grammar": "answers are held to JSON Schemas: mullama run --format FILE",
    "convert": "pictures and sounds go to a model as they are: mullama run -i PATH",
    "from-config": "a manifest is carried out by mullama apply -f FILE",
}

_PLACED: Mapping[str, str] = {
    "--kv-cache-type": "context.kv", "--batch-size": "context.batch", "--flash-attention": "context.flash_attention",
    "--tensor-split": "gpu.tensor_split", "--mmap": "memory.mmap", "--no-mmap": "memory.mmap",
    "--mlock": "memory.mlock", "--lora": "adapters", "--lora-scale": "adapters", "--mmproj": "mmproj",
}  # fmt: skip
_IN_MODEL = {option: f"the manifest declares it with the model: {field}" for option, field in _PLACED.items()}
_TALKING = {
    **_IN_MODEL,
    "--interactive": "without a prompt, run begins a conversation",
    "--grammar": COMMANDS["grammar"],
    "--schema-file": "--format FILE",
    "--logit-bias": "requests of the OpenAI API take logit_bias",
    "--tfs-z": "llama.cpp has no such sampler any more; --typical-p and --min-p are near",
    "--model-path": "a path is a model: mullama run ./FILE.gguf",
    "--save-session": COMMANDS["session"],
    "--load-session": COMMANDS["session"],
    "--checkpoint-dir": COMMANDS["session"],
    "--checkpoint-interval": COMMANDS["session"],
    "--audio": "sounds are not taken",
    "--audio-device": "sounds are not taken",
    "--duration": "sounds are not taken",
    "--timeout": "Ctrl-C ends an answer, and --max-tokens bounds it",
    "--http-port": "--host HOST:PORT names a server",
    "--insecure": "connections are always verified",
    "--theme": "there is no theme; NO_COLOR switches colours off",
}
_SERVING = {
    **_IN_MODEL,
    "--api-key": "other users of the machine could read it; MULLAMA_API_KEY with --require-api-key",
    "--max-tokens-limit": "limits.max_tokens of a model, in the manifest",
    "--max-request-body-mb": "server.limits.body, in the manifest",
    "--max-concurrent-requests": "server.limits.concurrency, in the manifest",
    "--max-concurrent": "server.limits.concurrency, in the manifest",
    "--max-requests-per-second": "limits.rate of a model, or auth.keys.*.rate, in the manifest",
    "--rate-limit": "limits.rate of a model, or auth.keys.*.rate, in the manifest",
    "--context-pool-size": "limits.parallel of a model, in the manifest",
    "--parallel": "limits.parallel of a model, in the manifest",
    "--metrics": "/metrics is always there; observability.metrics of the manifest sets it",
    "--websocket": "answers stream over HTTP",
    "--ws-port": "answers stream over HTTP",
    "--port": "--http-port PORT",
    "--ctx-size": "--context-size N",
    "--verbose": "observability.logs.level, in the manifest",
}

# By command: option -> hint.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "run": _TALKING,
    "chat": _TALKING,
    "serve": _SERVING,
    "daemon": _SERVING,
    "load": _IN_MODEL,
    "pull": {"--insecure": "connections are always verified; an http:// address needs a digest"},
    "embed": {"--pooling": "the manifest declares it with the model: context.pooling", "--format": "--json"},
    "info": {"--simd": "mullama doctor tells what the CPU has"},
}


class _Refuse(argparse.Action):
    """Raises `UsageError` as soon as the option is met; `const` is the hint."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None
    ) -> NoReturn:
        raise UsageError(f"{option} is no option of {parser.prog}", hint=self.const)


def refuse(parser: Parser, command: str) -> None:
    """Know the options that other tools have for this command, so that they are refused with what to do instead."""
    for option, hint in OPTIONS.get(command, {}).items():
        parser.add_argument(option, action=_Refuse, nargs="?", const=hint, help=argparse.SUPPRESS)
