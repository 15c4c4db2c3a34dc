"""The environment variables that mullama reads, and those of other programs that `mullama doctor` reports."""

from __future__ import annotations

ENVIRONMENT = {
    "MULLAMA_HOST": "address of the server, as for `--host`",
    "MULLAMA_API_KEY": "API key to send unless `--key-file` is given; the key of a server with `--require-api-key`",
    "MULLAMA_CA_FILE": "authority of the server's certificate, as for `--ca-file`",
    "MULLAMA_CERT_FILE": "certificate of the client, as for `--cert-file`",
    "MULLAMA_STATE_DIR": "folder of revisions, locks and logs",
    "MULLAMA_CACHE_DIR": "folder of downloaded weights",
    "MULLAMA_MCP_HOST_FILE": "file of the commands that `from_host` names, in place of /etc/mullama/mcp.json",
    "MULLAMA_DEBUG": "when set, errors show a traceback",
    "NO_COLOR": "when set, output has no colours and no moving displays",
}
"""Variables of mullama. A manifest may name others."""

HUB = {
    "HF_ENDPOINT": "address of another hub or a mirror; `sources.hf.endpoint` of the manifest takes precedence",
    "HF_TOKEN": "token for gated models; `sources.hf.token` of the manifest takes precedence",
    "HF_TOKEN_PATH": "file of the token that `mullama login` saves",
    "HF_HOME": "folder of the hub tools; mullama uses their files in place",
    "HF_HUB_CACHE": "cache of the hub tools; mullama reads it and never writes it",
    "HF_HUB_OFFLINE": "when 1, weights are never fetched from a network, as with `--offline`",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "when set, only a token that the manifest names is sent",
}
"""Variables of the hub's library and tools, with the same meaning."""

SYSTEM = {
    "HOME": "base of all folders that no other variable sets",
    "XDG_STATE_HOME": "base of the state folder",
    "XDG_DATA_HOME": "base of the folder of downloaded weights",
    "XDG_CACHE_HOME": "base of the cache of the hub tools",
    "XDG_CONFIG_HOME": "base of `mullama/aliases.toml`, which defines short names of sources",
    "XDG_RUNTIME_DIR": "folder of control sockets",
    "TERM": "`dumb` switches colours and moving displays off",
    "HTTPS_PROXY": "proxy for downloads; also `HTTP_PROXY` and `NO_PROXY`",
    "CUDA_VISIBLE_DEVICES": "GPUs that mullama may use; also `HIP_`, `ROCR_` and `GGML_VK_VISIBLE_DEVICES`",
    "RAY_DASHBOARD_ADDRESS": "address of the dashboard for `--on ray`; Ray's own variable",
    "BRAVE_API_KEY": "key of Brave Search for a server with `--enable-search`",
    "RAY_AUTH_TOKEN": "token for a cluster of Ray with token authentication; Ray's own variable",
    "PATH": "folders in which `mullama launch` looks for a program",
    "CODEX_HOME": "folder of the files that `mullama clients` edits; variables of clients with the same meaning are "
    "`CLAUDE_CONFIG_DIR`, `OPENCODE_CONFIG`, `CONTINUE_GLOBAL_DIR` and `LLM_USER_PATH`",
}
"""Variables of the operating system and of libraries."""

OLLAMA = {
    "OLLAMA_HOST": "server.listen",
    "OLLAMA_MODELS": "read: store whose files are used; sources.stores.ollama takes precedence",
    "OLLAMA_KEEP_ALIVE": "defaults.residency.ttl",
    "OLLAMA_CONTEXT_LENGTH": "defaults.context.size",
    "OLLAMA_NUM_PARALLEL": "defaults.limits.parallel",
    "OLLAMA_MAX_LOADED_MODELS": "hardware.budget",
    "OLLAMA_MAX_QUEUE": "server.limits.queue",
    "OLLAMA_FLASH_ATTENTION": "defaults.context.flash_attention",
    "OLLAMA_KV_CACHE_TYPE": "defaults.context.kv",
    "OLLAMA_ORIGINS": "server.cors",
    "OLLAMA_LOAD_TIMEOUT": "defaults.probe.timeout",
    "OLLAMA_GPU_OVERHEAD": "hardware.budget.reserve",
    "OLLAMA_SCHED_SPREAD": "defaults.gpu.split",
    "OLLAMA_NOPRUNE": "prune.files",
    "OLLAMA_NOHISTORY": "/set nohistory",
    "OLLAMA_DEBUG": "observability.logs.level",
}
"""Variables of Ollama that mullama does not read, and its own setting for each."""

UNREAD = {
    "MULLAMA_PORT": "server.listen, or `--http-port`",
    "MULLAMA_SOCKET": "server.listen, such as `unix:/run/mullama.sock`",
    "MULLAMA_GPU_LAYERS": "defaults.gpu.layers, or `--gpu-layers`",
    "MULLAMA_CONTEXT_SIZE": "defaults.context.size, or `--context-size`",
    "MULLAMA_LOG_LEVEL": "observability.logs.level",
    "MULLAMA_CONFIG": "the manifest: `-f FILE`",
    "MULLAMA_MODELS_DIR": "MULLAMA_CACHE_DIR for downloaded weights",
    "MULLAMA_MODEL_PATH": "models.*.from",
    "MULLAMA_BIN": "none: the server runs in the interpreter of the command line",
}
"""Variables that guides to other programs of this name set, and the setting for each."""


def environment_page(note: str) -> str:
    """Return the reference page of the environment."""
    lines = ["# The environment", "", note, ""]
    lines += ["Options of the command line take precedence over the environment, and the environment over defaults."]
    lines += ["Only the manifest declares models and their settings; it may refer to variables as `${NAME}`.", ""]
    lines += _table("mullama", ENVIRONMENT)
    lines += _table("The hub", HUB)
    lines += _table("The system", SYSTEM)
    reported = "`mullama doctor` reports those that are set."
    setting = "setting in mullama"
    lines += _table("Ollama", OLLAMA, f"Use the manifest instead. {reported}", setting)
    lines += _table("Not read", UNREAD, f"Other programs with this name use these variables. {reported}", setting)
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(head: str, table: dict[str, str], text: str = "", second: str = "meaning") -> list[str]:
    rows = [f"| `{name}` | {text} |" for name, text in table.items()]
    return [f"## {head}", "", *([text, ""] if text else []), f"| variable | {second} |", "|---|---|", *rows, ""]
