"""The blocks of the server: addresses, keys, sources, pruning, sync."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mullama.chat.media import MOST_MEDIA, MediaLimits
from mullama.manifest.spec.readers import DialectName, check_address, check_host, check_hub_url, check_origin
from mullama.manifest.spec.values import Block, Duration, Flag, Rate, Size, Text, Whole

_MEDIA = MediaLimits()


class SecretRef(Block):
    """Reference to a secret: exactly one of `from_env` and `from_file`."""

    from_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", examples=["HF_TOKEN"])
    """Environment variable with the secret."""
    from_file: Text | None = Field(default=None, examples=["./secrets/admin"])
    """File with the secret, relative to the manifest; `mullama reload` reads it again."""
    optional: Flag = False
    """Accept a missing secret."""


class Metadata(Block):
    """Name and labels of the manifest, for people."""

    name: str | None = Field(default=None, examples=["workstation"])
    """Name for people and dashboards."""
    labels: dict[str, str] = Field(default={}, examples=[{"team": "search"}])
    """Labels: pairs of key and value."""


class Tls(Block):
    """Certificate and key of the TCP listeners."""

    cert: Text = Field(examples=["./tls/cert.pem"])
    """PEM file with the certificate chain, that of the server first. Changed files are read again."""
    key: Text = Field(examples=["./tls/key.pem"])
    """PEM file with the private key, without a passphrase."""
    client_ca: Text | None = Field(default=None, examples=["./tls/ca.pem"])
    """PEM file with certificate authorities: clients need a certificate of one of them (mTLS)."""


class MediaBounds(Block):
    """Limits on the images and sounds of a request. A request that exceeds one gets an error."""

    image: Size = Field(default=_MEDIA.image, ge=1, examples=["20MiB"])
    """Maximum size of an image file. `server.limits.body` bounds the whole request."""
    pixels: Whole = Field(default=_MEDIA.pixels, ge=1, le=2**31 - 1)
    """Maximum number of pixels of an image: width x height."""
    sound: Size = Field(default=_MEDIA.sound, ge=1, examples=["200MiB"])
    """Maximum size of a sound file."""
    seconds: Duration = Field(default=_MEDIA.seconds, gt=0, examples=["3h"])
    """Maximum length of a sound."""
    count: Whole = Field(default=_MEDIA.count, ge=1, le=MOST_MEDIA)
    """Maximum number of images and sounds in one request."""


class SessionBounds(Block):
    """Limits on realtime sessions (`/v1/realtime`). An open session keeps those of its beginning."""

    count: Whole = Field(default=64, ge=1, le=65_536)
    """Number of sessions that may be open at the same time."""
    idle: Duration = Field(default=900.0, gt=0, examples=["15m"])
    """Time without a message of the client and without an answer in progress, after which a session is closed."""
    turn: Duration = Field(default=600.0, ge=1, examples=["10m"])
    """Maximum length of a turn of speech. A longer one is ended, or refused if the client ends its turns itself."""
    memory: Size = Field(default=64 * 1024**2, ge=1024**2, examples=["64MiB"])
    """Maximum size of the sounds, images and texts that one session keeps. A turn may have half of it. The sessions and
    the bodies of requests in progress share 256 MiB."""


class ServerLimits(Block):
    """Limits on requests to all models together."""

    body: Size = Field(default=32 * 1024**2, ge=1024, examples=["32MiB"])
    """Maximum size of a request body. Base64 makes the images and sounds in it a third larger."""
    concurrency: Whole = Field(default=64, ge=1, le=65_536)
    """Number of requests that may run at the same time."""
    queue: Whole = Field(default=256, ge=0, le=1_000_000)
    """Number of requests that may wait; further requests fail with a retry hint."""
    queue_timeout: Duration = Field(default=30.0, examples=["30s"])
    """Maximum time in the queue, for the turn of its model and for a place; a request that waits longer fails with a
    retry hint. The time in which its model loads does not count: `limits.timeout` of the model bounds it, or this
    time, if that is longer."""
    media: MediaBounds = MediaBounds()
    """Limits on the images and sounds of a request."""
    sessions: SessionBounds = SessionBounds()
    """Limits on realtime sessions."""


class StoredObjects(Block):
    """Responses and chat completions that clients store, each for the API key that made it."""

    keep: Duration = Field(default=30 * 86400.0, examples=["30d"])
    """Time after which a stored object is deleted; `0s` stores nothing."""
    size: Size = Field(default=512 * 1024**2, examples=["512MiB"])
    """Maximum size of all stored objects; the oldest are deleted first."""


class ResumableStreams(Block):
    """Streams of requests with the header `X-Conversation-Id`, which their clients may take up again."""

    keep: Duration = Field(default=300.0, examples=["5m"])
    """Time for which a stream is kept after its end; `0s` keeps none, and a request ends with its connection."""
    size: Size = Field(default=64 * 1024**2, ge=65_536, le=2**34, examples=["64MiB"])
    """Maximum size of all kept streams in memory; the oldest complete ones are dropped first. One stream keeps its
    last 4 MiB."""


class Server(Block):
    """The HTTP server."""

    listen: tuple[Annotated[str, AfterValidator(check_address)], ...] = Field(
        default=("127.0.0.1:11434",), min_length=1, max_length=16, examples=[["127.0.0.1:11434", "unix:./mullama.sock"]]
    )
    """`host:port`, `[ipv6]:port` or `unix:PATH`; port 0 selects a free one. All but loopback need auth.keys."""
    dialects: tuple[DialectName, ...] = Field(default=("ollama", "openai", "anthropic"), min_length=1)
    """API dialects that the server speaks; a model may restrict them."""
    cors: tuple[Annotated[str, AfterValidator(check_origin)], ...] = Field(
        default=(), max_length=64, examples=[["https://chat.example.org"]]
    )
    """Origins of web pages that may call the server: `https://HOST`, `https://*.DOMAIN`, or `*` for every page."""
    allowed_hosts: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(), max_length=64, examples=[["llm.example.org"]]
    )
    """Additional host names that clients may use for the server: `NAME`, `*.DOMAIN`, or `*` for every name."""
    tls: Tls | None = None
    """TLS of the TCP listeners; unix sockets stay without it."""
    limits: ServerLimits = ServerLimits()
    """Limits on requests to all models together."""
    fetch_media: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(), max_length=64, examples=[["images.example.org"]]
    )
    """Hosts from which the server fetches images and sounds that a request names by address: `NAME`, `*.DOMAIN`, or `*`
    for every public host. Addresses of private networks are never fetched. Without it, none is."""
    stored: StoredObjects = StoredObjects()
    """Responses and chat completions that clients store."""
    ui: Flag = True
    """Serve the web page at `/ui/`. It reads and changes nothing without an API key, where keys are declared."""
    mcp: Literal["none", "read", "apply"] = "read"
    """Serve the Model Context Protocol at `/mcp`, with the extra `mullama[mcp]`. read: tools that change nothing;
    apply: also those that apply plans, for keys with the role admin."""
    resumable: ResumableStreams = ResumableStreams()
    """Streams that clients take up again after they lost their connection."""


class RateLimit(Block):
    """Requests and tokens per unit of time: `s`, `m`, `h` or `d`. Both are limits of their own."""

    requests: Rate | None = Field(default=None, examples=["60/m"])
    """Requests per unit of time, and at most as many at once."""
    tokens: Rate | None = Field(default=None, examples=["200k/h"])
    """Tokens of prompts and answers per unit of time. A request is accepted while tokens are left; its tokens are
    counted when it ends."""


class Key(Block):
    """One API key and its permissions."""

    secret: SecretRef
    """Reference to the key."""
    models: tuple[Text, ...] = Field(default=("*",), min_length=1, examples=[["small", "qwen3:*"]])
    """Names or patterns of the models and routes that the key may use."""
    roles: tuple[Literal["infer", "admin", "read", "files"], ...] = Field(default=("infer",), min_length=1)
    """Permissions. infer: use models; read: see status, history and plans; files: download the files of models by their
    digest; admin: everything."""
    rate: RateLimit | None = None
    """Rate limits of the key."""
    quota: RateLimit | None = Field(default=None, examples=[{"tokens": "5M/d"}])
    """Further rate limits of the key, for a longer time; they apply together with `rate`."""
    mcp: tuple[Text, ...] | None = Field(default=None, examples=[["docs"], []])
    """Names of the servers of tools that the key may use; `[]` for none. Without it, all."""
    priority: Whole = Field(default=0, ge=-1000, le=1000)
    """Priority: requests with a higher number are served first."""


class Auth(Block):
    """Authentication; without keys, every client that can reach the server may use it."""

    keys: dict[str, Key] = Field(default={})
    """API keys by name."""


class HubSource(Block):
    """The Hugging Face Hub or a mirror."""

    endpoint: Annotated[str, Field(pattern=r"^https?://"), AfterValidator(check_hub_url)] | None = Field(
        default=None, examples=["https://huggingface.co"]
    )
    """URL of the hub; without it, HF_ENDPOINT or https://huggingface.co."""
    token: SecretRef | None = Field(default=None, examples=[{"from_env": "HF_TOKEN", "optional": True}])
    """Token for gated and private repositories."""


