"""The table of commands: name, module, and the summary that `mullama --help` prints.

A module is imported when its command is called. For a command `name` it defines `name(call) -> int`, which returns the
exit code, and `name_options(parser)`, which declares the options.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """One command of the command line."""

    name: str
    module: str
    """Module below `mullama.cli`: `GROUP.NAME`."""
    summary: str
    """One line for `mullama --help`."""
    aliases: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Key of `GROUPS`: the folder of the module."""
        return self.module.partition(".")[0]


GROUPS = {
    "manifest": "Manifest",
    "models": "Models",
    "inference": "Inference",
    "server": "Server",
    "clients": "Clients",
    "shell": "Shell",
}
"""Headings of `mullama --help`, in order, by the folder of the commands."""


COMMANDS = (
    Command("init", "manifest.manifest", "write a commented manifest to start from"),
    Command("validate", "manifest.manifest", "check a manifest and report every error with its line"),
    Command("config", "manifest.manifest", "print the manifest with includes, profiles and defaults resolved"),
    Command("schema", "manifest.manifest", "print the JSON Schema of the manifest"),
    Command("diff", "manifest.diff", "show what apply would change; exit with 2 if there are changes"),
    Command("apply", "manifest.apply", "make this machine match the manifest; start a server if none is running"),
    Command("lock", "manifest.lock", "pin the exact files of every source in the lock file"),
    Command("outdated", "manifest.outdated", "compare the locked files with those that the sources have now"),
    Command("bundle", "manifest.bundle", "pack manifest, lock file and weights for a machine without a network"),
    Command("export", "manifest.export", "write the manifest for compose, systemd, Kubernetes or another tool"),
    Command("import", "manifest.import_", "write a manifest from the models of other tools"),
    Command("down", "manifest.down", "unload all models and stop the server"),
    Command("history", "manifest.history", "list the applied revisions"),
    Command("undo", "manifest.history", "apply an earlier revision again"),
    Command("reload", "manifest.history", "make the server read its manifest again"),
    Command("pull", "models.pull", "download a model and add it to the server's models", ("download",)),
    Command("list", "models.list", "list the models and their files", ("ls", "models")),
    Command("show", "models.show", "show a model: Modelfile, parameters, template, system prompt, license"),
    Command("create", "models.create", "create a model from a Modelfile or Mullamafile"),
    Command("cp", "models.copy_remove", "copy a model to a new name", ("copy",)),
    Command("rm", "models.copy_remove", "remove models and their unused files", ("delete", "remove")),
    Command("load", "models.load", "load a model"),
    Command("unload", "models.load", "unload a model"),
    Command("stop", "models.load", "unload a model, or without a name stop the server"),
    Command("default", "models.load", "print or set the model for requests that name none"),
    Command("cache", "models.cache", "list, verify and delete downloaded files"),
    Command("search", "models.hub", "search a hub for models that mullama can run", ("find",)),
    Command("info", "models.hub", "show the files of a hub repository"),
    Command("login", "models.hub", "save a hub token for gated models"),
    Command("tune", "models.tune", "find the quantization that suits this machine"),
    Command("quantize", "models.quantize", "convert weights to another quantization"),
    Command("run", "inference.run", "send a prompt to a model, or chat without one"),
    Command("bench", "inference.bench", "measure the speed of a model or the throughput of a server"),
    Command("chat", "inference.chat", "chat with a model", ("tui",)),
    Command("session", "inference.session", "list, save, continue and delete conversations"),
    Command("grammar", "inference.grammar", "print the grammar of a JSON Schema, or check a grammar"),
    Command("listen", "inference.listen", "speak with a model, by microphone, file or pipe"),
    Command("tokenize", "inference.tokens", "count and list the tokens of a text"),
    Command("embed", "inference.tokens", "print the embeddings of texts, or compare two"),
    Command("transcribe", "inference.transcribe", "write down the speech of sound files"),
    Command("serve", "server.serve", "run the server in the foreground and follow the manifest"),
    Command("status", "server.status", "show the server, its models and their conditions"),
    Command("top", "server.top", "watch and change the server on a live page of the terminal"),
    Command("ps", "server.status", "list the loaded models and their memory"),
    Command("wait", "server.wait", "wait until the server, a model or a condition is ready"),
    Command("usage", "server.usage", "show the requests and tokens of keys, routes and models"),
    Command("ui", "server.ui", "print the address of the web page, or open it in a browser"),
    Command("mcp", "server.mcp", "offer the server to an assistant as tools (Model Context Protocol)"),
    Command("logs", "server.logs", "print the server log"),
    Command("rpc", "server.rpc", "lend the devices of this machine to other machines"),
    Command("doctor", "server.doctor", "check this machine for problems"),
    Command("ping", "server.daemon", "check that the server answers"),
    Command("daemon", "server.daemon", "start, stop or inspect the background server"),
    Command("events", "server.logs", "print the events of the server as they occur"),
    Command("requests", "server.requests", "list the captured requests, or show one with its prompt and answer"),
    Command("clients", "clients.clients", "show, make and undo the edits of the configuration files of agents"),
    Command("launch", "clients.launch", "start a coding agent for a model of the server"),
    Command("completions", "shell.completions", "print the completion script of a shell"),
)
