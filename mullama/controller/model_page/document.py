"""The document of one model, and the log of its worker, as an administrator or a page reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mullama.controller.current import Current
from mullama.controller.model_page.stored_files import file_rows
from mullama.engines.base import EngineStats
from mullama.errors import MullamaError, NotFound, masked
from mullama.manifest.load import LoadedManifest, load
from mullama.manifest.provenance import origins
from mullama.names import JSONValue
from mullama.plan.model_values import ModelValue, model_values
from mullama.reconcile.includes import PinnedIncludes
from mullama.reconcile.pins import pins_of
from mullama.runtime.pool import Pool
from mullama.runtime.serving.prompt_settings import capabilities, chosen_template, effective_defaults, thinking_levels
from mullama.runtime.snapshot import Deployment
from mullama.runtime.worker.parent import WorkerClient
from mullama.struct import asdict
from mullama.weights.stored import LockEntry

_PATIENCE = 1.0
"""Seconds to wait for the numbers of a worker that computes; then those of the last look are shown."""
_TEMPLATES = {"manifest": "manifest", "gguf": "weights", "source": "registry", "none": "none"}


class ModelDocuments:
    """Describes models. Nothing is kept: every document is made when it is asked for."""

    def __init__(self, pool: Pool, env: Mapping[str, str]) -> None:
        self._pool, self._env = pool, env

    async def describe(self, row: dict[str, Any], current: Current, *, paths: bool) -> dict[str, Any]:
        """Return the document of a model. row: the model in the status. paths: with the places of files."""
        deployment = current.snapshot.deployments[row["name"]]
        values, problem = await asyncio.to_thread(self._values, deployment, current)
        lock = await asyncio.to_thread(_lock, current)
        worker = self._pool.worker(deployment.unit)
        stats = await self._stats(worker)
        return {
            "format": "mullama.model/1",
            "model": row,
            "aliases": [n for n, t in current.snapshot.aliases.items() if t == deployment.name],
            "capabilities": list(capabilities(deployment.settings, deployment.files.facts)),
            "values": [value.tree() for value in values],
            "values_problem": problem,
            "from_weights": _from_weights(deployment),
            "template": _template(deployment),
            "files": file_rows(deployment, lock, paths=paths),
            "contexts": self._contexts(deployment, current, stats),
            "worker": None if worker is None else _worker(worker, stats),
        }

    async def log(self, deployment: Deployment) -> dict[str, Any]:
        """Return the last lines of the engine's log and of the output of its process.

        Raises `NotFound` for a model without a worker.
        """
        load = self._pool.load(deployment.unit)
        worker = self._pool.worker(deployment.unit) or (load.worker if load else None)
        if worker is None:
            failure = self._pool.failure(deployment.name)
            raise NotFound(
                f"{deployment.name} has no worker now",
                hint=f"its last one: {failure.message}" if failure else "a worker begins with a load of the model",
                name=deployment.name,
            )
        lines = await _within(worker.log()) or ()
        return {
            "pid": worker.pid,
            "lines": [masked(line) for line in lines],
            "output": masked(worker.output),
        }

    def _values(self, deployment: Deployment, current: Current) -> tuple[tuple[ModelValue, ...], str]:
        """Return the values of a model, and why their places are not known, "" if they are. Reads the manifest."""
        if deployment.name in current.overlay:
            return model_values(deployment.model, None, command=True), ""
        loaded, problem = self._text(current)
        text = loaded.manifest.models.get(deployment.name) if loaded else None
        if loaded is None or loaded.written is None or text is None:
            return model_values(deployment.model, None), problem or "the file does not declare the model now"
        changed = "the file has other values than the model now" if text != deployment.model else ""
        return model_values(deployment.model, origins(loaded.written, deployment.name), text), changed

    def _text(self, current: Current) -> tuple[LoadedManifest | None, str]:
        path = current.origin.file
        if path is None:
            return None, "the manifest was applied without a file"
        try:
            remote = PinnedIncludes(self._env, offline=True)
            return load(path, profiles=current.origin.profiles, env=self._env, remote=remote), ""
        except MullamaError as error:
            return None, str(error)

    async def _stats(self, worker: WorkerClient | None) -> EngineStats | None:
        """Return the numbers of the engine now; those of the last look where it does not answer in time."""
        if worker is None:
            return None
        return await _within(worker.stats()) or worker.seen

    def _contexts(self, deployment: Deployment, current: Current, stats: EngineStats | None) -> list[dict[str, Any]]:
        """Return the contexts over the weights of a model, its own first."""
        shared: dict[Any, list[Deployment]] = {deployment.unit: []}
        for other in current.snapshot.available:
            if other.unit.weights == deployment.unit.weights:
                shared.setdefault(other.unit, []).append(other)
        caches = {cache.context: cache for cache in stats.caches} if stats else {}
        kept = {one.context: one for one in stats.checkpoints} if stats else {}
        found = []
        for unit, users in shared.items():
            facts, cache, checkpoints = self._pool.context_facts(unit), caches.get(unit.context), kept.get(unit.context)
            options = (users[0] if users else deployment).options
            found.append(
                {
                    "models": [user.name for user in users],
                    "state": self._pool.phase(unit).value,
                    "size": facts.size if facts else options.size,
                    "parallel": facts.parallel if facts else options.parallel,
                    "pool": facts.pool if facts else 0,
                    "cache_bytes": facts.kv_bytes if facts else 0,
                    "compute_bytes": facts.compute_bytes if facts else 0,
                    "opened_in": facts.seconds if facts else None,
                    "prefix_tokens": facts.prefix_tokens if facts else 0,
                    "prefix_restored": facts.prefix_restored if facts else False,
                    "cells": cache.cells if cache else 0,
                    "used": cache.used if cache else 0,
                    "sequences": [asdict(sequence) for sequence in cache.sequences] if cache else [],
                    "checkpoints": asdict(checkpoints) if checkpoints else None,
                }
            )
        return found


def _from_weights(deployment: Deployment) -> dict[str, JSONValue]:
    """Return the values that the files give, by the names of parameters, where the manifest states none."""
    effective, stated = effective_defaults(deployment.model, deployment.files), deployment.model.parameters
    found: dict[str, JSONValue] = {
        name: value for name, value in effective.parameters.items() if getattr(stated, name, None) is None
    }
    if effective.system and deployment.model.system is None:
        found["system"] = effective.system
    return found


def _template(deployment: Deployment) -> dict[str, Any]:
    text, syntax, source = chosen_template(deployment.model, deployment.files)
    settings = deployment.settings
    return {
        "source": _TEMPLATES[source],
        "syntax": syntax,
        "text": text,
        "tools": settings.template.traits.tools,
        "thinking": list(thinking_levels(settings)),
        "system": effective_defaults(deployment.model, deployment.files).system,
    }


def _worker(worker: WorkerClient, stats: EngineStats | None) -> dict[str, Any]:
    counts = stats or EngineStats()
    return {
        "pid": worker.pid,
        "engine": worker.facts.name,
        "version": worker.facts.version,
        "weights_bytes": worker.facts.weights_bytes,
        "remark": worker.remark,
        "decodes": counts.steps,
        "decode_seconds": counts.decode_seconds,
        "prompt_tokens": counts.prompt_tokens,
        "cached_tokens": counts.cached_tokens,
        "completion_tokens": counts.completion_tokens,
    }


def _lock(current: Current) -> Mapping[str, LockEntry]:
    """Return the pins of the applied manifest; none where they cannot be read, which `apply` reports."""
    with suppress(MullamaError, OSError):
        return pins_of(current.manifest, current.origin.file)
    return {}


async def _within(question: Any) -> Any:
    """Return the answer of a worker; None for one that does not answer in time or has ended."""
    with suppress(TimeoutError, MullamaError):
        async with asyncio.timeout(_PATIENCE):
            return await question
    return None
