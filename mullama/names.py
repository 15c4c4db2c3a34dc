"""Names as frozen values: model names, digests and sources of weights.

Their `parse` functions validate text from outside. Only validated names may become part of a path or URL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from mullama.errors import Invalid, masked
from mullama.struct import Struct

JSONValue: TypeAlias = "bool | int | float | str | Sequence[JSONValue] | Mapping[str, JSONValue] | None"

LOCK_NAME = "mullama.lock"
"""The lock file, next to the manifest."""
DEFAULT_ROUTE = "default"
"""The route to the model that answers requests without a model."""

_SEGMENT_LENGTH = 80
_SEGMENT = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{_SEGMENT_LENGTH - 1}}}"
_UNFIT = re.compile(r"[^A-Za-z0-9._:/-]+")
_MODEL = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT}){{0,3}}(?::{_SEGMENT})?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
HUB_TOKEN_HEADER = "x-mullama-hf-token"
"""The header in which a command sends HF_TOKEN of its shell over the control socket."""
HUB_ENDPOINT_HEADER = "x-mullama-hf-endpoint"
"""The header in which a command sends HF_ENDPOINT of its shell over the control socket."""
_QUANT = re.compile(r"(?:UD-)?(?:(?:I?Q[1-8]|TQ[12])(?:_[0-9A-Z]+)*|BF16|F16|F32|MXFP4(?:_MOE)?)", re.IGNORECASE)
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


class ModelName(Struct, frozen=True):
    """A name that clients can call, such as `qwen3:8b`; compared without regard to case."""

    text: str

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Return the name; raise `Invalid` for text with another meaning in a path or URL."""
        if unicodedata.normalize("NFC", text) != text or not _MODEL.fullmatch(text):
            raise Invalid(
                f"{text[:80]!r} is not a model name",
                hint="letters, digits, '.', '_' and '-', first a letter or digit; "
                f"at most four parts joined by '/', then ':tag', each of at most {_SEGMENT_LENGTH} characters",
            )
        return cls(text)

    @classmethod
    def fitting(cls, text: str) -> ModelName:
        """Return a name that is similar to any text, and the text itself if it is a name."""
        name = _UNFIT.sub("-", text).strip("-./:")
        if not _MODEL.fullmatch(name):
            name = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")[:_SEGMENT_LENGTH] or "model"
        return cls(name)

    def numbered(self, number: int) -> ModelName:
        """Return the name with `-NUMBER` at its end, in place of characters where there is no room."""
        end = f"-{number}"
        last = max(self.text.rfind("/"), self.text.rfind(":")) + 1
        return ModelName(self.text[: last + _SEGMENT_LENGTH - len(end)] + end)

    @property
    def key(self) -> str:
        """The form by which names are compared, in lower case.

        As in Ollama, `name:latest` and `registry.ollama.ai/library/name` are the same as `name`.
        """
        short = self.text.casefold().removesuffix(":latest").removeprefix("registry.ollama.ai/")
        bare = short.removeprefix("library/")
        return short if "/" in bare else bare

    def __str__(self) -> str:
        return self.text


class Digest(Struct, frozen=True):
    """A SHA-256 of a file's bytes, written `sha256:` and 64 lower-case hex digits."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        if not _DIGEST.fullmatch(text):
            raise Invalid(f"{text[:80]!r} is not a digest", hint="sha256: and 64 lower-case hex digits")
        return cls(text)

    @property
    def hex(self) -> str:
        return self.text.removeprefix("sha256:")

    def __str__(self) -> str:
        return self.text


class BuiltinRef(Struct, frozen=True):
    """Weights in the package: `builtin:tiny`."""

    name: str

    def __str__(self) -> str:
        return f"builtin:{self.name}"


class PathRef(Struct, frozen=True):
    """A file, the first of a split set, or a folder, as written in the manifest."""

    path: str

    def __str__(self) -> str:
        return self.path


class HubRef(Struct, frozen=True):
    """`hf:org/repo[:file|:QUANT][@revision]`; at most one of `file` and `quant` is set."""

    repo: str
    file: str | None = None
    quant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        pick = self.file or self.quant
        return f"hf:{self.repo}" + (f":{pick}" if pick else "") + (f"@{self.revision}" if self.revision else "")


class RegistryRef(Struct, frozen=True):
    """`ollama:[host/][namespace/]model[:tag]` with the registry's defaults filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        return f"ollama:{self.host}/{self.namespace}/{self.model}:{self.tag}"


class UrlRef(Struct, frozen=True):
    """An `https://` address of one GGUF file (or the first of a split set)."""

    url: str

    def __str__(self) -> str:
        return self.url


class AliasRef(Struct, frozen=True):
    """A short name of the alias table, such as `llama3.2:1b` or `llama3.2:1b-q8`."""

    name: str

    def __str__(self) -> str:
        return self.name


SourceRef = BuiltinRef | PathRef | HubRef | RegistryRef | UrlRef | AliasRef

REGISTRY_HOST = "registry.ollama.ai"


