"""Resolves references to files: paths become absolute, template files become text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from mullama.errors import Invalid, MullamaError
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.nodes import Fields, Leaf, Node, empty, rewrite, text_of
from mullama.names import PathRef, parse_source

_PATHS = (
    ("auth", "keys", "*", "secret", "from_file"),
    ("peers", "*", "key", "from_file"),
    ("peers", "*", "ca_file"),
    ("fleet", "hosts", "*", "key", "from_file"),
    ("fleet", "hosts", "*", "ca_file"),
    ("mcp", "*", "headers", "*", "from_file"),
    ("mcp", "*", "oauth", "client_secret", "from_file"),
    ("search", "key", "from_file"),
    *(("sync", "git", name, "from_file") for name in ("token", "deploy_key")),
    ("sync", "git", "webhook", "secret", "from_file"),
    ("sync", "git", "verify", "ssh_signers"),
    ("sync", "git", "known_hosts"),
    ("clients", "*", "file"),
    ("server", "tls", "cert"),
    ("server", "tls", "key"),
    ("server", "tls", "client_ca"),
    ("sources", "hf", "token", "from_file"),
    ("observability", "otlp", "headers", "*", "from_file"),
    ("observability", "webhooks", "*", "secret", "from_file"),
    ("observability", "webhooks", "*", "url", "from_file"),
    ("sources", "stores", "gguf", "*"),
)
_STORES = (("sources", "stores", "huggingface"), ("sources", "stores", "ollama"))
_LISTEN = ("server", "listen", "*")
_SOURCES = (("from",), ("mmproj",), ("draft", "from"), ("adapters", "*", "from"))


class Environment(Protocol):
    """The environment and files that a manifest refers to."""

    @property
    def env(self) -> Mapping[str, str]:
        """The environment variables."""
        ...

    def absolute(self, path: str, document: str) -> str:
        """Return a path relative to the folder of `document`; raise `Invalid` if it has none."""
        ...

    def text(self, path: str) -> str:
        """Return the content of a file; raise a `MullamaError` if it cannot be read."""
        ...


def resolve_settings(root: Fields, world: Environment, report: Diagnostics) -> Fields:
    """Return the manifest without its models, with absolute paths."""

    def absolute(leaf: Leaf, path: str) -> Node:
        return _absolute(leaf, path, world, report)

    def store(leaf: Leaf, path: str) -> Node:
        return leaf if leaf.value in ("auto", "never") else absolute(leaf, path)

    def listener(leaf: Leaf, path: str) -> Node:
        text = text_of(leaf) or ""
        if not text.startswith("unix:") or text == "unix:":
            return leaf
        done = _absolute(Leaf(text.removeprefix("unix:"), leaf.place), path, world, report)
        return Leaf(f"unix:{done.value}", leaf.place)

    changes: list[tuple[tuple[str, ...], Callable[[Leaf, str], Node]]] = [
        *((pattern, absolute) for pattern in _PATHS),
        *((pattern, store) for pattern in _STORES),
        (_LISTEN, listener),
    ]
    for pattern, change in changes:
        node = rewrite(root, pattern, change)
        assert isinstance(node, Fields)
        root = node
    return root


def resolve_model(model: Fields, path: str, world: Environment, report: Diagnostics) -> Fields:
    """Return a model with absolute paths and its template as text."""

    def source(leaf: Leaf, where: str) -> Node:
        return _source(leaf, where, world, report)

    for pattern in _SOURCES:
        node = rewrite(model, pattern, source, path)
        assert isinstance(node, Fields)
        model = node
    template = model.get("template")
    if isinstance(template, Fields):
        model = model.put("template", _template(template, f"{path}.template", world, report))
    return model


def _source(leaf: Leaf, path: str, world: Environment, report: Diagnostics) -> Leaf:
    """Return a source with an absolute path; the types report text that is not a source."""
    try:
        ref = parse_source(text_of(leaf) or "")
    except Invalid:
        return leaf
    return _absolute(leaf, path, world, report) if isinstance(ref, PathRef) else leaf


def _absolute(leaf: Leaf, path: str, world: Environment, report: Diagnostics) -> Leaf:
    if not (text := text_of(leaf)):
        return leaf
    try:
        return Leaf(world.absolute(text, leaf.place.file), leaf.place)
    except Invalid as error:
        report.add(path, leaf.place, error.message, error.hint)
        return leaf


def _template(template: Fields, path: str, world: Environment, report: Diagnostics) -> Node:
    """Return the template as `text` and `syntax`."""
    given = [key for key in ("text", "file", "go") if key in template.entries]
    if len(given) != 1:
        report.add(
            path,
            template.place,
            "a template has exactly one of text, file and go",
            f"given: {', '.join(given) or 'none'}",
        )
        return template
    leaf, syntax = template.entries[given[0]], text_of(template.get("syntax"))
    if not isinstance(leaf, Leaf) or not isinstance(leaf.value, str) or not leaf.value:
        return template
    if given == ["go"] and syntax == "jinja":
        report.add(path, template.place, "`go` is a template in Go syntax", "remove syntax: jinja")
    if given == ["file"]:
        leaf = _content(leaf, f"{path}.file", world, report)
    resolved = empty(template.place).put("text", leaf)
    if given == ["go"]:
        return resolved.put("syntax", Leaf("go", leaf.place))
    return resolved.put("syntax", template.entries["syntax"]) if "syntax" in template.entries else resolved


def _content(leaf: Leaf, path: str, world: Environment, report: Diagnostics) -> Leaf:
    """Return the content of a template file."""
    try:
        text = world.text(str(_absolute(leaf, path, world, report).value))
    except MullamaError as error:
        report.add(path, leaf.place, error.message, error.hint)
        return leaf
    if not text.strip():
        report.add(path, leaf.place, f"{leaf.value} is empty", "a template cannot be empty")
    return Leaf(text, leaf.place)
