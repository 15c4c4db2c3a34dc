"""The cost of a change of each manifest field, and the comparison of two manifests.

`diff`, the reference page and the JSON Schema use this table; a test fails for a field without a cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mullama.errors import masked, masked_tree
from mullama.manifest.interpolate import SECRETS
from mullama.manifest.nodes import longest_prefix, matches
from mullama.manifest.spec import Block, Key, Manifest, ManifestLock, Model
from mullama.manifest.spec.readers import DRAFT_WORDS, moves_of
from mullama.manifest.tree import block_to_tree
from mullama.names import JSONValue
from mullama.plan.steps import Cost, FieldChange
from mullama.weights.stored import set_digest

T = TypeVar("T")

# The longest matching prefix decides. `*` is any key of a map; a list is compared as one value.
COSTS: Mapping[str, Cost] = {
    "mullama": Cost.NONE,
    "metadata": Cost.NONE,
    "server.listen": Cost.PROCESS,
    "server.tls": Cost.PROCESS,
    "server.dialects": Cost.LIVE,
    "server.cors": Cost.LIVE,
    "server.allowed_hosts": Cost.LIVE,
    "server.limits": Cost.LIVE,
    "server.fetch_media": Cost.LIVE,
    "server.stored": Cost.LIVE,
    "server.ui": Cost.LIVE,
    "server.mcp": Cost.LIVE,
    "server.resumable": Cost.LIVE,
    "auth": Cost.LIVE,
    "sources": Cost.NONE,
    "hardware.budget": Cost.LIVE,
    "hardware.rpc": Cost.LIVE,
    "hardware.profiles": Cost.NONE,
    "groups": Cost.LIVE,
    "peers": Cost.LIVE,
    "routes": Cost.LIVE,
    "mcp": Cost.LIVE,
    "search": Cost.LIVE,
    "moved": Cost.NONE,
    "prune": Cost.NONE,
    "sync": Cost.LIVE,
    "fleet": Cost.LIVE,
    "fleet.placement": Cost.NONE,
    "fleet.rollout": Cost.NONE,
    # A model whose files are other ones has a step of its own.
    "lock": Cost.NONE,
    "clients": Cost.NONE,
    "observability": Cost.LIVE,
    "models.*.description": Cost.NONE,
    "models.*.from": Cost.FILES,
    "models.*.digest": Cost.FILES,
    "models.*.mmproj": Cost.FILES,
    "models.*.draft": Cost.CONTEXT,
    "models.*.gpu": Cost.WEIGHTS,
    "models.*.memory": Cost.WEIGHTS,
    "models.*.context": Cost.CONTEXT,
    "models.*.context.threads": Cost.LIVE,
    "models.*.adapters": Cost.CONTEXT,
    "models.*.adapters.digest": Cost.FILES,
    "models.*.adapters.name": Cost.LIVE,
    "models.*.adapters.scale": Cost.LIVE,
    "models.*.adapters.expose": Cost.LIVE,
    "models.*.task": Cost.CONTEXT,
    "models.*.embedding": Cost.LIVE,
    "models.*.transcription": Cost.LIVE,
    "models.*.limits": Cost.LIVE,
    # The KV cache has cells for a fixed number of requests: docs/decisions/0011.
    "models.*.limits.parallel": Cost.CONTEXT,
    "models.*.system": Cost.LIVE,
    "models.*.template": Cost.LIVE,
    "models.*.template_arguments": Cost.LIVE,
    "models.*.thinking": Cost.LIVE,
    "models.*.tools": Cost.LIVE,
    "models.*.mcp": Cost.LIVE,
    "models.*.search": Cost.LIVE,
    "models.*.tool_turns": Cost.LIVE,
    "models.*.approve": Cost.LIVE,
    "models.*.messages": Cost.LIVE,
    "models.*.parameters": Cost.LIVE,
    "models.*.force": Cost.LIVE,
    "models.*.strip": Cost.LIVE,
    "models.*.license": Cost.LIVE,
    "models.*.dialects": Cost.LIVE,
    "models.*.residency": Cost.LIVE,
    "models.*.requires": Cost.LIVE,
    "models.*.probe": Cost.NONE,
    "models.*.rollout": Cost.NONE,
    "models.*.scale": Cost.LIVE,
    "models.*.protect": Cost.NONE,
    # Placement moves the model: another host fetches and loads it.
    "models.*.hosts": Cost.FILES,
    "models.*.replicas": Cost.FILES,
}


_NOT_COMPARED = ("models", "mullama")  # the models have `compare_models`


def cost_of(path: str) -> Cost:
    """Return the cost of a field by its dotted path, with `*` for model names; raise KeyError for an unlisted field."""
    if (cost := longest_prefix(path, COSTS)) is None:
        raise KeyError(path)
    return cost


def compare_models(old: Model, new: Model) -> tuple[FieldChange, ...]:
    """Return each field that differs, with its cost; empty exactly if the models are equal."""
    if old == new:  # true of most models of most plans
        return ()
    before, after = _model_leaves(old), _model_leaves(new)
    return tuple(_changes(before, after, "models.*."))


def changed_blocks(old: Manifest, new: Manifest) -> set[str]:
    """Return the top-level blocks outside of the models that differ: the keys of `compare_rest`, without its fields."""
    return {
        block
        for block in Manifest.model_fields
        if block not in _NOT_COMPARED and getattr(old, block) != getattr(new, block)
    }


def compare_rest(old: Manifest, new: Manifest) -> dict[str, tuple[FieldChange, ...]]:
    """Return the changed fields outside of the models, by top-level block (`server`, `auth`, `routes`, …)."""
    old, renames = _renamed(old, new)
    before, after = block_to_tree(old), block_to_tree(new)
    given = _given(old).keys() | _given(new).keys()
    found: dict[str, tuple[FieldChange, ...]] = {}
    for block in Manifest.model_fields:
        if block in _NOT_COMPARED:
            continue
        one, other = (dict(leaves_of(tree[block], block)) if block in tree else {} for tree in (before, after))
        changes = tuple(_changes(one, other, ""))
        # A new or removed entry shows the fields that are set in it, without those that have their default.
        shown = tuple(c for c in changes if (c.path in one and c.path in other) or c.path in given)
        if changes:
            found[block] = shown or changes
    if "auth" in found:
        found["auth"] = _with_keys(found["auth"], old, new)
    if "lock" in found:
        found["lock"] = _pins(old.lock, new.lock)
    for rename in renames:
        block = rename.path.partition(".")[0]
        found[block] = (rename, *found.get(block, ()))
    return {block: found[block] for block in Manifest.model_fields if block in found}


def _renamed(old: Manifest, new: Manifest) -> tuple[Manifest, list[FieldChange]]:
    """Return the old manifest with the routes and keys that `moved` renames under their new names, and the renames."""
    routes, route_moves = _with_new_names(old.routes, new.routes, moves_of(new.moved, "route"))
    keys, key_moves = _with_new_names(old.auth.keys, new.auth.keys, moves_of(new.moved, "key"))
    auth = old.auth.model_copy(update={"keys": keys})
    renames = [
        FieldChange(path=path, cost=cost_of(path), renamed_from=before)
        for block, moves in (("routes", route_moves), ("auth.keys", key_moves))
        for before, name in moves.items()
        for path in (f"{block}.{name}",)
    ]
    return old.model_copy(update={"routes": routes, "auth": auth}) if renames else old, renames


def _with_new_names(
    old: Mapping[str, T], new: Mapping[str, T], moves: Mapping[str, str]
) -> tuple[dict[str, T], dict[str, str]]:
    """Return the old entries under their new names, and the moves that take effect."""
    done = {name: to for name, to in moves.items() if name in old and name not in new and to in new and to not in old}
    return {done.get(name, name): entry for name, entry in old.items()}, done


def _with_keys(changes: tuple[FieldChange, ...], old: Manifest, new: Manifest) -> tuple[FieldChange, ...]:
    """Return the changes with one for each key that is added or removed: its permissions instead of its fields."""
    before, after = old.auth.keys, new.auth.keys
    kept = list(changes)
    for name in sorted(before.keys() ^ after.keys()):
        path = f"auth.keys.{name}"
        essential = tuple(f"{path}.{field}" for field in ("secret", "roles", "models"))
        kept = [c for c in kept if longest_prefix(c.path, dict.fromkeys(essential, True)) is None]
        kept.append(
            FieldChange(path=path, before=_rights(before, name), after=_rights(after, name), cost=cost_of(path))
        )
    return tuple(sorted(kept, key=lambda change: change.path))


def _rights(keys: Mapping[str, Key], name: str) -> JSONValue:
    key = keys.get(name)
    return None if key is None else {"roles": list(key.roles), "models": list(key.models)}


def _pins(old: ManifestLock, new: ManifestLock) -> tuple[FieldChange, ...]:
    """Return one change for each source and each server of tools whose pins differ: the beginning of its digest."""
    one, other = _digests(old), _digests(new)
    return tuple(
        FieldChange(path=masked(path), before=one.get(path), after=other.get(path), cost=cost_of("lock"))
        for path in sorted({*one, *other})
        if one.get(path) != other.get(path)
    )


def pinned_digest(manifest: Manifest, source: str) -> str | None:
    """Return the digest of the files that a manifest pins for a source; None without a pin."""
    pin = manifest.lock.sources.get(source)
    if pin is None:
        return None
    return set_digest([file.digest for file in pin.files if file.role == "weights"] or [pin.files[0].digest])


def _digests(lock: ManifestLock) -> dict[str, str]:
    pins = {f"lock.sources.{source}": [file.digest for file in pin.files] for source, pin in lock.sources.items()}
    pins |= {f"lock.tools.{server}": sorted(tools.values()) for server, tools in lock.tools.items()}
    return {path: short_digest(set_digest(digests)) for path, digests in pins.items()}


def short_digest(digest: str) -> str:
    """Return the beginning of a digest, for people."""
    return digest.removeprefix("sha256:")[:12]


def set_fields(model: Model) -> tuple[FieldChange, ...]:
    """Return the fields of a new model that differ from their defaults, the source first."""
    leaves = _given(model)
    adapters = leaves.pop("adapters", None)
    source = masked_tree(leaves.pop("from"))
    if isinstance(adapters, list):
        leaves["adapters"] = [adapter["from"] for adapter in adapters]
    given = _changes({}, leaves, "models.*.")
    return (FieldChange(path="from", before=None, after=source, cost=Cost.FILES), *given)


def _given(block: Block) -> dict[str, Any]:
    """Return (dotted path, value) of each value that differs from its default."""
    tree = block.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return dict(leaves_of(tree, ""))


def highest_cost(changes: Sequence[FieldChange]) -> Cost:
    """Return the highest cost of the changes; NONE for no changes."""
    return max((change.cost for change in changes), key=lambda cost: cost.rank, default=Cost.NONE)


def _changes(before: Mapping[str, JSONValue], after: Mapping[str, JSONValue], prefix: str) -> Iterator[FieldChange]:
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            sensitive = matches((prefix + path).split("."), SECRETS)
            yield FieldChange(
                path=path,
                before=None if sensitive else masked_tree(before.get(path)),
                after=None if sensitive else masked_tree(after.get(path)),
                cost=_cost_of_change(prefix + path, before.get(path), after.get(path)),
                sensitive=sensitive,
            )


def _cost_of_change(path: str, before: JSONValue, after: JSONValue) -> Cost:
    """Return the cost of a field, which for `draft.from` is that of files if it names a draft model."""
    values = (before, after) if path == "models.*.draft.from" else ()
    return Cost.FILES if any(value not in (None, *DRAFT_WORDS) for value in values) else cost_of(path)


def _model_leaves(model: Model) -> dict[str, JSONValue]:
    tree = block_to_tree(model)
    adapters = tree.pop("adapters")
    leaves = dict(leaves_of(tree, ""))
    leaves["adapters"] = [adapter["from"] for adapter in adapters] or None
    for field in ("digest", "name", "scale", "expose"):
        leaves[f"adapters.{field}"] = [adapter.get(field) for adapter in adapters] or None
    return leaves


def leaves_of(tree: Any, path: str) -> Iterator[tuple[str, JSONValue]]:
    """Yield (dotted path, value) of each value that is not a map."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves_of(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree
