"""Compares a plan with a policy."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping

from mullama.manifest.spec import Manifest, Policy
from mullama.names import BuiltinRef, PathRef, parse_source
from mullama.plan.fit import MemoryLedger, stays
from mullama.plan.observed import KnownFiles
from mullama.plan.steps import Action, Plan, Step
from mullama.struct import Struct
from mullama.units import counted, size


class Violation(Struct, frozen=True, kw_only=True):
    """One rule of a policy that a plan breaks."""

    rule: str
    """The field of the policy."""
    subject: str
    """The model, "" for a rule of the whole plan."""
    message: str


def rules(policy: Policy) -> tuple[str, ...]:
    """Return the names of the rules that the policy has."""
    chosen = policy.model_fields_set - {"policy"}
    return tuple(name for name in Policy.model_fields if name in chosen and getattr(policy, name) is not False)


def violations(
    policy: Policy,
    plan: Plan,
    desired: Manifest,
    files: Mapping[str, KnownFiles],
    pinned: Iterable[str],
    folder: str | None = None,
) -> tuple[Violation, ...]:
    """Return the rules that the plan, and the manifest after it, break; in the order of the rules.

    files: known files by source. pinned: the sources that the lock file pins. folder: that of the manifest; a pattern
    `./…` is for files in it. An unknown size breaks a limit, because a limit that cannot be checked is not kept.
    """
    return (
        *(_kept(policy.keep, plan)),
        *(_uninterrupted(policy.uninterrupted, plan)),
        *(_sources(policy.sources, desired, folder)),
        *(_pinned(desired, set(pinned)) if policy.pinned else ()),
        *(_download(policy.max_download, plan) if policy.max_download is not None else ()),
        *(_memory(policy.max_memory, desired, files) if policy.max_memory is not None else ()),
    )


def _kept(patterns: tuple[str, ...], plan: Plan) -> Iterator[Violation]:
    for step in _of_models(plan):
        name = step.renamed_from or step.subject
        if step.action in (Action.REMOVE, Action.RENAME) and _among(name, patterns):
            act = "removed" if step.action is Action.REMOVE else f"renamed to {step.subject}"
            yield Violation(rule="keep", subject=name, message=f"{name} is {act}")


def _uninterrupted(patterns: tuple[str, ...], plan: Plan) -> Iterator[Violation]:
    for step in _of_models(plan):
        if step.pause and _among(step.subject, patterns):
            text = f"requests to {step.subject} wait: {step.detail}"
            yield Violation(rule="uninterrupted", subject=step.subject, message=text)


def _sources(patterns: tuple[str, ...] | None, desired: Manifest, folder: str | None) -> Iterator[Violation]:
    if patterns is None:
        return
    for name, model in desired.models.items():
        for source in model.all_sources:
            inside = folder is not None and source.startswith(f"{folder}/")
            spellings = (source, f"./{source.removeprefix(f'{folder}/')}") if inside else (source,)
            if not any(_among(spelling, patterns) for spelling in spellings):
                yield Violation(rule="sources", subject=name, message=f"{source} is not an allowed source")


def _pinned(desired: Manifest, pinned: set[str]) -> Iterator[Violation]:
    for name, model in desired.models.items():
        own = {model.from_} if model.digest else set()
        own |= {adapter.from_ for adapter in model.adapters if adapter.digest}
        for source in model.all_sources:
            if source not in pinned | own and not isinstance(parse_source(source), BuiltinRef):
                local = isinstance(parse_source(source), PathRef)
                remedy = "declare its `digest`" if local else "mullama lock writes it"
                text = f"{source} has no digest: {remedy}"
                yield Violation(rule="pinned", subject=name, message=text)


def _download(most: int, plan: Plan) -> Iterator[Violation]:
    known = sum(step.bytes_download or 0 for step in plan.steps)
    unknown = [step.subject for step in plan.steps if step.bytes_download is None]
    if known > most:
        text = f"{size(known, digits=2)} to download, and {size(most, digits=2)} are allowed"
        yield Violation(rule="max_download", subject="", message=text)
    for name in unknown:
        text = f"the download of {name} has an unknown size: mullama lock writes it"
        yield Violation(rule="max_download", subject=name, message=text)


def _memory(most: int, desired: Manifest, files: Mapping[str, KnownFiles]) -> Iterator[Violation]:
    loaded = {name: model for name, model in desired.models.items() if stays(model)}
    for name, model in loaded.items():
        known = files.get(model.from_)
        if known is None or known.facts is None:
            text = f"the memory of {name} is not known: mullama lock writes it"
            yield Violation(rule="max_memory", subject=name, message=text)
    ledger = MemoryLedger((), loaded.values(), files, None)
    total = sum(map(ledger.added, loaded.values()))
    if total > most:
        stay, need = ("stays", "needs") if len(loaded) == 1 else ("stay", "need")
        models = f"{counted(len(loaded), 'model')} that {stay} loaded {need}"
        text = f"{models} {size(total, digits=2)}, and {size(most, digits=2)} are allowed"
        yield Violation(rule="max_memory", subject="", message=text)


def _of_models(plan: Plan) -> Iterator[Step]:
    return (step for step in plan.steps if step.kind == "model")


def _among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