def parse_source(text: str) -> SourceRef:
    """Return the source that a `from:` value names; raise `Invalid` for other text. Nothing is looked up.

    A path begins with `/`, `./`, `../` or `~`, has a drive letter, or ends in `.gguf`.
    """
    if not text or any(ord(c) < 32 for c in text):
        raise Invalid("a source must be one line of text", hint="for example builtin:tiny or hf:org/repo")
    require_utf8(text)
    scheme, _, rest = text.partition(":")
    if scheme == "builtin":
        return BuiltinRef(_segment(rest, text))
    if scheme == "hf":
        return _hub(rest, text)
    if text.startswith(("hf.co/", "huggingface.co/")):
        return _hub(text.partition("/")[2], text)
    if scheme == "ollama":
        return _registry(rest, text)
    if scheme in ("https", "http", "file", "s3") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        return _url(text)
    if text.startswith(("/", "./", "../", "~", ".\\", "\\")) or re.match(r"[A-Za-z]:[\\/]", text):
        return PathRef(text)
    if text.lower().endswith(".gguf"):
        return PathRef(text)
    ModelName.parse(text)
    return AliasRef(text)


def is_loopback(host: str) -> bool:
    """Return True for a host of this machine: `localhost`, or an address of the loopback network."""
    import ipaddress  # addresses are rare

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_utf8(text: str) -> None:
    """Raise `Invalid` for a name of a file or an argument that is not UTF-8, which no message can carry."""
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise Invalid(f"{text[-120:]!r} is not UTF-8", hint="rename the file, or use a link whose name is UTF-8")


def model_name_of(source: str) -> str:
    """Return the model name for a source that is pulled without a name; one that is similar to the name of a file."""
    match parse_source(source):
        case HubRef(repo=repo, quant=quant, file=file):
            pick = quant or (file.rsplit("/", 1)[-1].removesuffix(".gguf") if file else None)
            name = f"{repo}:{pick}" if pick else repo
        case RegistryRef(namespace=namespace, model=model, tag=tag):
            name = f"{model}:{tag}" if namespace == "library" else f"{namespace}/{model}:{tag}"
        case UrlRef(url=url):
            name = _name_of_file(unquote(re.split(r"[?#]", url)[0]))
        case PathRef(path=path):
            name = _name_of_file(path)
        case other:
            name = str(other).removeprefix("builtin:")
    return ModelName.parse(name).text


def _name_of_file(path: str) -> str:
    return ModelName.fitting(path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".gguf")).text


def suggest(wanted: str, names: Iterable[str], *, cutoff: float = 0.6) -> tuple[str, ...]:
    """Return at most three names that are similar to `wanted`, most similar first. cutoff: least similarity, 0 to 1."""
    import difflib

    return tuple(difflib.get_close_matches(wanted, sorted(names), n=3, cutoff=cutoff))


def _segment(text: str, whole: str) -> str:
    if not re.fullmatch(_SEGMENT, text):
        raise Invalid(f"{whole!r} is not a source", hint="for example builtin:tiny")
    return text


def _hub(rest: str, whole: str) -> HubRef:
    spec, _, revision = rest.partition("@")
    repo, _, pick = spec.partition(":")
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise Invalid(f"{whole!r} does not name a repository", hint="hf:org/repo[:file|:QUANT][@revision]")
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise Invalid(f"{revision!r} is not a revision", hint="a branch, a tag or a commit")
    file, quant = (None, None)
    if pick:
        if _QUANT.fullmatch(pick) or re.fullmatch(r"[\w-]+", pick, re.ASCII):
            quant = pick.upper()
        else:
            file = repo_file(pick)
    return HubRef(repo, file, quant, revision or None)


def repo_file(path: str) -> str:
    """Return the path of a file in a repository; raise `Invalid` if POSIX or Windows does not allow it."""
    parts = path.split("/")
    bad = any(
        part in ("", ".", "..") or len(part) > 255 or re.search(r'[\\:*?"<>|\x00-\x1f\ud800-\udfff]', part)
        for part in parts
    )
    if bad or len(parts) > 16:
        raise Invalid(f"{path[:120]!r} is not a file name inside a repository")
    return path


def _registry(rest: str, whole: str) -> RegistryRef:
    name, _, tag = rest.rpartition(":") if ":" in rest.rsplit("/", 1)[-1] else (rest, "", "latest")
    parts = name.split("/")
    host, namespace, model = (
        (REGISTRY_HOST, "library", parts[0])
        if len(parts) == 1
        else (REGISTRY_HOST, parts[0], parts[1])
        if len(parts) == 2
        else (parts[0], parts[1], "/".join(parts[2:]))
    )
    ok = (
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,349}", host)
        and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", namespace)
        and re.fullmatch(_SEGMENT, model)
        and re.fullmatch(_SEGMENT, tag)
    )
    if not ok:
        raise Invalid(f"{whole!r} is not a registry name", hint="ollama:[host/][namespace/]model[:tag]")
    return RegistryRef(host, namespace, model, tag)


def _url(text: str) -> UrlRef:
    shown = repr(masked(text)[:120])
    try:
        parts = urlsplit(text)
        if not re.fullmatch(r"https?://[^\s/@]+/\S+", text) or parts.port == 0:
            raise ValueError(text)
    except ValueError as error:  # also of a port that is no number, and of half an IPv6 address
        raise Invalid(
            f"{shown} is not a URL that mullama downloads from",
            hint="https://host/file.gguf, without a user name; s3: and file: are not supported",
        ) from error
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise Invalid(f"{shown} is not encrypted", hint="use https://; http:// only for this machine")
    if not unquote(parts.path).lower().endswith(".gguf"):
        raise Invalid(f"{shown} does not end in .gguf", hint="only GGUF files can be run")
    return UrlRef(text)
