"""Checks across the parts of a manifest: names that exist, listeners with keys, compatible blocks."""

from __future__ import annotations

import bisect
import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from mullama.chat.template_arguments import TEMPLATE_ARGUMENTS
from mullama.chat.transcription.languages import language_name
from mullama.errors import Invalid
from mullama.manifest.addresses import TcpAddress, parse_address
from mullama.manifest.checks.clients import check_clients
from mullama.manifest.checks.fleet import check_fleet
from mullama.manifest.checks.groups import check_groups
from mullama.manifest.checks.routes import check_peers, check_routes
from mullama.manifest.checks.tools import check_names, check_search, check_servers, check_use, server_names
from mullama.manifest.diagnostics import Suggestions
from mullama.manifest.spec import GitSync, Gpu, Hardware, Manifest, Model, Route, SecretRef, Webhook
from mullama.manifest.spec.readers import writes_text
from mullama.names import BuiltinRef, ModelName, PathRef, UrlRef, parse_source
from mullama.struct import Struct
from mullama.units import counted

AddProblem = Callable[[str, str, str], None]
"""(dotted path, message, hint)"""


_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\\\/]")
_MOST_COMPARED = 100
_ADDRESS = re.compile(r"[^/]+:[0-9]{1,5}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class PartialManifest(Struct, frozen=True, kw_only=True):
    """A manifest without its invalid parts.

    names: all models, including the invalid ones. broken: the invalid top-level blocks. suggest: returns hints with
    similar names.
    """

    manifest: Manifest
    names: Collection[str]
    broken: Collection[str] = ()
    suggest: Suggestions

    def has(self, *blocks: str) -> bool:
        return not any(block in self.broken for block in blocks)


def check(draft: PartialManifest, fail: AddProblem, warn: AddProblem) -> None:
    """Report all contradictions."""
    _names(draft, fail)
    check_routes(draft.manifest, draft.names, draft.suggest, fail, warn)
    check_peers(draft.manifest, fail, warn)
    check_groups(draft.manifest, draft.names, draft.suggest, fail, warn)
    check_clients(draft.manifest, draft.names, draft.suggest, fail, warn)
    if draft.has("fleet"):
        check_fleet(draft.manifest, draft.suggest, fail, warn)
    if draft.has("mcp"):
        check_servers(draft.manifest, fail, warn)
    if draft.has("search", "mcp"):
        check_search(draft.manifest, draft.names, draft.suggest, fail, warn)
    _moved(draft, fail, warn)
    if draft.has("server"):
        _listeners(draft, fail, warn)
    if draft.has("auth"):
        _keys(draft, fail, warn)
    _secrets(draft.manifest, fail)
    _hardware(draft.manifest.hardware, fail)
    _webhooks(draft.manifest.observability.webhooks, fail)
    for name, model in draft.manifest.models.items():
        _model(model, f"models.{name}", draft, fail, warn)


def _secrets(manifest: Manifest, fail: AddProblem) -> None:
    """Check the references to secrets outside of `auth` and `observability.webhooks`."""
    if (git := manifest.sync.git) is not None:
        hook = git.webhook.secret if git.webhook is not None else None
        for name, ref in (("token", git.token), ("deploy_key", git.deploy_key), ("webhook.secret", hook)):
            if ref is not None:
                _secret(ref, f"sync.git.{name}", fail)
        _credentials(git, fail)
    if (token := manifest.sources.hf.token) is not None:
        _secret(token, "sources.hf.token", fail)
    for name, peer in manifest.peers.items():
        if peer.key is not None:
            _secret(peer.key, f"peers.{name}.key", fail)
    if (search := manifest.search) is not None and search.key is not None:
        _secret(search.key, "search.key", fail)
    for name, host in manifest.fleet.hosts.items():
        if host.key is not None:
            _secret(host.key, f"fleet.hosts.{name}.key", fail)
    for name, server in manifest.mcp.items():
        for header, secret in server.headers.items():
            _secret(secret, f"mcp.{name}.headers.{header}", fail)
        if server.oauth is not None:
            _secret(server.oauth.client_secret, f"mcp.{name}.oauth.client_secret", fail)
    if (otlp := manifest.observability.otlp) is not None:
        for name, secret in otlp.headers.items():
            _secret(secret, f"observability.otlp.headers.{name}", fail)


def check_resolved(manifest: Manifest, fail: AddProblem) -> None:
    """Check that a resolved manifest has absolute paths and template texts."""
    for name, model in manifest.models.items():
        if model.template is not None and (model.template.text is None or model.template.file or model.template.go):
            fail(f"models.{name}.template", "a template in a resolved manifest is text", "")
        sources = [("from", model.from_), *(("adapters", adapter.from_) for adapter in model.adapters)]
        if model.projector_source:
            sources.append(("mmproj", model.projector_source))
        for path, source in sources:
            if isinstance(parse_source(source), PathRef) and not _ABSOLUTE.match(source):
                fail(f"models.{name}.{path}", f"{source!r} is not an absolute path", "")


def _names(draft: PartialManifest, fail: AddProblem) -> None:
    """Check that names of models, routes and exposed adapters are unique, without regard to case and `:latest`."""
    seen: dict[str, str] = {}
    for kind, names in (("model", draft.names), ("route", draft.manifest.routes)):
        for name in names:
            path = f"{kind}s.{name}"
            try:
                key = ModelName.parse(name).key
            except Invalid as error:
                fail(path, error.message, error.hint)
                continue
            if key in seen and not (kind == "route" and _begins_with_model(draft.manifest.routes[name], name)):
                fail(path, f"the {seen[key]} has the same name", "rename one of them")
            seen.setdefault(key, f"{kind} {name}")
    for name, model in draft.manifest.models.items():
        for index, adapter in enumerate(model.adapters):
            if not adapter.expose or adapter.name is None:
                continue
            path = f"models.{name}.adapters[{index}].name"
            try:
                key = ModelName.parse(adapter.name).key
            except Invalid as error:
                fail(path, error.message, error.hint)
                continue
            if key in seen:
                fail(path, f"the {seen[key]} has the same name", "rename one of them")
            seen.setdefault(key, f"adapter {adapter.name} of {name}")


def _begins_with_model(route: str | Route, name: str) -> bool:
    """Return True for a route of a model of the same name: it adds fallbacks and rules to the model."""
    return isinstance(route, Route) and [(target.model, target.peer) for target in route.to] == [(name, None)]


def _moved(draft: PartialManifest, fail: AddProblem, warn: AddProblem) -> None:
    manifest = draft.manifest
    known = {"model": draft.names, "route": manifest.routes.keys(), "key": manifest.auth.keys.keys()}
    moves: dict[str, dict[str, str]] = {kind: {} for kind in known}
    for index, move in enumerate(manifest.moved):
        path = f"moved[{index}]"
        if move.from_ in known[move.kind]:
            fail(path, f"{move.from_} is still a {move.kind}", f"remove the entry, or rename the {move.kind}")
        if move.from_ in moves[move.kind]:
            fail(path, f"{move.from_} has two entries", "keep one of them")
        moves[move.kind].setdefault(move.from_, move.to)
        for part, name in (("from", move.from_), ("to", move.to)):
            if move.kind == "key":
                _key_name(name, f"{path}.{part}", fail)
            else:
                _name(name, f"{path}.{part}", fail)
    for index, move in enumerate(manifest.moved):
        end = _follow(move.from_, moves[move.kind])
        if end is None:
            fail(f"moved[{index}]", f"the renames of {move.from_} form a circle", "remove one of them")
        elif end not in known[move.kind]:
            other = next((f"it is a {kind}: add kind: {kind}" for kind, names in known.items() if end in names), "")
            hint = other or draft.suggest(end, known[move.kind])
            warn(f"moved[{index}]", f"there is no {move.kind} {end[:80]!r}", hint)


def _follow(name: str, moves: Mapping[str, str]) -> str | None:
    """Return the last new name; None for a circle."""
    seen = {name}
    while (name := moves.get(name, name)) in moves:
        if name in seen:
            return None
        seen.add(name)
    return name if name not in seen else None


def _key_name(name: str, path: str, fail: AddProblem) -> None:
    if not _KEY_NAME.fullmatch(name):
        fail(path, f"{name[:80]!r} is not a valid key name", "letters, digits, '.', '_' and '-'")


def _name(name: str, path: str, fail: AddProblem) -> None:
    try:
        ModelName.parse(name)
    except Invalid as error:
        fail(path, error.message, error.hint)


def _credentials(git: GitSync, fail: AddProblem) -> None:
    """Refuse what the protocol of the address does not use."""
    if git.url.startswith(("http://", "https://")):
        for name, value in (("deploy_key", git.deploy_key), ("known_hosts", git.known_hosts)):
            if value is not None:
                fail(f"sync.git.{name}", "is for SSH, and sync.git.url is not", "use token, or ssh://HOST/PATH.git")
    elif git.token is not None:
        fail("sync.git.token", "is for HTTPS, and sync.git.url is not", "use deploy_key, or https://HOST/PATH.git")


def _listeners(draft: PartialManifest, fail: AddProblem, warn: AddProblem) -> None:
    seen: set[str] = set()
    for index, text in enumerate(draft.manifest.server.listen):
        path, address = f"server.listen[{index}]", parse_address(text)
        if str(address) in seen and not (isinstance(address, TcpAddress) and address.port == 0):
            fail(path, f"{address} is listed twice", "keep one of them")
        seen.add(str(address))
        if not address.loopback and draft.has("auth") and not draft.manifest.auth.keys:
            fail(
                path,
                f"{address} is reachable from other machines, and auth.keys is empty",
                "add auth.keys, or listen on 127.0.0.1",
            )
    server = draft.manifest.server
    if server.tls is not None and not any(isinstance(parse_address(text), TcpAddress) for text in server.listen):
        warn("server.tls", "no effect: server.listen has unix sockets only", "")


def _keys(draft: PartialManifest, fail: AddProblem, warn: AddProblem) -> None:
    callable_names = sorted({*draft.names, *draft.manifest.routes})
    known = frozenset(callable_names)
    for name, key in draft.manifest.auth.keys.items():
        path = f"auth.keys.{name}"
        _key_name(name, path, fail)
        _secret(key.secret, f"{path}.secret", fail)
        if draft.has("mcp"):
            check_names(key.mcp or (), f"{path}.mcp", server_names(draft.manifest), draft.suggest, fail)
        for index, scope in enumerate(key.models):
            if any(c in scope for c in "*?["):
                if scope != "*" and not _matches_any(scope, callable_names):
                    warn(f"{path}.models[{index}]", f"{scope!r} matches no model or route", "")
            elif scope not in known:
                fail(
                    f"{path}.models[{index}]", f"there is no model {scope[:80]!r}", draft.suggest(scope, callable_names)
                )


def _matches_any(pattern: str, names: Sequence[str]) -> bool:
    """True if one of the sorted names matches the pattern; also if that would need too long a search."""
    prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    first = bisect.bisect_left(names, prefix)
    nearby = names[first : first + _MOST_COMPARED]
    found = [name for name in nearby if name.startswith(prefix)]
    return len(found) == _MOST_COMPARED or any(fnmatch.fnmatchcase(name, pattern) for name in found)


def _secret(secret: SecretRef, path: str, fail: AddProblem) -> None:
    if (secret.from_env is None) == (secret.from_file is None):
        fail(path, "expected one of from_env and from_file", "{from_env: NAME} or {from_file: PATH}")


def _webhooks(webhooks: tuple[Webhook, ...], fail: AddProblem) -> None:
    for index, hook in enumerate(webhooks):
        path = f"observability.webhooks[{index}]"
        if isinstance(hook.url, SecretRef):
            _secret(hook.url, f"{path}.url", fail)
        if hook.secret is not None:
            _secret(hook.secret, f"{path}.secret", fail)
        elif hook.form == "pagerduty":
            fail(path, "PagerDuty needs a routing key", "secret: {from_env: NAME}")


def _hardware(hardware: Hardware, fail: AddProblem) -> None:
    for index, host in enumerate(hardware.rpc):
        if host in hardware.rpc[:index]:
            fail(f"hardware.rpc[{index}]", f"{host} is listed twice", "keep one of them")
    for name, profile in hardware.profiles.items():
        path = f"hardware.profiles.{name}"
        _blocks(profile, path, fail)


def _blocks(part: object, path: str, fail: AddProblem) -> None:
    gpu, context = getattr(part, "gpu", None), getattr(part, "context", None)
    if gpu is not None and isinstance(gpu.layers, dict) and gpu.tensor_split:
        fail(f"{path}.gpu.tensor_split", "a map in gpu.layers contains the split", "keep one of them")
    if gpu is not None and gpu.tensor_split and not sum(gpu.tensor_split):
        fail(f"{path}.gpu.tensor_split", "at least one share must be more than 0", "")
    if gpu is not None and gpu.devices:
        _devices(gpu, f"{path}.gpu", fail)
    if context is None:
        return
    if context.flash_attention == "off" and context.kv.v not in ("f32", "f16", "bf16"):
        fail(
            f"{path}.context.kv.v",
            f"{context.kv.v} values need flash attention",
            "set context.flash_attention to auto or on, or kv.v to f16",
        )
    if context.size is not None and isinstance(context.pool, int) and context.pool < context.size:
        fail(f"{path}.context.pool", *pool_too_small(context.pool, context.size))
    if context.ubatch is not None and context.ubatch > context.batch:
        fail(f"{path}.context.ubatch", f"larger than context.batch, which is {context.batch}", "")


def pool_too_small(pool: int, size: int) -> tuple[str, str]:
    """Return the message and the hint for a pool that has no room for one request of this size, in tokens."""
    text = f"a pool of {pool} tokens has no room for one request, which may have {size}"
    return text, "a larger pool, or a smaller context.size"


def _devices(gpu: Gpu, path: str, fail: AddProblem) -> None:
    """Check the numbers of devices against the list of devices, which they count from 0."""
    count, hint = len(gpu.devices), "devices are counted from 0 in the order of gpu.devices"
    folded = [name.casefold() for name in gpu.devices]
    for index, name in enumerate(folded):
        if name in folded[:index]:
            fail(f"{path}.devices[{index}]", f"{gpu.devices[index]} is listed twice", "keep one of them")
    if any(_ADDRESS.fullmatch(name) for name in gpu.devices):
        return  # a host may have several devices
    if isinstance(gpu.layers, dict):
        for number in gpu.layers:
            if int(number) >= count:
                fail(f"{path}.layers.{number}", f"there is no device {number} in gpu.devices", hint)
    if gpu.main >= count:
        fail(f"{path}.main", f"there is no device {gpu.main} in gpu.devices", hint)
    if len(gpu.tensor_split) > count:
        fail(f"{path}.tensor_split", f"{len(gpu.tensor_split)} shares for {counted(count, 'device')}", hint)


def _model(model: Model, path: str, draft: PartialManifest, fail: AddProblem, warn: AddProblem) -> None:
    _blocks(model, path, fail)
    for index, dialect in enumerate(model.dialects or ()):
        if draft.has("server") and dialect not in draft.manifest.server.dialects:
            fail(f"{path}.dialects[{index}]", f"the server does not serve {dialect}", "see server.dialects")
    if draft.has("mcp"):
        check_use(model, path, draft.manifest.mcp, draft.suggest, fail)
    if isinstance(parse_source(model.from_), UrlRef) and model.digest is None:
        warn(f"{path}.from", "the file of a URL has no digest", "add digest: sha256:…")
    if model.draft is not None and model.draft.from_ not in ("auto", "none") and model.task != "chat":
        fail(f"{path}.draft.from", f"a model for {model.task} writes no text to guess", "remove draft")
    if (language := model.transcription.language) is not None:
        try:
            language_name(language)
        except Invalid as error:
            fail(f"{path}.transcription.language", error.message, error.hint)
    for name in model.template_arguments:
        # The template may read others; the server knows it, and refuses those that it does not read.
        if name not in TEMPLATE_ARGUMENTS and (hint := draft.suggest(name, TEMPLATE_ARGUMENTS)):
            fail(f"{path}.template_arguments.{name}", "is not an argument of chat templates", hint)
    if isinstance(model.context.pool, int) and not writes_text(model):
        fail(f"{path}.context.pool", f"a model for {model.task} keeps no conversations", "remove pool")
    if model.scale is not None and model.scale.max < model.scale.min:
        fail(f"{path}.scale.max", f"max is {model.scale.max} and min is {model.scale.min}", "raise max, or lower min")
    if model.residency.load == "when_room" and model.residency.ttl is not None:
        fail(f"{path}.residency.ttl", "a model that is loaded when there is room has no time to live", "remove ttl")
    if model.limits.rate_per_key is not None and draft.has("auth") and not draft.manifest.auth.keys:
        warn(f"{path}.limits.rate_per_key", "no effect without auth.keys", "limits.rate is for all clients together")
    embedding = model.embedding
    if embedding.default_prompt is not None and embedding.default_prompt not in embedding.prompts:
        fail(
            f"{path}.embedding.default_prompt",
            f"there is no prompt {embedding.default_prompt!r}",
            draft.suggest(embedding.default_prompt, embedding.prompts),
        )
    if model.parameters.num_keep is not None:
        warn(
            f"{path}.parameters.num_keep",
            "no effect: a prompt that is too long loses complete messages",
            "",
        )
    _adapters(model, f"{path}.adapters", fail, warn)


def _adapters(model: Model, path: str, fail: AddProblem, warn: AddProblem) -> None:
    """Check that the adapters of a model differ in source and name, and that exposed ones have a name to serve."""
    sources: set[str] = set()
    names: set[str] = set()
    for index, adapter in enumerate(model.adapters):
        if isinstance(parse_source(adapter.from_), BuiltinRef):
            fail(f"{path}[{index}].from", f"{adapter.from_} is a model, not an adapter", "")
        if adapter.from_ in sources:
            fail(f"{path}[{index}].from", "the adapter is listed twice", "remove one, or give it the sum of the scales")
        sources.add(adapter.from_)
        if adapter.name and adapter.name in names:
            fail(f"{path}[{index}].name", f"two adapters have the name {adapter.name!r}", "rename one of them")
        names.add(adapter.name or "")
        if isinstance(parse_source(adapter.from_), UrlRef) and adapter.digest is None:
            warn(f"{path}[{index}].from", "the file of a URL has no digest", "add digest: sha256:…")
        if adapter.expose and adapter.name is None:
            fail(f"{path}[{index}].expose", "an exposed adapter needs a name", "add name: NAME")
        if adapter.expose and model.task != "chat":
            fail(f"{path}[{index}].expose", f"a model with the task {model.task} has no adapters of their own name", "")
