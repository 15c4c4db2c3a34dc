"""The table of commands: the name, the module that holds it, and the line `mullama --help` prints.

A module is imported when its command is called. It holds, for a command `name`, a function `name(call) -> int`
that returns the exit code, and a function `name_options(parser)` that declares what the command takes.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    name: str
    module: str
    summary: str
    aliases: tuple[str, ...] = ()


COMMANDS = (
    Command("init", "authoring", "write a commented manifest to begin with"),
    Command("validate", "authoring", "check a manifest and report every mistake with its place"),
    Command("config", "authoring", "print the manifest with includes, profiles and defaults worked in"),
    Command("schema", "authoring", "print the JSON Schema of the manifest"),
    Command("diff", "diff", "show what apply would change, and exit with 2 if anything would"),
    Command("apply", "apply", "make the machine match the manifest, and start the server if none runs"),
    Command("lock", "lock", "pin what every source of the manifest stands for"),
    Command("bundle", "bundle", "pack manifest, lock file and weights for a machine without a network"),
    Command("import", "importing", "write a manifest of what other tools have here"),
    Command("down", "down", "unload everything and stop the server"),
    Command("serve", "serve", "run the server in the foreground and follow the manifest"),
    Command("status", "status", "show the server, its models and their conditions"),
    Command("ps", "status", "list the models with what they hold in memory"),
    Command("wait", "status", "wait until the server, a model or a condition is ready"),
    Command("pull", "pulling", "fetch a model and keep it beside the manifest", ("download",)),
    Command("list", "listing", "list the models and what is here of them", ("ls", "models")),
    Command("show", "show", "show a model, or its Modelfile, parameters, template, system prompt or license"),
    Command("create", "create", "make a model of a Modelfile or Mullamafile"),
    Command("cp", "removal", "give a model a second name", ("copy",)),
    Command("rm", "removal", "remove models and the files that nothing else needs", ("delete", "remove")),
    Command("load", "loading", "have a model in memory"),
    Command("unload", "loading", "let a model go from memory"),
    Command("stop", "loading", "unload a model, or without a name stop the server"),
    Command("default", "loading", "tell or set the model that answers when a request names none"),
    Command("cache", "cache", "look at the fetched files, and delete what nothing needs"),
    Command("search", "hub", "search a hub for models that can be run", ("find",)),
    Command("info", "hub", "show what a repository of a hub holds"),
    Command("login", "hub", "save a token for gated models"),
    Command("tune", "tune", "find the quantisation that suits this machine"),
    Command("quantize", "quantize", "write weights in another quantisation"),
    Command("run", "run", "ask a model, with the prompt from the line or standard input"),
    Command("bench", "bench", "measure how fast a model computes, or how a server bears a load"),
    Command("chat", "chat", "talk to a model, line by line", ("tui",)),
    Command("tokenize", "tokens", "count and list the tokens of a text"),
    Command("embed", "tokens", "print the vectors of texts, or compare two"),
    Command("history", "generations", "list the applied generations"),
    Command("undo", "generations", "apply an older generation again"),
    Command("reload", "generations", "read the manifest again now"),
    Command("logs", "journal", "print the server's log"),
    Command("doctor", "doctor", "look whether this machine can serve"),
    Command("ping", "daemon", "ask the server whether it answers"),
    Command("daemon", "daemon", "start, stop or look at the server in the background"),
    Command("completions", "completions", "print the completion script of a shell"),
    Command("events", "journal", "print what happens in the server as it happens"),
)
