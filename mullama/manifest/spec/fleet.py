"""The blocks of a fleet: several servers that one manifest describes, and the pins that they get with it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from mullama.manifest.spec.readers import check_gateways, check_hosts, check_pause, check_peer_url
from mullama.manifest.spec.server import SecretRef
from mullama.manifest.spec.values import AnyValue, Block, Flag, RpcHost, Source, Text, Whole

_NAMES = {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}

HostChoice = Annotated[
    Literal["any"] | tuple[str, ...] | dict[str, str],
    BeforeValidator(check_hosts),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["any"]},
                _NAMES,
                {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
            ]
        }
    ),
]
Gateways = Annotated[
    Literal["all", "none"] | tuple[str, ...],
    BeforeValidator(check_gateways),
    WithJsonSchema({"anyOf": [{"enum": ["all", "none"]}, _NAMES]}),
]
Pause = Annotated[
    Literal["manual"] | float,
    BeforeValidator(check_pause),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["manual"]},
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"},
            ]
        }
    ),
]


class FleetHost(Block):
    """One server of the fleet."""

    url: Annotated[str, AfterValidator(check_peer_url)] = Field(examples=["https://a.example.org:11434"])
    """Address of the server. The other hosts and the commands use it."""
    key: SecretRef | None = None
    """Reference to an API key of the server: with the role `read` for `diff`, `admin` for `apply`. The other hosts send
    it with the requests that they forward, and read it from the same reference."""
    ca_file: Text | None = Field(default=None, examples=["./tls/ca.pem"])
    """PEM file with the certificate authorities of its certificate; without it those of the system."""
    labels: dict[str, str] = Field(default={}, max_length=64, examples=[{"gpu": "h200"}])
    """Properties of the host by which models choose it."""
    rpc: RpcHost | None = Field(default=None, examples=["10.0.0.2:50052"])
    """Address at which `mullama rpc` lends the devices of the host to the other hosts. Models name the host in
    `gpu.devices`; llama.cpp's RPC has no authentication and no encryption."""
    away: Flag = False
    """The host is absent: plans leave it out, and assume nothing of it. Its models go to other hosts where they may,
    else they wait for its return."""


class FleetRollout(Block):
    """Order in which changes reach the hosts."""

    max_unavailable: Whole = Field(default=1, ge=0, le=10_000)
    """Number of hosts that change their models at the same time. With 0 it is one host, and no model may pause."""
    max_surge: Whole = Field(default=0, ge=0, le=10_000)
    """Number of further replicas of a model on other hosts while it loads again on a host without room for the old and
    the new one together."""
    canary: Whole = Field(default=0, ge=0, le=10_000)
    """Number of hosts that change first, one after the other; the others follow when all their models are ready."""
    pause: Pause = Field(default=0.0, examples=["30s", "manual"])
    """Time after the canary before the others follow; `manual` ends the apply there, and the next one continues."""


class Fleet(Block):
    """Several servers that one manifest describes. Each host gets the models that are placed on it."""

    hosts: dict[str, FleetHost] = Field(default={}, max_length=10_000)
    """Servers by name."""
    placement: Literal["spread", "pack"] = "spread"
    """Choice of hosts for further models: `spread` prefers the host with the largest free share of its memory, `pack`
    the fullest one that has room. Models that serve stay where they are if they fit."""
    gateways: Gateways = Field(default="all", examples=["all", "none", ["a"]])
    """Hosts that answer requests for all models of the fleet, and forward those for models of other hosts."""
    share: Flag = False
    """Hosts ask each other for files by digest before their source: each is a peer of the others with `share`."""
    rollout: FleetRollout = FleetRollout()
    """Order in which changes reach the hosts."""


Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class LockedFile(Block):
    """One file of a source."""

    name: Text = Field(max_length=1024, examples=["model.gguf"])
    """Name at the source."""
    size: Whole = Field(ge=0, le=2**50 - 1)
    """Size in bytes."""
    digest: Sha256
    """SHA-256 of the file."""
    role: Text = Field(default="weights", max_length=64)
    """Use of the file: `weights`, `projector`, `adapter`, or a text of a registry."""


class LockedSource(Block):
    """The files that a source stands for."""

    resolved: Source
    """Complete name of the source."""
    revision: Text | None = None
    """Commit or digest at the source."""
    files: tuple[LockedFile, ...] = Field(min_length=1, max_length=4096)
    """Files, the weights first."""
    license: str = ""
    """License of the files."""
    facts: dict[str, AnyValue] = Field(default={}, max_length=1000)
    """Facts of the header of the weights, for their memory before the download."""
    projector: dict[str, AnyValue] = Field(default={}, max_length=1000)
    """Facts of the header of the projector beside the weights."""


class ManifestLock(Block):
    """Pins, as a lock file has them."""

    sources: dict[str, LockedSource] = Field(default={}, max_length=10_000)
    """Files by the source, as a model or an adapter names it."""
    tools: dict[str, dict[str, Sha256]] = Field(default={}, max_length=64)
    """Digests of tools by the name of their server and their own."""
