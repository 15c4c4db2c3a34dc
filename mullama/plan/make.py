"""The plan: compares the desired, applied and observed state and decides on the steps.

For each model, in the order of the manifest:

1. not applied before                     add        (cause desired)
2. applied under another name (`moved`)   rename, together with its other changes
3. applied, with other fields             update, or replace if weights or files must be loaded again
4. applied, with equal fields             no step, or repair if the observed state differs (cause drift)
5. not in the manifest                    remove; with `prune.running: false` it serves on

Then one step for each changed block outside the models, and for each server whose tools are not those that are pinned.
The plan is empty if all three states agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from mullama.errors import masked
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.spec.readers import moves_of
from mullama.manifest.tree import revision
from mullama.plan.changes import compare_models, compare_rest, highest_cost, pinned_digest, set_fields, short_digest
from mullama.plan.drafting import draft_kind
from mullama.plan.fit import (
    MemoryLedger,
    Need,
    context_size,
    drafter_facts,
    known_need,
    layers_without_device,
    oversubscribed,
    pool_tokens,
    projector_memory,
    room_for_both,
)
from mullama.plan.groups import too_narrow
from mullama.plan.headers import header_warnings
from mullama.plan.observed import Applied, KnownFiles, LiveModel, Observed
from mullama.plan.projectors import projector_bytes, projector_of
from mullama.plan.steps import Action, Cause, Cost, FieldChange, Plan, Step, UnusableFile
from mullama.plan.tools import tool_steps
from mullama.struct import replace
from mullama.units import size

_HOST_DEVICE = re.compile(r"RPC[0-9]+$|.*:[0-9]+(/[0-9]+)?$", re.IGNORECASE)
_NO_SURGE = "does not fit twice: apply refuses it, because rollout.strategy is surge"
EMPTY = Manifest(mullama="v1")
_NOTHING = KnownFiles(source="")
_FAULTS_OF_FILES = ("TransferFailed", "NotFound")  # reasons of failed loads that end with the right files


def make_plan(
    desired: Manifest, observed: Observed, *, beside: Iterable[str] = (), keeps: Callable[[Step], bool] | None = None
) -> Plan:
    """Return the steps from the observed state to the desired one, without their places in the manifest.

    beside: the models of `desired` that commands added beside the manifest. keeps: returns False for a step that a
    plan of a part leaves out.
    """
    applied = observed.applied
    old = applied.manifest if applied else EMPTY
    steps = [
        *_shared_once(_model_steps(old, desired, observed), old, desired, observed),
        *_rest_steps(old, desired, observed),
        *tool_steps(old, desired, observed.tools),
        *_server_drift(observed),
        *_pruned(observed),
    ]
    steps = steps if keeps is None else [step for step in steps if keeps(step)]
    # Only a server knows the machine of the models: a plan that is made elsewhere does not compare with its own memory.
    crowd = oversubscribed(desired, observed.files, observed.machine) if observed.live is not None else None
    narrow = too_narrow(desired, observed.files, observed.machine) if observed.live is not None else ()
    without = layers_without_device(desired, observed.machine) if observed.live is not None else None
    # Without a server nothing is served that a change could remove or pause.
    protected = protections(steps, old.models) if observed.live is not None else ()
    refused = (*protected, *header_warnings(desired, observed.files))
    return Plan(
        base=applied.revision if applied else "",
        desired=revision(desired),
        generation=_number(applied, desired),
        steps=tuple(steps),
        warnings=(*(f"{text}: apply refuses it" for text in refused), *filter(None, (crowd, without)), *narrow),
        complete=all(s.bytes_download is not None for s in steps if s.action is not Action.REMOVE),
        beside=tuple(beside),
    )


def _shared_once(steps: Iterable[Step], old: Manifest, desired: Manifest, observed: Observed) -> Iterator[Step]:
    """Yield the steps with the memory that each adds or frees: what models share counts in the first step only."""
    ledger = MemoryLedger(old.models.values(), desired.models.values(), observed.files, observed.machine)
    for step in steps:
        if step.memory_before is None or step.memory_after is None:
            yield step
            continue
        before = old.models.get(step.renamed_from or step.subject)
        change = ledger.added(desired.models.get(step.subject)) - ledger.freed(before)
        if step.action is Action.REMOVE:
            yield replace(step, memory_before=-change)
        else:
            yield replace(step, memory_after=step.memory_before + change)


def protections(steps: Iterable[Step], served: Mapping[str, Model]) -> tuple[str, ...]:
    """Return a clause for each step that would remove or pause a served model with `protect: true`."""
    return tuple(
        f"{step.subject} is protected and would be {'removed' if step.action is Action.REMOVE else 'paused'}"
        for step in steps
        if step.kind == "model" and (step.pause or step.action is Action.REMOVE)
        if step.subject in served and served[step.subject].protect
    )


def _number(applied: Applied | None, desired: Manifest) -> int:
    """Return the number of the revision that an apply leaves: a new one, unless only the machine drifted."""
    if applied is None:
        return 1
    return applied.generation if applied.revision == revision(desired) else applied.generation + 1


def _model_steps(old: Manifest, desired: Manifest, observed: Observed) -> Iterator[Step]:
    moves = moves_of(desired.moved, "model").items()
    renamed = {to: name for name, to in moves if name in old.models and name not in desired.models}
    for name, model in desired.models.items():
        before = old.models.get(name) or old.models.get(renamed.get(name, ""))
        if before is None:
            step: Step | None = _added(name, model, observed)
        elif changes := (
            _effective(compare_models(before, model), before, model, observed)
            + _hosts(old, desired, model)
            + _pins(name, model, old, desired, observed)
        ):
            step = _changed(name, before, model, changes, observed)
        else:
            step = _drifted(name, model, observed)
        if name in renamed and name not in old.models:
            step = _renamed(name, renamed[name], step)
        if step is not None:
            yield step
    gone = {*desired.models, *renamed.values()}
    # A model that `prune.running: false` left serving is live and not applied.
    for name in dict.fromkeys((*old.models, *(observed.live or ()))):
        if name not in gone and desired.prune.running:
            yield _removed(name, old.models.get(name), observed)
        elif name not in gone and name in old.models:
            yield _kept_running(name)


def _effective(
    changes: tuple[FieldChange, ...], before: Model, after: Model, observed: Observed
) -> tuple[FieldChange, ...]:
    """Return the changes; another source of the same file costs nothing, and layers for guesses cost a load."""
    old, new = _files(before, observed), _files(after, observed)
    same = old.digest is not None and old.digest == new.digest
    layers = (draft_kind(before, old.facts) == "mtp") != (draft_kind(after, new.facts) == "mtp")

    def cost(change: FieldChange) -> Cost:
        if same and change.path in ("from", "digest"):
            return Cost.NONE
        return Cost.WEIGHTS if layers and change.path == "draft.from" and change.cost is Cost.CONTEXT else change.cost

    return tuple(replace(change, cost=cost(change)) for change in changes)


def _hosts(old: Manifest, desired: Manifest, model: Model) -> tuple[FieldChange, ...]:
    """Return the change of `hardware.rpc`, for a model whose weights are on other devices since.

    A model that names no device stays where it is when a host is added, and moves when one is removed.
    """
    before, after = old.hardware.rpc, desired.hardware.rpc
    named = any(_HOST_DEVICE.match(name) for name in model.gpu.devices)
    moves = named or (not model.gpu.devices and not set(before) <= set(after))
    if before == after or not moves or model.gpu.layers == 0:
        return ()
    return (FieldChange(path="hardware.rpc", before=list(before), after=list(after), cost=Cost.WEIGHTS),)


def _pins(
    name: str, model: Model, old: Manifest, desired: Manifest, observed: Observed
) -> tuple[FieldChange, ...]:  # fmt: skip
    """Return a change for each source of a model whose pin in the manifest stands for other files than before.

    A new pin is compared with the files that serve; where these are not known, they stay if the pin agrees with them.
    """
    live = observed.live.get(name) if observed.live is not None else None
    served = {live.digest, *live.files.values()} if live is not None and live.digest else None
    changes = []
    for source in dict.fromkeys(model.all_sources):
        before, after = pinned_digest(old, source), pinned_digest(desired, source)
        if after is None or after == before or (before is None and (served is None or after in served)):
            continue
        path, was = f"lock.sources.{masked(source)}", short_digest(before) if before else None
        changes.append(FieldChange(path=path, before=was, after=short_digest(after), cost=Cost.FILES))
    return tuple(changes)


def _files(model: Model, observed: Observed) -> KnownFiles:
    """Return the files of a model. They are stored if those of its draft model and its projector are, too."""
    sources = (*model.sources, *((model.projector_source,) if model.projector_source else ()))
    own, *others = (observed.files.get(source, _NOTHING) for source in sources)
    if not own.stored and own.size is not None and not model.projector_source:
        own = replace(own, size=own.size + projector_bytes(model, observed.files))
    if all(files.stored for files in others):
        return own
    missing = [files.size for files in (own, *others) if not files.stored]
    size = None if None in missing else sum(count for count in missing if count is not None)
    return replace(own, stored=False, size=size)


def _need(model: Model, observed: Observed) -> Need | None:
    """Return the memory of a model with its draft model; None if the header of its weights is not known."""
    files = _files(model, observed)
    beside = projector_memory(model, observed.files)
    return known_need(model, files.facts, observed.machine, drafter_facts(model, observed.files), files.used, beside)


def _adapters(model: Model, observed: Observed) -> list[KnownFiles]:
    return [files for adapter in model.adapters if (files := observed.files.get(adapter.from_))]


def _stored(model: Model, observed: Observed) -> bool:
    """Return True if nothing must be downloaded for a model."""
    return all(files.stored for files in (_files(model, observed), *_adapters(model, observed)))


def _download(model: Model, observed: Observed) -> int | None:
    """Return the bytes to download for a model, None if they are not known."""
    files = (_files(model, observed), *_adapters(model, observed))
    wanted = [known.size for known in files if not known.stored]
    return None if None in wanted else sum(size for size in wanted if size is not None)


def _unusable(model: Model, observed: Observed) -> tuple[UnusableFile, ...]:
    """Return the files of this machine that cannot be loaded, which no pull brings back."""
    named = dict(zip(("from", "draft.from"), model.sources, strict=False))
    named |= {"mmproj": model.projector_source} if model.projector_source else {}
    named |= {f"adapters[{index}].from": adapter.from_ for index, adapter in enumerate(model.adapters)}
    found = ((path, observed.files.get(source, _NOTHING)) for path, source in named.items())
    return tuple(replace(known.unusable, path=path) for path, known in found if known.unusable is not None)


def _reasons(unusable: Sequence[UnusableFile]) -> str:
    return "; ".join(file.reason for file in unusable)


def _added(name: str, model: Model, observed: Observed) -> Step:
    memory = _need(model, observed)
    stored = _stored(model, observed)
    unusable = _unusable(model, observed)
    when = f"load {model.residency.load.replace('_', ' ')}{_on_devices(memory)}"
    when += _in_pool(model, observed)
    return Step(
        subject=name,
        kind="model",
        action=Action.ADD,
        cause=Cause.DESIRED,
        cost=Cost.WEIGHTS if stored else Cost.FILES,
        detail=_reasons(unusable) if unusable else when if stored else f"pull, {when}",
        changes=set_fields(model),
        bytes_download=_download(model, observed),
        memory_before=0,
        memory_after=memory.total if memory else None,
        memory_worst_case=_worst_case(model, observed),
        unusable=unusable,
    )


def _changed(name: str, before: Model, after: Model, changes: tuple[FieldChange, ...], observed: Observed) -> Step:
    files = _files(after, observed)
    moved = _changed_too(name, before, after, observed)
    unusable = _unusable(after, observed)
    stored, download = _stored(after, observed), _download(after, observed)
    lacks = moved or (files.stored and not stored)  # an adapter that must be downloaded
    cost = max(highest_cost(changes), Cost.FILES if lacks else Cost.NONE, key=lambda cost: cost.rank)
    old_need = _need(before, observed)
    new_need = _need(after, observed)
    heavy = cost.rank >= Cost.WEIGHTS.rank
    loaded = _is_loaded(observed.live, name) and cost.rank >= Cost.CONTEXT.rank
    strategy, fit = after.rollout.strategy, _both_fit(old_need, new_need, heavy, observed)
    pause = loaded and (strategy == "recreate" or (strategy == "auto" and not fit))
    refusal = _NO_SURGE if loaded and strategy == "surge" and not fit else ""
    return Step(
        subject=name,
        kind="model",
        action=Action.REPLACE if heavy else Action.UPDATE,
        cause=Cause.DESIRED,
        cost=cost,
        changes=changes,
        detail=(refusal or _method(cost, pause=pause, fit=fit, pulls=download != 0))
        + (_on_devices(new_need) if heavy else "")
        + (_in_pool(after, observed) if cost.rank >= Cost.CONTEXT.rank else "")
        + _with_load(name, after, cost, observed)
        + (f"; {changed_on_disk(moved)}" if moved else "")
        + (f"; {_reasons(unusable)}" if unusable else ""),
        bytes_download=download if cost is Cost.FILES else 0,
        memory_before=old_need.total if old_need else None,
        memory_after=new_need.total if new_need else None,
        memory_worst_case=_worst_case(after, observed),
        pause=pause,
        refusal=refusal,
        unusable=unusable,
    )


def _on_devices(memory: Need | None) -> str:
    """Return ` on CUDA0 (5.1 GiB), RPC0 (12 GiB)`; nothing for a model in main memory."""
    parts = ((name, weights + context) for name, weights, context in memory.devices) if memory else ()
    text = ", ".join(f"{name} ({size(count)})" for name, count in parts)
    return f" on {text}" if text else ""


def _worst_case(model: Model, observed: Observed) -> int | None:
    """Return the memory of a model with room for all that its requests may need; None where it has that room."""
    files = _files(model, observed)
    if model.context.pool == "worst_case" or files.facts is None or _need(model, observed) is None:
        return None
    if not pool_tokens(model, files.facts, files.used):
        return None
    context = model.context.model_copy(update={"pool": "worst_case"})
    worst = _need(model.model_copy(update={"context": context}), observed)
    return worst.total if worst else None


def _in_pool(model: Model, observed: Observed) -> str:
    """Return `, pool of 8192 of 32768 tokens (352 MiB of 949 MiB)`; nothing for a context with the worst case."""
    worst, memory = _worst_case(model, observed), _need(model, observed)
    if worst is None or memory is None:
        return ""
    files = _files(model, observed)
    tokens = pool_tokens(model, files.facts, files.used)
    most = context_size(model, files.facts) * model.limits.parallel
    return f", pool of {tokens} of {most} tokens ({size(memory.total)} of {size(worst)})"


def _with_load(name: str, model: Model, cost: Cost, observed: Observed) -> str:
    """Return the addition for a change that needs no load of a model that must be in memory and is not."""
    absent = observed.live is not None and not _is_loaded(observed.live, name) and _should_be_loaded(model)
    return "; not in memory: load" if absent and cost.rank < Cost.CONTEXT.rank else ""


def _changed_too(name: str, before: Model, after: Model, observed: Observed) -> dict[str, str]:
    """Return the files that changed on disk of a model whose declared files are the same."""
    live = observed.live.get(name) if observed.live is not None else None
    same = before.all_sources == after.all_sources
    return changed_files(after, live, observed) if live is not None and same else {}


def _method(cost: Cost, *, pause: bool, pulls: bool = False, fit: bool = False) -> str:
    wait = "unload the old one first: pause" if fit else "does not fit twice: pause"
    match cost:
        case Cost.NONE:
            return "recorded"
        case Cost.LIVE:
            return "next request"
        case Cost.CONTEXT:
            return wait if pause else "new context, no pause"
        case Cost.WEIGHTS | Cost.FILES | Cost.PROCESS:
            load = wait if pause else "load next to the old one, no pause"
            return f"pull, {load}" if pulls and cost is Cost.FILES else load


def _is_loaded(live: Mapping[str, LiveModel] | None, name: str) -> bool:
    return live is not None and name in live and live[name].state in ("ready", "degraded", "loading")


def _both_fit(old: Need | None, new: Need | None, heavy: bool, observed: Observed) -> bool:
    """True if old and new fit into memory together, or if sizes are unknown: then the load itself decides."""
    if old is None or new is None or observed.machine is None:
        return True
    return room_for_both(new, heavy=heavy, machine=observed.machine)


def _drifted(name: str, model: Model, observed: Observed) -> Step | None:
    """Return the repair of a model whose observed state differs from the applied one, or None."""
    files = _files(model, observed)
    live = observed.live.get(name) if observed.live is not None else None
    if observed.applied is not None and (unusable := _unusable(model, observed)):
        detail, cost = f"{_reasons(unusable)}: restore it", Cost.FILES
    elif observed.applied is not None and not files.stored:
        broken = next(iter(live.changed), "") if live is not None else ""
        again = "is missing or damaged: fetch it again, or restore it"
        detail, cost = f"{broken} {again}" if broken else "files are gone: pull", Cost.FILES
    elif observed.live is None:
        return None
    elif live is None:
        detail, cost = "the server does not serve it yet: load", Cost.WEIGHTS
    elif lost := next((known.source for known in _adapters(model, observed) if not known.stored), ""):
        detail, cost = f"the file of the adapter {masked(lost)} is not here: pull", Cost.FILES
    elif changed := changed_files(model, live, observed):
        pinned = model.digest is not None and files.digest != model.digest
        rest = "its digest is pinned: restore it, or change `digest`" if pinned else "load it as it is now"
        detail, cost = f"{changed_on_disk(changed)}: {rest}", Cost.FILES
    elif files.stored and files.digest and live.digest and files.digest != live.digest:
        detail, cost = "its source has other weights since: load them", Cost.FILES
    elif other := _other_adapter(model, live, observed):
        detail, cost = other, Cost.FILES
    elif live.revision != revision(model):
        detail, cost = f"an older revision serves ({live.message or live.reason})", Cost.WEIGHTS
    elif live.state == "failed" and live.reason in _FAULTS_OF_FILES and model.digest in (None, files.digest):
        detail, cost = "its files are right again: load them", Cost.FILES
    elif live.state in ("failed", "degraded"):
        detail, cost = f"the last attempt failed ({live.message or live.reason}): load again", Cost.WEIGHTS
    elif live.state in ("absent", "idle") and _should_be_loaded(model):
        detail, cost = "unloaded since the apply: load", Cost.WEIGHTS
    else:
        return None
    return Step(
        subject=name, kind="model", action=Action.REPAIR, cause=Cause.DRIFT, cost=cost, detail=detail,
        bytes_download=_download(model, observed) if cost is Cost.FILES else 0,
        pause=_pauses(name, model, cost, observed),
    )  # fmt: skip


def _other_adapter(model: Model, live: LiveModel, observed: Observed) -> str:
    """Return a clause about an adapter that is not the file that serves; "" if all are."""
    for known in _adapters(model, observed):
        if live.digest and known.digest and known.digest not in live.files.values():
            return f"the adapter {masked(known.source)} has other bytes since: load it"
    return ""


def _pauses(name: str, model: Model, cost: Cost, observed: Observed) -> bool:
    """Return True if the repair of a loaded model must close it first."""
    again = _need(model, observed)
    heavy = cost.rank >= Cost.WEIGHTS.rank
    strategy, loaded = model.rollout.strategy, heavy and _is_loaded(observed.live, name)
    short = strategy == "auto" and not _both_fit(again, again, heavy, observed)
    return loaded and (strategy == "recreate" or short)


def changed_files(model: Model, live: LiveModel, observed: Observed) -> dict[str, str]:
    """Return the files of a model that have other bytes than when the server described them."""
    sources = model.all_sources
    now = {path: files.digest for source in sources if (files := observed.files.get(source)) for path in files.paths}
    if (projector := projector_of(model, observed.files)) is not None:
        now[projector.path] = projector.digest
    other = (path for path in live.changed if not now.get(path) or now[path] != live.files.get(path))
    return {path: live.changed[path] for path in other}


def changed_on_disk(states: Mapping[str, str]) -> str:
    """Return a clause about files that changed on disk or do not exist. states: see `LiveModel.changed`."""
    gone = [path for path, state in states.items() if not state]
    changed = [path for path, state in states.items() if state]
    clauses = (
        f"{_first_of(gone)} {'do' if len(gone) > 1 else 'does'} not exist" if gone else "",
        f"{_first_of(changed)} changed on disk" if changed else "",
    )
    return ", and ".join(filter(None, clauses))


def _first_of(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0]


def _should_be_loaded(model: Model) -> bool:
    ttl = model.residency.ttl
    return model.residency.load == "at_start" and (ttl is None or ttl == float("inf"))


def _renamed(name: str, old_name: str, step: Step | None) -> Step:
    """Return the step with the old name; without other changes, a rename that keeps the weights loaded."""
    if step is not None and step.cause is Cause.DESIRED:
        return replace(step, renamed_from=old_name)
    return Step(
        subject=name, kind="model", action=Action.RENAME, cause=Cause.DESIRED, cost=Cost.LIVE,
        detail=f"was {old_name}, stays loaded", renamed_from=old_name,
    )  # fmt: skip


def _removed(name: str, model: Model | None, observed: Observed) -> Step:
    memory = _need(model, observed) if model else None
    return Step(
        subject=name,
        kind="model",
        action=Action.REMOVE,
        cause=Cause.DESIRED,
        cost=Cost.WEIGHTS,
        detail="not in the manifest: unload, files kept",
        memory_before=memory.total if memory else None,
        memory_after=0,
        destructive=True,
    )


def _kept_running(name: str) -> Step:
    """With `prune.running: false`, the server keeps the model until it stops."""
    return Step(
        subject=name, kind="model", action=Action.UPDATE, cause=Cause.DESIRED, cost=Cost.NONE,
        detail="not in the manifest: keeps serving, because prune.running is false",
    )  # fmt: skip


def _rest_steps(old: Manifest, desired: Manifest, observed: Observed) -> Iterator[Step]:
    if observed.applied is None:
        return
    for block, changes in compare_rest(old, desired).items():
        cost = highest_cost(changes)
        yield Step(
            subject=block, kind="block", action=Action.UPDATE, cause=Cause.DESIRED, cost=cost, changes=changes,
            detail="new listeners; unchanged listeners stay open" if cost is Cost.PROCESS else _method(
                cost, pause=False),
        )  # fmt: skip


def _pruned(observed: Observed) -> Iterator[Step]:
    """Yield the deletion of unused files, if `prune.files` asks for it."""
    if count := len(observed.unneeded):
        total = size(sum(length for _, length in observed.unneeded))
        yield Step(
            subject="store", kind="files", action=Action.REMOVE, cause=Cause.DESIRED, cost=Cost.NONE, destructive=True,
            detail=f"delete {count} file{'' if count == 1 else 's'} ({total}) that nothing refers to",
        )  # fmt: skip


def _server_drift(observed: Observed) -> Iterator[Step]:
    """Yield the start of the server, if models are applied and no server is running."""
    if observed.live is None and observed.applied is not None and observed.applied.manifest.models:
        yield Step(
            subject="server", kind="server", action=Action.REPAIR, cause=Cause.DRIFT, cost=Cost.PROCESS,
            detail="not running: start it and load its models",
        )  # fmt: skip
