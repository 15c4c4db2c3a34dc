"""The table of commands: the name, the module that holds it, and the line `mullama --help` prints.

A module is imported when its command is called. It holds, for a command `name`, a function `name(call) -> int`
that returns the exit code, and a function `name_options(parser)` that declares what the command takes.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """One command of the terminal."""

    name: str
    module: str
    """Module below `mullama.cli`: `GROUP.NAME`."""
    summary: str
    """One line for `mullama --help`."""
    aliases: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Key of `GROUPS`: the folder that holds the module."""
        return self.module.partition(".")[0]


GROUPS = {"manifest": "Manifest", "models": "Models", "inference": "Inference", "server": "Server", "app": "Shell"}
"""Headings of `mullama --help`, in order, by the folder of the commands."""


COMMANDS = (
    Command("init", "manifest.manifest", "write a commented manifest to begin with"),
    Command("validate", "manifest.manifest", "check a manifest and report every mistake with its place"),
    Command("config", "manifest.manifest", "print the manifest with includes, profiles and defaults worked in"),
    Command("schema", "manifest.manifest", "print the JSON Schema of the manifest"),
    Command("diff", "manifest.diff", "show what apply would change, and exit with 2 if anything would"),
    Command("apply", "manifest.apply", "make the machine match the manifest, and start the server if none runs"),
    Command("lock", "manifest.lock", "pin what every source of the manifest stands for"),
    Command("bundle", "manifest.bundle", "pack manifest, lock file and weights for a machine without a network"),
    Command("import", "manifest.import_", "write a manifest of what other tools have here"),
    Command("down", "manifest.down", "unload everything and stop the server"),
    Command("history", "manifest.history", "list the applied revisions"),
    Command("undo", "manifest.history", "apply an older revision again"),
    Command("reload", "manifest.history", "read the manifest again now"),
    Command("pull", "models.pull", "fetch a model and keep it beside the manifest", ("download",)),
    Command("list", "models.list", "list the models and what is here of them", ("ls", "models")),
    Command("show", "models.show", "show a model, or its Modelfile, parameters, template, system prompt or license"),
    Command("create", "models.create", "make a model of a Modelfile or Mullamafile"),
    Command("cp", "models.copy_remove", "give a model a second name", ("copy",)),
    Command("rm", "models.copy_remove", "remove models and the files that nothing else needs", ("delete", "remove")),
    Command("load", "models.load", "have a model in memory"),
    Command("unload", "models.load", "let a model go from memory"),
    Command("stop", "models.load", "unload a model, or without a name stop the server"),
    Command("default", "models.load", "tell or set the model that answers when a request names none"),
    Command("cache", "models.cache", "look at the fetched files, and delete what nothing needs"),
    Command("search", "models.hub", "search a hub for models that can be run", ("find",)),
    Command("info", "models.hub", "show what a repository of a hub holds"),
    Command("login", "models.hub", "save a token for gated models"),
    Command("tune", "models.tune", "find the quantisation that suits this machine"),
    Command("quantize", "models.quantize", "write weights in another quantisation"),
    Command("run", "inference.run", "ask a model, with the prompt from the line or standard input"),
    Command("bench", "inference.bench", "measure how fast a model computes, or how a server bears a load"),
    Command("chat", "inference.chat", "talk to a model, line by line", ("tui",)),
    Command("tokenize", "inference.tokens", "count and list the tokens of a text"),
    Command("embed", "inference.tokens", "print the vectors of texts, or compare two"),
    Command("serve", "server.serve", "run the server in the foreground and follow the manifest"),
    Command("status", "server.status", "show the server, its models and their conditions"),
    Command("ps", "server.status", "list the models with what they hold in memory"),
    Command("wait", "server.status", "wait until the server, a model or a condition is ready"),
    Command("logs", "server.logs", "print the server's log"),
    Command("doctor", "server.doctor", "look whether this machine can serve"),
    Command("ping", "server.daemon", "ask the server whether it answers"),
    Command("daemon", "server.daemon", "start, stop or look at the server in the background"),
    Command("events", "server.logs", "print what happens in the server as it happens"),
    Command("completions", "app.completions", "print the completion script of a shell"),
)
