"""Conversions and checks of single values of the manifest, without pydantic: text to sizes, durations, shares, layers.

Each function that a type of the manifest names has a name here, so that `compiled_schemas` can name it as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from mullama.errors import Invalid, masked
from mullama.manifest.addresses import parse_address, parse_rpc_host
from mullama.manifest.host_addresses import address_of, addresses_in, is_host
from mullama.manifest.spec.web_origins import host_pattern, origin_pattern
from mullama.names import parse_source, suggest
from mullama.units import parse_duration, parse_rate, parse_size, rate_literal

DialectName = Literal["ollama", "openai", "anthropic"]
ClientName = Literal[
    "claude-code", "codex", "opencode", "aider", "goose", "continue", "zed", "cline", "vscode", "open-webui", "llm",
]  # fmt: skip
OnError = Literal["unavailable", "overloaded", "timeout"]
EVERY_ERROR: tuple[OnError, ...] = ("unavailable", "overloaded", "timeout")
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

NEVER = math.inf
LARGEST = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""

_PERCENT = re.compile(r"(?:100|[1-9]?[0-9])%")
_DEVICE = re.compile(r"[0-9]{1,2}")
MOST_LAYERS = 10_000
MOST_TOKENS = 2**31 - 1

DRAFT_WORDS: Final = ("auto", "none", "ngram", "mtp")
"""Values of `draft.from` that are no source."""


MMPROJ_WORDS: Final = ("auto", "none")
"""Values of `mmproj` that are no source."""


class InvalidValue(ValueError):
    """A validation error with a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_OWN_HEADERS = frozenset(
    ("host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "user-agent")
)


def checked(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator that accepts text if `parse` does, and keeps it as text."""

    def check(text: str) -> str:
        try:
            parse(text)
        except Invalid as error:
            raise InvalidValue(error.message, error.hint) from error
        return text

    return check


def read_size(value: object) -> object:
    """Convert text to bytes, from 0 to `LARGEST`; values of other types stay, for the type to check.

    The bounds are here, because a bound of the type would replace that of a field.
    """
    count = parse_size(value) if isinstance(value, str) else value
    if isinstance(count, int) and count > LARGEST:
        raise ValueError(f"must be at most {LARGEST}")
    return _not_negative(count)


def read_duration(value: object) -> object:
    """Convert text to seconds, at least 0; values of other types stay. See `read_size`."""
    return _not_negative(parse_duration(value) if isinstance(value, str) else value)


def _not_negative(value: object) -> object:
    if isinstance(value, (int, float)) and value < 0:
        raise ValueError(f"must be at least 0, not {str(value)[:40]}")
    return value


def canonical_rate(value: str) -> str:
    """Return the one spelling of a rate, so that equal rates are equal."""
    return rate_literal(*parse_rate(value))


def parse_share(value: object) -> object:
    """Keep a percentage such as `80%`; convert other text to bytes."""
    return value if isinstance(value, str) and _PERCENT.fullmatch(value) else read_size(value)


def share_of(share: str | int | None, total: int) -> int | None:
    """Return a share in bytes: a percentage of `total`, or a number as it is; None for no limit."""
    return total * int(share[:-1]) // 100 if isinstance(share, str) else share


def check_layers(value: object) -> object:
    """Check for `auto`, `all`, a number of layers, or a map of device numbers to numbers of layers."""
    if value in ("auto", "all") or _is_count(value):
        return value
    if isinstance(value, dict) and value:
        wrong = [k for k, v in value.items() if not (_DEVICE.fullmatch(str(k)) and _is_count(v))]
        if not wrong:
            return value
        raise ValueError(f'expected device numbers with layer counts, such as {{"0": 30}}, not {wrong[0]!r}')
    raise ValueError('expected auto, all, a number of layers, or a map such as {"0": 30, "1": 18}')


def check_pool(value: object) -> object:
    """Check for `auto`, `worst_case` or a number of tokens."""
    if value in ("auto", "worst_case") or (type(value) is int and 1 <= value <= MOST_TOKENS):
        return value
    raise ValueError("expected auto, worst_case, or a number of tokens")


def check_checkpoints(value: object) -> object:
    """Keep `auto`; convert a size to bytes."""
    if isinstance(value, str) and value != "auto" and not value[:1].isdecimal():
        raise ValueError(f"expected auto, or a size such as 1GiB, not {value[:40]!r}")
    if value == "auto" or isinstance(value, str) or type(value) is int:
        return value if value == "auto" else read_size(value)
    raise ValueError("expected auto, or a size such as 1GiB")


def check_experts(value: object) -> object:
    """Check for `auto`, `all` or a number of layers."""
    if value in ("auto", "all") or _is_count(value):
        return value
    raise ValueError("expected auto, all, or a number of layers")


def parse_flash(value: object) -> object:
    """Convert true and false to on and off: YAML 1.1 tools write them so."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def check_not_boolean(value: object) -> object:
    """Refuse true and false, which Python counts as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


def check_hosts(value: object) -> object:
    """Check for `any`, a list of names of hosts, or a map of labels."""
    if value == "any" or _is_names(value):
        return value
    if isinstance(value, dict) and value and all(isinstance(text, str) for text in (*value, *value.values())):
        return value
    raise ValueError("expected any, a list of hosts, or labels such as {gpu: h200}")


def check_gateways(value: object) -> object:
    """Check for `all`, `none` or a list of names of hosts."""
    if value in ("all", "none") or _is_names(value):
        return value
    raise ValueError("expected all, none, or a list of hosts")


def _is_names(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(name, str) and name for name in value)


def check_approval(value: object) -> object:
    """Check for `never`, `always` or a list of patterns."""
    if value in ("never", "always") or _is_names(value):
        return value
    raise ValueError("expected never, always, or a list of patterns such as [write_*]")


def check_pause(value: object) -> object:
    """Convert text to seconds, at least 0; `manual` stays."""
    seconds = value if value == "manual" else read_duration(value)
    if seconds == NEVER or isinstance(seconds, bool):
        raise ValueError("expected a duration such as 30s, or manual")
    return seconds


def check_expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_LAYERS


def show_duration(seconds: float) -> float | str:
    return "never" if seconds == NEVER else seconds


check_source = checked(parse_source)
check_address = checked(parse_address)
check_origin = checked(origin_pattern)
check_host = checked(host_pattern)
check_rpc_host = checked(parse_rpc_host)


def check_drafter(value: str) -> str:
    return _word_or_source(value, DRAFT_WORDS)


def check_mmproj(value: str) -> str:
    return _word_or_source(value, MMPROJ_WORDS)


def _word_or_source(value: str, words: Sequence[str]) -> str:
    """Refuse a plain name that is similar to a word: it would be asked for at Ollama's registry."""
    if value in words:
        return value
    if value.isalpha() and (near := suggest(value.casefold(), words, cutoff=0.66)):
        raise InvalidValue(
            f"{value!r} is none of {', '.join(words)}",
            f"did you mean {' or '.join(near)}? ollama:{value} is the model of that name",
        )
    return check_source(value)


def route_form(value: object) -> str:
    """Return the form of a route: a block as a map or as an object, else the name of a model."""
    return "route" if isinstance(value, dict) or hasattr(value, "fallback") else "name"


def targets_of(route: Any) -> tuple[str, ...]:
    """Return the models of a route, the highest weight first. The first one stands for the route in listings."""
    if isinstance(route, str):
        return (route,)
    return tuple(target_name(target) for target in sorted(route.to, key=lambda target: -target.weight))


def target_name(target: Any) -> str:
    """Return the name of a target: of a model, or `MODEL@PEER`, which no model has."""
    return f"{target.model}{PEER_SIGN}{target.peer}" if target.peer is not None else str(target.model)


PEER_SIGN = "@"


def check_peer_url(value: str) -> str:
    """Check the address of a peer: without a secret, a query and a fragment. A final `/v1` and `/` are left out."""
    parts = _http_address(value)
    if parts is not None and parts.username is not None:
        raise InvalidValue("the address of a peer has no secret", "use its key: {from_env: NAME}")
    if parts is None or parts.port == 0 or " " in value or parts.query or parts.fragment:
        raise InvalidValue(f"{masked(value)[:80]!r} is not the address of a server", _PEER_HINT)
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix("/v1")


_PEER_HINT = "http://HOST:PORT or https://HOST/PATH, with or without /v1"


def moves_of(moved: Iterable[Any], kind: str) -> dict[str, str]:
    """Return the last new name for each old name of a kind in `moved`."""
    steps = {move.from_: move.to for move in moved if move.kind == kind}
    ends: dict[str, str] = {}
    for name in steps:
        way: dict[str, None] = {}
        while name in steps and name not in ends and name not in way:
            way[name] = None
            name = steps[name]
        ends |= dict.fromkeys(way, ends.get(name, name))
    return ends


_GIT_REF = re.compile(r"(?!.*\.\.)(?!.*//)[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_GIT_SCP = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^\s-][^\s]*")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_client_url(value: str) -> str:
    """Check the address that a client uses: without a secret, a query and a fragment. A final `/v1` and `/` are left
    out."""
    parts = _http_address(value)
    if parts is not None and parts.username is not None:
        raise InvalidValue("the address of a client has no secret", "use its key: {from_env: NAME}")
    if parts is None or parts.query or parts.fragment:
        raise InvalidValue(f"{masked(value)[:80]!r} is not the address of a server", _PEER_HINT)
    return value.rstrip("/").removesuffix("/v1")


def check_git_url(value: str) -> str:
    """Check the address of a git repository: encrypted, except on this machine, and without a secret."""
    try:
        parts = urlsplit(value)
        host, password = parts.hostname, parts.password
    except ValueError:
        raise InvalidValue(f"{value[:80]!r} is not the address of a git repository", _GIT_HINT) from None
    if password is not None or (parts.scheme in ("http", "https") and parts.username is not None):
        raise InvalidValue("the address of a git repository has no secret", "use sync.git.token")
    if _GIT_SCP.fullmatch(value) or (parts.scheme in ("https", "ssh") and host and not host.startswith("-")):
        return value
    if parts.scheme in ("http", "git") and host in _LOOPBACK:
        return value
    if parts.scheme in ("http", "git"):
        raise InvalidValue(f"{parts.scheme}:// is not encrypted", _GIT_HINT)
    if parts.scheme in ("file", "") or value.startswith((".", "/")):
        raise InvalidValue(
            "a folder of this machine is not a source of sync.git",
            "name the file with -f: the server follows a saved file without git",
        )
    raise InvalidValue(f"{value[:80]!r} is not the address of a git repository", _GIT_HINT)


_GIT_HINT = "https://HOST/PATH.git, ssh://HOST/PATH.git or USER@HOST:PATH"


def check_git_ref(value: str) -> str:
    """Check the name of a branch or tag, or a commit."""
    if not _GIT_REF.fullmatch(value):
        raise InvalidValue(f"{value[:80]!r} is not a branch, tag or commit", "main, v1.2 or a full hash")
    return value


def check_git_path(value: str) -> str:
    """Check a path inside a repository."""
    parts = value.split("/")
    if not value or value.startswith(("/", "-")) or any(part in ("", ".", "..", ".git") for part in parts):
        raise InvalidValue(f"{value[:80]!r} is not a path in the repository", "mullama.yaml or teams/a/mullama.yaml")
    return value


def check_hook_url(value: str) -> str:
    """Check the address of a webhook."""
    if (parts := _http_address(value)) is None:
        raise InvalidValue(f"{value[:80]!r} is not the address of a webhook", "https://hooks.example.org/mullama")
    if parts.username is not None:
        raise InvalidValue(
            "the address of a webhook has no user name", "an address with a secret is url: {from_env: NAME}"
        )
    _check_not_of_link(parts)
    return value


def check_collector_url(value: str) -> str:
    """Check the address of a collector of traces and metrics, and return it without a final slash."""
    if (parts := _http_address(value)) is None or parts.query or parts.fragment:
        raise InvalidValue(f"{value[:80]!r} is not the address of a collector", "https://otlp.example.org:4318")
    if parts.username is not None:
        raise InvalidValue("the address of a collector has no user name", "headers: {Authorization: {from_env: NAME}}")
    if parts.path.endswith(("/v1/traces", "/v1/metrics")):
        raise InvalidValue("the address of a collector ends before /v1/traces and /v1/metrics", "leave that path out")
    _check_not_of_link(parts)
    return value.rstrip("/")


def check_mcp_url(value: str) -> str:
    """Check the address of a server of tools: without a secret and a fragment, and not of the link."""
    if (parts := _http_address(value)) is None or parts.fragment:
        raise InvalidValue(
            f"{masked(value)[:80]!r} is not the address of a server of tools", "https://mcp.example.org/mcp"
        )
    if parts.username is not None:
        raise InvalidValue(
            "the address of a server of tools has no user name", "headers: {Authorization: {from_env: NAME}}"
        )
    _check_not_of_link(parts)
    return value


def check_search_url(value: str) -> str:
    """Check the address of a search engine: without a secret, a query and a fragment, and not of the link."""
    parts = _http_address(value)
    if parts is not None and parts.username is not None:
        raise InvalidValue("the address of a search engine has no user name", "key: {from_env: NAME}")
    if parts is None or parts.query or parts.fragment:
        raise InvalidValue(
            f"{masked(value)[:80]!r} is not the address of a search engine", "https://search.example.org"
        )
    _check_not_of_link(parts)
    return value


def check_hub_url(value: str) -> str:
    """Check the address of a hub and return it."""
    parts = _http_address(value)
    if parts is None or parts.query or parts.fragment:
        raise InvalidValue(f"{masked(value)[:80]!r} is not the address of a hub", "https://huggingface.co")
    if parts.username is not None:
        raise InvalidValue("the address of a hub has no user name", "token: {from_env: HF_TOKEN}")
    return value


def _check_not_of_link(parts: SplitResult) -> None:
    """Refuse an address that no connection is made to. That of a name is known when the connection is made."""
    address = address_of(parts.hostname or "")
    if address is not None and not all(map(is_host, addresses_in(address))):
        raise InvalidValue(
            f"{parts.hostname} is an address of the link", "clouds serve the credentials of a machine there"
        )


def _http_address(value: str) -> SplitResult | None:
    """Return the parts of an address of HTTP; None for any other text."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return None
    return parts if usable and value.isascii() and value.isprintable() else None


def check_header_name(value: str) -> str:
    """Check the name of a header that a manifest adds to a request."""
    if not _HEADER_NAME.fullmatch(value):
        raise InvalidValue(f"{value[:80]!r} is not the name of a header", "Authorization")
    if value.lower() in _OWN_HEADERS:
        raise InvalidValue(f"the header {value} is set by the server", "leave it out")
    return value


def secret_form(value: object) -> str:
    """Return the form of an address that may be a reference to a secret: a block as a map or as an object."""
    return "reference" if isinstance(value, dict) or hasattr(value, "from_env") else "address"


def draft_source(draft: Any) -> str | None:
    """Return the source of a draft model; None where guesses come from elsewhere."""
    return None if draft.from_ in DRAFT_WORDS or draft.tokens == 0 else str(draft.from_)


def writes_text(model: Any) -> bool:
    """Return True for a model that writes text, False for one that computes vectors or ranks."""
    return model.task in ("chat", "transcription")


def model_sources(model: Any) -> tuple[str, ...]:
    """Return the sources of the weights of a model: its own, and that of a draft model."""
    drafter = draft_source(model.draft) if model.draft else None
    return (model.from_,) if drafter is None else (model.from_, drafter)


def projector_source(model: Any) -> str | None:
    """Return the source of the projector of a model; None where it comes with the weights, and without one."""
    return None if model.mmproj in (*MMPROJ_WORDS, model.from_) else str(model.mmproj)


def all_sources(model: Any) -> tuple[str, ...]:
    """Return the sources of all files of a model: of weights, a projector and adapters."""
    projector = projector_source(model)
    return (*model_sources(model), *((projector,) if projector else ()), *adapter_sources(model))


def adapter_sources(model: Any) -> tuple[str, ...]:
    """Return the sources of the adapters of a model, in the order of their numbers."""
    return tuple(adapter.from_ for adapter in model.adapters)
