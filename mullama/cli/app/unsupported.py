"""Commands and options of other tools that mullama does not have. Each is refused with its reason and the next step.

`docs/reference/outside.md` lists them; `--help` does not. A hint names the equivalent of mullama, or says that there is
none. It never names a setting that the manifest refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from mullama.cli.app.context import Parser, UsageError

_CONVERSATIONS = "--save-session NAME saves a conversation after each answer"
_SCHEMA = (
    "use a JSON Schema: mullama run --format FILE; a grammar in GBNF is a field of the request, "
    "and mullama grammar validate checks it"
)
_ACCOUNTS = "mullama has no accounts"
_UPGRADE = "the package manager does it: pip install --upgrade mullama"

COMMANDS: Mapping[str, str] = {
    "push": "share a manifest that names the source of the weights, or use mullama bundle export",
    "signin": f"{_ACCOUNTS}; mullama login saves a hub token",
    "signout": f"{_ACCOUNTS}; mullama login --remove deletes the hub token",
    "convert": "a GGUF file is needed: convert the model with llama.cpp, or pull a GGUF repository",
    "from-config": "a manifest replaces the TOML file: mullama apply -f FILE",
    "speak": "speech is not generated",
    "upgrade": _UPGRADE,
    "update": f"{_UPGRADE}; mullama lock --update moves the files of models",
    "install": "mullama pull fetches a model",
    "uninstall": "mullama rm removes a model",
    "federated": "one server uses one machine; a proxy distributes requests",
    "worker": "a server starts its workers itself",
}
"""Hints by command."""

MODEL_TYPES: Mapping[str, str] = {
    "auto": "leave the type out: the file tells it",
    "text": "leave the type out: the file tells it",
    "embedding": "leave the type out for `mullama embed`; a server needs `task: embedding` in the manifest",
    "vision": "leave the type out: the projector tells it; mullama run MODEL -i FILE sends an image",
    "diffusion": "images are not generated: llama.cpp runs language models only",
    "speech": "speech is not generated",
}
"""Hints by the word that mistral.rs takes before `-m MODEL`."""


def _in_model(field: str) -> str:
    return f"set it in the manifest, in the model: {field}"


_NO_ISQ = (
    "weights are not quantized during a load; choose a file by its tag, hf:ORG/REPO:Q4_K_M, or mullama quantize one"
)
_NO_UQFF = "only GGUF files are served: hf:ORG/REPO:Q4_K_M or a path"
_NO_XLORA = "llama.cpp has no X-LoRA; LoRA adapters are set in the manifest, in the model: adapters"
_NO_TOKENIZER = "a GGUF file holds its tokenizer and its data types"
_CALIBRATED = "llama-imatrix computes an importance matrix from it; mullama quantize --imatrix FILE uses the matrix"
_MEDIA_LIMITS = "server.limits.media in the manifest"
_MICROPHONE = "mullama listen takes the default microphone, or raw samples from a pipe, as arecord -D NAME writes them"
_NO_DRAFT = _in_model("draft")
_RATE = "auth.keys.NAME.rate and limits.rate of a model in the manifest limit requests and tokens"
_TLS = "server.tls in the manifest names the certificate and its key"
_NO_PLACEMENT = "gpu.layers, gpu.split and gpu.experts in the manifest place the layers"
_NO_TOOLS = "the server calls no tools of other servers; a client offers tools in its requests"
_MCP = "the server serves the protocol at /mcp, and mullama mcp over standard input and output"
_PAGE = "mullama ui prints the address of the web page; server.ui in the manifest switches it"
_NO_WEBSOCKET = "/v1/realtime is a WebSocket on the port of the API; other answers are streamed over HTTP"
_PARALLEL = _in_model("limits.parallel")
_CONTEXT = "use --context-size N, or context.size in the manifest"
_BUDGET = "hardware.budget in the manifest bounds the memory of all models"
_TOKEN = "set HF_TOKEN, run mullama login, or name it in the manifest: sources.hf.token"
_ALWAYS = "this is always so"
_LOGS = "the server writes its log to stderr; observability.logs in the manifest sets format, level and prompts"

EVERYWHERE: Mapping[str, str] = {
    # mistral.rs
    "--isq": _NO_ISQ, "--isq-organization": _NO_ISQ, "--from-uqff": _NO_UQFF, "--quantized-file": _NO_UQFF,
    "--tok-model-id": _NO_TOKENIZER, "--tokenizer": _NO_TOKENIZER, "--dtype": _NO_TOKENIZER, "--gqa": _NO_TOKENIZER,
    "--arch": _NO_TOKENIZER, "--calibration-file": _CALIBRATED,
    "--imatrix": "use it with quantize: mullama quantize --imatrix FILE",
    "--no-readme": "use it with quantize, which writes a model card",
    "--xlora": _NO_XLORA, "--xlora-order": _NO_XLORA, "--tgt-non-granular-index": _NO_XLORA,
    "--paged-attn": "llama.cpp has no paged attention; the requests of a model share one KV cache",
    "--pa-context-len": _CONTEXT, "--pa-memory-mb": _BUDGET, "--pa-memory-fraction": _BUDGET,
    "--pa-block-size": "llama.cpp has no paged attention", "--pa-cache-type": _in_model("context.kv"),
    "--device-layers": _in_model('gpu.layers, such as {"0": 10, "1": 20}'),
    "--topology": _NO_PLACEMENT,
    "--cpu": "use --gpu-layers 0, or gpu.layers: 0 in the manifest",
    "--hf-cache": "set HF_HOME, or sources.stores.huggingface in the manifest",
    "--max-seq-len": _CONTEXT, "--max-batch-size": _PARALLEL, "--max-seqs": _PARALLEL,
    "--no-kv-cache": "the KV cache is always used",
    "--prefix-cache-n": "prefixes are kept as long as the cache has room",
    "--chat-template": _in_model("template"), "--jinja-explicit": _in_model("template"),
    "--enable-thinking": "use run --think, or the field `think` of a request",
    "--token-source": _TOKEN, "--token": "other users could read it in the process list; use --token-file or HF_TOKEN",
    "--max-edge": _MEDIA_LIMITS, "--max-num-images": _MEDIA_LIMITS, "--max-image-length": _MEDIA_LIMITS,
    "--ui": _PAGE, "--mcp-port": _MCP, "--mcp-config": _NO_TOOLS, "--log": _LOGS,
    "-l": _LOGS, "-j": _in_model("template"), "-a": _NO_TOKENIZER, "--seed": _in_model("parameters.seed"),
    "--emit-config": "use tune --emit FILE, which writes a manifest",
    # llama-server and other front ends of llama.cpp
    "--n-gpu-layers": "use --gpu-layers N, or gpu.layers in the manifest",
    "--n-predict": "use --max-tokens N", "--predict": "use --max-tokens N",
    "--temp": "use --temperature N", "--typical": "use --typical-p N",
    "--batch-size": _in_model("context.batch"), "--ubatch-size": _in_model("context.ubatch"),
    "--kv-cache-type": _in_model("context.kv"), "--cache-type-k": _in_model("context.kv.k"),
    "--cache-type-v": _in_model("context.kv.v"), "--flash-attn": _in_model("context.flash_attention"),
    "--flash-attention": _in_model("context.flash_attention"), "--pooling": _in_model("context.pooling"),
    "--rope-scaling": _in_model("context.rope"), "--rope-freq-base": _in_model("context.rope"),
    "--rope-freq-scale": _in_model("context.rope"), "--rope-scale": _in_model("context.rope"),
    "--split-mode": _in_model("gpu.split"), "--tensor-split": _in_model("gpu.tensor_split"),
    "--device": _in_model("gpu.devices"),
    "--main-gpu": _in_model("gpu.main"), "--mmap": _in_model("memory.mmap"), "--no-mmap": _in_model("memory.mmap"),
    "--mlock": _in_model("memory.mlock"), "--lora": _in_model("adapters"), "--lora-scale": _in_model("adapters"),
    "--lora-scaled": _in_model("adapters"), "--chat-template-file": _in_model("template"),
    "--system-prompt": "use --system TEXT, or system in the manifest",
    "--embedding": _in_model("task: embedding"), "--embeddings": _in_model("task: embedding"),
    "--rerank": _in_model("task: rerank"), "--reranking": _in_model("task: rerank"),
    "--hf-repo": "name it as the model: hf:ORG/REPO", "--hf-file": "name it as the model: hf:ORG/REPO:FILE",
    "--model-url": "name it as the model: https://HOST/FILE.gguf",
    "--model-path": "use the path as the model: mullama run ./FILE.gguf", "--model-id": "name it as the model",
    "--alias": "the name of the model in the manifest, or routes",
    "--mmproj": _in_model("mmproj"), "--mmproj-url": _in_model("mmproj"),
    "--audio": "use run -i FILE", "--audio-device": _MICROPHONE,
    "--model-draft": _NO_DRAFT, "--draft": _NO_DRAFT, "--draft-max": _NO_DRAFT, "--draft-min": _NO_DRAFT,
    "--override-tensor": _NO_PLACEMENT,
    "--n-cpu-moe": _in_model("gpu.experts"), "--cpu-moe": _in_model("gpu.experts: all"),
    "--numa": "start the server under numactl", "--rpc": "hardware.rpc in the manifest",
    "--jinja": _ALWAYS, "--cont-batching": _ALWAYS, "--slots": _ALWAYS, "--props": "settings are in the manifest",
    "--no-webui": _PAGE, "--webui": _PAGE, "--path": "the files of the web page are built in",
    "--metrics": "/metrics is always served; observability.metric_names in the manifest adds llama-server's names",
    "--parallel": _PARALLEL, "--threads-http": "one thread serves HTTP",
    "--threads-batch": _in_model("context.threads"),
    "--slot-save-path": "prefixes of the manifest are saved in the state folder",
    "--reasoning-format": "a request sets it, and reasoning is always a part of its own",
    "--reasoning-budget": "use run --think, or the field `think` of a request",
    "--chat-template-kwargs": "the field chat_template_kwargs of a request",
    "--log-file": _LOGS, "--log-disable": _LOGS, "--log-verbosity": _LOGS, "--log-format": _LOGS,
    "--log-level": "an option of serve and apply; observability.logs.level in the manifest",
    "--ssl-key-file": _TLS, "--ssl-cert-file": _TLS,
    "--api-key-file": "auth.keys in the manifest, with secret: {from_file: FILE}",
    "--api-key": "other users could read it in the process list; use MULLAMA_API_KEY with --require-api-key",
    "--tfs-z": "llama.cpp removed this sampler; use --typical-p or --min-p",
    "--logit-bias": "the APIs have logit_bias", "--grammar": _SCHEMA, "--grammar-file": _SCHEMA,
    "--json-schema": "use --format FILE", "--schema-file": "use --format FILE",
    "-ngl": "use --gpu-layers N, or gpu.layers in the manifest",
    "-np": _PARALLEL, "-ctk": _in_model("context.kv.k"),
    "-ctv": _in_model("context.kv.v"), "-ub": _in_model("context.ubatch"),
    # Ollama, LocalAI and programs of this name
    "--insecure": "certificates are always verified; an http:// address needs a digest",
    "--interactive": "run starts a chat when it has no prompt", "--experimental": "there are no experimental options",
    "--checkpoint-dir": _CONVERSATIONS,
    "--checkpoint-interval": _CONVERSATIONS, "--duration": "mullama listen ends with its sound, or by Ctrl-C",
    "--theme": "there are no themes; NO_COLOR switches colours off",
    "--simd": "mullama doctor lists the features of the CPU",
    "--models-path": "MULLAMA_CACHE_DIR sets the folder of downloaded weights",
    "--galleries": "weights come from the sources of the manifest", "--backends-path": "the engine is built in",
    "--address": "use --http-addr ADDR and --http-port PORT, or server.listen in the manifest",
    "--bind": "use --http-addr ADDR, or server.listen in the manifest",
    "--cors": "server.cors in the manifest", "--cors-allow-origins": "server.cors in the manifest",
    "--single-active-backend": _BUDGET, "--parallel-requests": _PARALLEL, "--max-concurrent": _PARALLEL,
    "--max-tokens-limit": "limits.max_tokens of a model, in the manifest",
    "--max-request-body-mb": "server.limits.body, in the manifest",
    "--max-concurrent-requests": "server.limits.concurrency, in the manifest",
    "--max-requests-per-second": _RATE, "--rate-limit": _RATE, "--context-pool-size": _PARALLEL,
    "--websocket": _NO_WEBSOCKET, "--ws-port": _NO_WEBSOCKET,
}  # fmt: skip
"""Hints by option, for every command that does not have the option."""

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "run": {
        "--timeout": "Ctrl-C stops an answer, and --max-tokens limits it",
        "--http-port": "use --host HOST:PORT",
        "--port": "use --host HOST:PORT",
    },
    "serve": {
        "--host": "use --http-addr ADDR, or server.listen in the manifest",
        "--port": "use --http-port PORT, or server.listen in the manifest",
        "--timeout": "limits.timeout of a model, in the manifest",
        "--verbose": "observability.logs.level, in the manifest",
        "--keepalive": "residency.ttl of a model, in the manifest",
        "--format": "leave it out: the file tells it, and only GGUF files are served",
    },
    "embed": {"--format": "use --json"},
    "import": {"--path": "name the folder or file after the kind: mullama import ollama PATH"},
    "quantize": {"-m": "name the source without -m: mullama quantize SOURCE TYPE -o FILE"},
    "cache": {"-m": "name the source without -m: mullama cache remove SOURCE"},
}
"""Hints by command and option, next to those of `EVERYWHERE`."""

_SAME_OPTIONS = {"chat": "run", "daemon": "serve"}
_DEVICE_LAYERS = re.compile(r"[0-9]+:[0-9]+(;[0-9]+:[0-9]+)*")  # as in `-n "0:10;1:20"` of mistral.rs
_OPTION = re.compile(r"(--?[A-Za-z][\w-]*)(?:=.*)?", re.DOTALL)


def refused_type(command: str, arguments: Sequence[str]) -> UsageError | None:
    """Return the error for the type of a model before `-m MODEL`; None if there is none."""
    if len(arguments) > 1 and arguments[0] in MODEL_TYPES and {"-m", "--model", "--model-id"} & set(arguments):
        message = f"{arguments[0]!r} is not a part of mullama {command}"
        return UsageError(message, hint=MODEL_TYPES[arguments[0]])
    return None


def refusal(parser: Parser, command: str, arguments: Sequence[str]) -> UsageError | None:
    """Return the error for the first argument that only other tools have; None if there is none."""
    if (refused := refused_type(command, arguments)) is not None:
        return refused
    hints = {**EVERYWHERE, **OPTIONS.get(_SAME_OPTIONS.get(command, command), {})}
    known = {name for action in parser._actions for name in action.option_strings}
    for argument in arguments:
        if argument == "--":
            return None
        if _DEVICE_LAYERS.fullmatch(argument):
            return UsageError(f"{argument} is not a value of mullama {command}", hint=hints["--device-layers"])
        option = _OPTION.fullmatch(argument)
        if option and option[1] in hints and option[1] not in known:
            return UsageError(f"{option[1]} is not an option of mullama {command}", hint=hints[option[1]])
    return None


def arguments() -> Iterator[tuple[str, str]]:
    """Yield the refused arguments of single commands as (command line, hint)."""
    for word, hint in MODEL_TYPES.items():
        for command in ("run", "serve"):
            yield f"{command} {word} -m MODEL", hint
    for command, options in OPTIONS.items():
        for option, hint in options.items():
            yield f"{command} {option}", hint
