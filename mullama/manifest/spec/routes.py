"""The blocks of the names that clients use: routes, peers, groups, and the clients themselves."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from mullama.manifest.spec.parameters import Parameters
from mullama.manifest.spec.readers import (
    EVERY_ERROR,
    MOST_TOKENS,
    OnError,
    check_client_url,
    check_peer_url,
    route_form,
)
from mullama.manifest.spec.server import SecretRef
from mullama.manifest.spec.values import Block, Duration, Flag, Text, Whole

StrippedName = Literal[
    "temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold",
    "dynatemp_range", "dynatemp_exponent", "repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "mirostat",
    "mirostat_tau", "mirostat_eta", "seed", "min_keep", "samplers", "logit_bias",
    "stop", "num_predict", "think", "logprobs", "format", "tools", "template_arguments", "lora", "draft",
    "cache_prompt", "ignore_eos", "keep_alive",
]  # fmt: skip
Strip = tuple[StrippedName, ...]


class RequestParameters(Parameters):
    """Parameters for requests: sampling, length and reasoning."""

    think: Annotated[Flag | Literal["low", "medium", "high", "max"] | None, Field(examples=[False])] = None
    """Reasoning: true, false or an effort. A model that cannot reason ignores it with a warning."""


class Peer(Block):
    """Another server with OpenAI's API: another mullama, or any other one. Routes name it."""

    url: Annotated[str, AfterValidator(check_peer_url)] = Field(examples=["http://gpu-box:11434"])
    """Address of the server, with or without `/v1`. Proxies of the environment are not used for it."""
    key: SecretRef | None = None
    """Reference to the API key that is sent to it."""
    ca_file: Text | None = Field(default=None, examples=["./tls/ca.pem"])
    """PEM file with the certificate authorities of its certificate; without it those of the system."""
    concurrency: Whole | None = Field(default=None, ge=1, le=65_536, examples=[8])
    """Number of requests that may run there at the same time; further ones fail as overloaded. None for no limit."""
    connect_timeout: Duration = Field(default=5.0, gt=0, examples=["5s"])
    """Maximum time to connect."""
    timeout: Duration = Field(default=600.0, gt=0, examples=["10m"])
    """Maximum time without a byte of an answer."""
    share: Flag = False
    """Ask it for files by digest before their source. It must be a mullama, and its key needs the role files there."""


class RouteTarget(Block):
    """One target of a route. A name alone is short for `model`, and `MODEL@PEER` for both."""

    model: Text = Field(examples=["qwen3:8b"])
    """Name of the model."""
    peer: Text | None = Field(default=None, examples=["gpu-box"])
    """Name of the peer that has the model; None for a model of this manifest."""
    weight: Whole = Field(default=1, ge=0, le=1_000_000)
    """Share of the conversations, relative to the weights of the other targets; 0 for none."""


class Route(Block):
    """A name for one or more models, with fallbacks and rules for the parameters of its requests."""

    to: tuple[RouteTarget, ...] = Field(min_length=1, max_length=64, examples=[[{"model": "qwen3:8b", "weight": 9}]])
    """Models that share the conversations by weight; a name alone is short for one model. Requests of one conversation
    go to the same model."""
    fallback: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["small"]])
    """Models, routes and `MODEL@PEER` that are tried in order when the model of a request fails before its first
    byte."""
    on_error: tuple[OnError, ...] = EVERY_ERROR
    """Failures that lead to the fallback. unavailable: the model cannot be loaded or its process ended; overloaded: its
    queue is full; timeout: the request waited or ran too long."""
    parameters: RequestParameters = RequestParameters()
    """Parameters for requests that leave them out; they replace those of the model."""
    force: RequestParameters = RequestParameters()
    """Parameters that a request cannot change; they replace those that the model forces."""
    strip: Strip = Field(default=(), max_length=64, examples=[["logit_bias"]])
    """Parameters that are removed from requests."""


AnyRoute = Annotated[
    Annotated[str, Field(min_length=1), Tag("name")] | Annotated[Route, Tag("route")],
    Discriminator(route_form),
]


class Group(Block):
    """A set of models with a limit on how many are loaded at the same time. They replace each other by
    `residency.priority`, and those of the same priority in turn.
    """

    models: tuple[Text, ...] = Field(min_length=1, max_length=1000, examples=[["qwen3:8b", "qwen3:14b"]])
    """Names of the models. Models that share a context count once."""
    max: Whole = Field(default=1, ge=1)
    """Maximum number of loaded models."""


class ClientKey(Block):
    """The API key of a client. Its file gets the name of the variable, never the key."""

    from_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", examples=["MULLAMA_API_KEY"])
    """Environment variable with the key, in the environment of the client."""


class ClientConfig(Block):
    """The configuration of one client. A name alone is short for `model`."""

    model: Text | None = Field(default=None, examples=["chat"])
    """Name of a model or route; None for the default model."""
    key: ClientKey | None = None
    """The API key, for a server with keys."""
    url: Annotated[str, AfterValidator(check_client_url)] | None = Field(
        default=None, examples=["https://llm.example.org"]
    )
    """Address of the server; None for the first one of `server.listen`, as it is reached from this machine."""
    context: Whole | None = Field(default=None, ge=1, le=MOST_TOKENS, examples=[32768])
    """Tokens that the client may use for a conversation; None for the context of the model."""
    file: Text | None = Field(default=None, examples=["./.codex/config.toml"])
    """The configuration file, relative to the manifest; None for that of the user. A client of several files has the
    others at their usual places."""
