"""Commands and options of other tools that mullama does not have. Each is refused with a hint.

A hint names the equivalent of mullama, or the reason that there is none. `--help` does not list them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from mullama.cli.app.context import Parser, UsageError

COMMANDS: Mapping[str, str] = {
    "push": "share a manifest that names the source of the weights, or use mullama bundle export",
    "signin": "mullama has no accounts; mullama login saves a hub token",
    "signout": "mullama has no accounts; mullama login --remove deletes the hub token",
    "session": "a conversation is saved as a model: /save NAME in a chat, then mullama run, list, rm NAME",
    "grammar": "use a JSON Schema: mullama run --format FILE",
    "convert": "images need no conversion: mullama run -i PATH; audio is not supported",
    "from-config": "use mullama apply -f FILE",
}
"""Hints by command."""

_MANIFEST_FIELDS: Mapping[str, str] = {
    "--kv-cache-type": "context.kv", "--batch-size": "context.batch", "--flash-attention": "context.flash_attention",
    "--tensor-split": "gpu.tensor_split", "--mmap": "memory.mmap", "--no-mmap": "memory.mmap",
    "--mlock": "memory.mlock", "--lora": "adapters", "--lora-scale": "adapters", "--mmproj": "mmproj",
}  # fmt: skip
_IN_MODEL = {option: f"set it in the manifest, in the model: {field}" for option, field in _MANIFEST_FIELDS.items()}
_CHAT = {
    **_IN_MODEL,
    "--interactive": "run starts a chat when it has no prompt",
    "--grammar": COMMANDS["grammar"],
    "--schema-file": "use --format FILE",
    "--logit-bias": "the OpenAI API has logit_bias",
    "--tfs-z": "llama.cpp removed this sampler; use --typical-p or --min-p",
    "--model-path": "use the path as the model: mullama run ./FILE.gguf",
    "--save-session": COMMANDS["session"],
    "--load-session": COMMANDS["session"],
    "--checkpoint-dir": COMMANDS["session"],
    "--checkpoint-interval": COMMANDS["session"],
    "--audio": "audio input is not supported",
    "--audio-device": "audio input is not supported",
    "--duration": "audio input is not supported",
    "--timeout": "Ctrl-C stops an answer, and --max-tokens limits it",
    "--http-port": "use --host HOST:PORT",
    "--insecure": "certificates are always verified",
    "--theme": "there are no themes; NO_COLOR switches colours off",
}
_SERVE = {
    **_IN_MODEL,
    "--api-key": "other users could read it in the process list; use MULLAMA_API_KEY with --require-api-key",
    "--max-tokens-limit": "limits.max_tokens of a model, in the manifest",
    "--max-request-body-mb": "server.limits.body, in the manifest",
    "--max-concurrent-requests": "server.limits.concurrency, in the manifest",
    "--max-concurrent": "server.limits.concurrency, in the manifest",
    "--max-requests-per-second": "limits.rate of a model, or auth.keys.*.rate, in the manifest",
    "--rate-limit": "limits.rate of a model, or auth.keys.*.rate, in the manifest",
    "--context-pool-size": "limits.parallel of a model, in the manifest",
    "--parallel": "limits.parallel of a model, in the manifest",
    "--metrics": "/metrics is always served; observability.metrics in the manifest configures it",
    "--websocket": "answers are streamed over HTTP",
    "--ws-port": "answers are streamed over HTTP",
    "--port": "use --http-port PORT",
    "--ctx-size": "use --context-size N",
    "--verbose": "observability.logs.level, in the manifest",
}

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "run": _CHAT,
    "chat": _CHAT,
    "serve": _SERVE,
    "daemon": _SERVE,
    "load": _IN_MODEL,
    "pull": {"--insecure": "certificates are always verified; an http:// address needs a digest"},
    "embed": {"--pooling": "set it in the manifest, in the model: context.pooling", "--format": "use --json"},
    "info": {"--simd": "mullama doctor lists the features of the CPU"},
}
"""Hints by command and option."""


class _Refuse(argparse.Action):
    """Raises `UsageError` for its option; `const` is the hint."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None
    ) -> NoReturn:
        raise UsageError(f"{option} is not an option of {parser.prog}", hint=self.const)


def refuse(parser: Parser, command: str) -> None:
    """Add the options that other tools have for this command, each refused with its hint."""
    for option, hint in OPTIONS.get(command, {}).items():
        parser.add_argument(option, action=_Refuse, nargs="?", const=hint, help=argparse.SUPPRESS)
