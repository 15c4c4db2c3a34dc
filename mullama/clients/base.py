"""The values of a client's configuration: the fields of its files, and the command that starts it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from mullama.manifest.spec.readers import ClientName
from mullama.names import JSONValue
from mullama.struct import Struct, field

Form: TypeAlias = Literal["jsonc", "toml", "yaml"]
"""The form of a configuration file. jsonc: JSON, with or without comments and trailing commas."""

PROVIDER = "mullama"
"""Name of the provider, the entry or the section that mullama adds to a file."""
NO_KEY = "none"
"""Stands for the API key in clients that demand one, where the server has no keys. It is no secret."""
_MOST_ANSWER = 32_000


class ListEntry(Struct, frozen=True):
    """A step into a list: the entry whose field `key` is `value`. It is added at the end of a list without it."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"[{self.value}]"


PathStep: TypeAlias = "str | ListEntry"


class Edit(Struct, frozen=True, kw_only=True):
    """One field of a file. A map as the value sets each of its keys, and leaves the other keys of the file alone."""

    path: tuple[PathStep, ...]
    value: JSONValue
    only_missing: bool = False
    """Set the field only where the file has none, such as the version of the format in a new file."""


class ClientFile(Struct, frozen=True, kw_only=True):
    """One configuration file and its fields."""

    path: str
    """Absolute path."""
    form: Form
    edits: tuple[Edit, ...]
    others: tuple[str, ...] = ()
    """Paths that the client reads instead; the first one that exists is edited."""


class ServedModel(Struct, frozen=True, kw_only=True):
    """The model that a client uses, and its server."""

    url: str
    """Address of the server without a path, such as `http://127.0.0.1:11434`."""
    model: str
    """Name of a model or a route."""
    context: int | None = None
    """Size of the context in tokens; None if it is not known."""
    key: str | None = None
    """Environment variable with the API key; None for a server without keys."""
    tools: bool = True
    """True if the model can call tools."""

    @property
    def answer(self) -> int | None:
        """Return the tokens of the context that a client leaves for an answer: a quarter, at most 32,000."""
        return None if self.context is None else max(1, min(self.context // 4, _MOST_ANSWER))

    @property
    def openai(self) -> str:
        """Return the address of OpenAI's API."""
        return f"{self.url}/v1"


class UserFolders(Struct, frozen=True, kw_only=True):
    """The places of a user's configuration files."""

    home: str
    platform: str
    """As `sys.platform`."""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """Return the folder of the XDG convention, which some clients use on every platform."""
        return self.env.get("XDG_CONFIG_HOME") or f"{self.home}/.config"

    def application(self, name: str) -> str:
        """Return the folder of an application by the convention of the platform."""
        match self.platform:
            case "darwin":
                return f"{self.home}/Library/Application Support/{name}"
            case "win32":
                return f"{self.env.get('APPDATA') or self.home + '/AppData/Roaming'}/{name}"
            case _:
                return f"{self.config}/{name}"


class StartCommand(Struct, frozen=True, kw_only=True):
    """The command that starts a client for one model. It edits no file."""

    words: tuple[str, ...]
    """The program and its arguments; those of the user follow."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables of its environment, also those with the key."""
    without: tuple[str, ...] = ()
    """Variables that it does not get, because they would lead it to another server."""


class ClientProgram(Struct, frozen=True, kw_only=True):
    """One program that uses a server: how its files name the server, and how it is started."""

    name: ClientName
    title: str
    install: str
    """The command or the page that installs it."""
    needs_tools: bool
    """True if it works only with a model that calls tools."""
    start: Callable[[ServedModel, str], StartCommand]
    """Returns its command. The second argument is the API key, `NO_KEY` without one."""
    files: Callable[[ServedModel, UserFolders], tuple[ClientFile, ...]] = lambda served, folders: ()
    """Returns its files; none for a client that has its settings in a database."""
    starts_with_files: bool = False
    """True if its command names no server: it starts only after its files are applied."""
    least_context: int = 0
    """Tokens of a context in which its instructions, its tools and some files fit; 0 for a client that sends none."""
    notes: Callable[[ServedModel], tuple[str, ...]] = lambda served: ()
    """Returns the parts that a person must do by hand."""

    @property
    def program(self) -> str:
        """Return the name of its command."""
        return self.start(ServedModel(url="", model=""), NO_KEY).words[0]


def small_context(client: ClientProgram, served: ServedModel, field: str) -> str | None:
    """Return the warning for a context that is too small for a client; None for one that is large enough or unknown.

    field: the field of the manifest that decides on the size.
    """
    if served.context is None or served.context >= client.least_context:
        return None
    return (
        f"the context of {served.model} has {served.context} tokens, and {client.title} needs some "
        f"{client.least_context} for its instructions, tools and files: write {field}: {client.least_context}"
    )


def present(**values: JSONValue) -> dict[str, JSONValue]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}
