"""The environment that mullama reads, and what of other tools' it reports: one table, for the reference page."""

from __future__ import annotations

# What the process reads from its environment, beside the variables that a manifest names.
ENVIRONMENT = {
    "MULLAMA_HOST": "the server to ask, as `--host` says it",
    "MULLAMA_API_KEY": "the API key to send, unless `--key-file` names one; `--require-api-key` asks for it",
    "MULLAMA_STATE_DIR": "where revisions, locks and logs are kept",
    "MULLAMA_CACHE_DIR": "where the weights are kept that mullama fetched",
    "MULLAMA_DEBUG": "when set, errors also show where in the code they come from",
    "NO_COLOR": "when set, no colour on a terminal either",
}

# Of the hub's own library and tools, with the same meaning as there.
HUB = {
    "HF_ENDPOINT": "another hub or a mirror; `sources.hf.endpoint` of the manifest comes first",
    "HF_TOKEN": "the token for gated models; `sources.hf.token` of the manifest comes first",
    "HF_TOKEN_PATH": "where `mullama login` saves a token and where it is looked for",
    "HF_HOME": "where the hub's tools keep their files, which are used in place",
    "HF_HUB_CACHE": "the cache of the hub's tools, which is looked into and never written",
    "HF_HUB_OFFLINE": "when 1, no network is asked for weights, as with `--offline`",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "when set, only a token that the manifest names is sent",
}

# Of the system and of the libraries below.
SYSTEM = {
    "HOME": "the base of all folders that no other variable names",
    "XDG_STATE_HOME": "the base of the state folder",
    "XDG_DATA_HOME": "the base of the store",
    "XDG_CACHE_HOME": "the base of the hub tools' cache",
    "XDG_CONFIG_HOME": "where `mullama/aliases.toml` with short names of one's own is looked for",
    "XDG_RUNTIME_DIR": "where control sockets are",
    "TERM": "`dumb` switches everything off that moves",
    "HTTPS_PROXY": "the proxy for downloads; `HTTP_PROXY` and `NO_PROXY` too",
    "CUDA_VISIBLE_DEVICES": "which GPUs are seen; `HIP_`, `ROCR_` and `GGML_VK_VISIBLE_DEVICES` too",
}


# What another server reads and this one does not, with what says the same here.
OLLAMA = {
    "OLLAMA_HOST": "server.listen",
    "OLLAMA_MODELS": "read as a store to look into; sources.stores.ollama names another",
    "OLLAMA_KEEP_ALIVE": "defaults.residency.ttl",
    "OLLAMA_CONTEXT_LENGTH": "defaults.context.size",
    "OLLAMA_NUM_PARALLEL": "defaults.limits.parallel",
    "OLLAMA_MAX_LOADED_MODELS": "hardware.budget",
    "OLLAMA_MAX_QUEUE": "server.limits.queue",
    "OLLAMA_FLASH_ATTENTION": "defaults.context.flash_attention",
    "OLLAMA_KV_CACHE_TYPE": "defaults.context.kv",
    "OLLAMA_ORIGINS": "server.cors",
    "OLLAMA_LOAD_TIMEOUT": "the probe's timeout",
    "OLLAMA_GPU_OVERHEAD": "hardware.budget.reserve",
    "OLLAMA_SCHED_SPREAD": "gpu.split",
    "OLLAMA_NOPRUNE": "prune.files",
    "OLLAMA_NOHISTORY": "/set nohistory",
    "OLLAMA_DEBUG": "observability.logs.level",
}

# What is documented for other programs of this name; here the manifest or an option says it.
UNREAD = {
    "MULLAMA_PORT": "server.listen, or `--http-port`",
    "MULLAMA_SOCKET": "server.listen, such as `unix:/run/mullama.sock`",
    "MULLAMA_GPU_LAYERS": "defaults.gpu.layers, or `--gpu-layers`",
    "MULLAMA_CONTEXT_SIZE": "defaults.context.size, or `--context-size`",
    "MULLAMA_LOG_LEVEL": "observability.logs.level",
    "MULLAMA_CONFIG": "the manifest: `-f FILE`",
    "MULLAMA_MODELS_DIR": "models of one's own are in the state folder: MULLAMA_STATE_DIR",
    "MULLAMA_MODEL_PATH": "models.*.from",
    "MULLAMA_BIN": "the server is started by the same interpreter",
}


def environment_page(note: str) -> str:
    """The reference page of the environment."""
    lines = ["# The environment", "", note, ""]
    lines += ["What a command line says comes first, then the environment, then what is built in. What models are", ""]
    lines[-1:] = ["served, and how, is said by the manifest alone; it may name variables with `${NAME}`.", ""]
    lines += _table("mullama's own", ENVIRONMENT)
    lines += _table("The hub's", HUB)
    lines += _table("The system's", SYSTEM)
    told = "`mullama doctor` reports those that are set."
    lines += _table("Ollama's", OLLAMA, f"They are not read, for the manifest says what they say; {told}", "here")
    lines += _table("Not read", UNREAD, f"Guides to other programs of this name set them; {told}", "here")
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(head: str, table: dict[str, str], text: str = "", second: str = "meaning") -> list[str]:
    rows = [f"| `{name}` | {text} |" for name, text in table.items()]
    return [f"## {head}", "", *([text, ""] if text else []), f"| variable | {second} |", "|---|---|", *rows, ""]