class Stores(Block):
    """Stores of other tools. Files in them are used instead of a download; they are never written."""

    huggingface: Text = Field(default="auto", examples=["auto"])
    """`auto` for the default folder, `never`, or a folder."""
    ollama: Text = Field(default="auto", examples=["auto"])
    """`auto` for the default folder, `never`, or a folder."""
    gguf: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["/srv/gguf"]])
    """Folders with GGUF files."""


class Sources(Block):
    """Sources of weights."""

    hf: HubSource = HubSource()
    """The Hugging Face Hub or a mirror."""
    parallel: Whole = Field(default=3, ge=1, le=16)
    """Number of simultaneous downloads."""
    stores: Stores = Stores()
    """Stores of other tools, whose files are used instead of a download."""


class Moved(Block):
    """A renamed model, route or API key, which keeps its recorded usage. The weights of a model stay loaded, and a key
    keeps its rate limits and the objects that its clients stored.
    """

    from_: str = Field(alias="from", min_length=1, examples=["qwen:8b"])
    """Old name."""
    to: Text = Field(examples=["qwen3:8b"])
    """New name."""
    kind: Literal["model", "route", "key"] = "model"
    """The kind of the name."""


class Prune(Block):
    """Removal of models and files that the manifest no longer names."""

    running: Flag = True
    """Unload models that are no longer in the manifest; with false, they serve until the server stops."""
    files: Flag = False
    """Delete downloaded files that nothing refers to."""
    keep: Duration = Field(default=7 * 86400.0, examples=["7d"])
    """Time without use after which such files are deleted."""
