"""The operator's view of a running server: status, plan, apply, history and metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from mullama.controller.event_log import EventLog
from mullama.controller.fleet.lease_book import LeaseBook
from mullama.controller.fleet.look import FleetLook
from mullama.controller.fleet.rollout_book import RolloutBook
from mullama.controller.git.follower import GitFollower
from mullama.controller.model_page.document import ModelDocuments
from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, preview_tree
from mullama.controller.status_report import StatusReport, origin_tree
from mullama.controller.telemetry import key_report
from mullama.controller.telemetry.live_feed import LiveFeed
from mullama.controller.telemetry.metrics_report import MetricsReport
from mullama.controller.telemetry.metrics_sampler import MetricsSampler
from mullama.controller.watch.editor import ManifestEditor
from mullama.errors import NotFound
from mullama.manifest.tree import block_to_tree, parse_resolved
from mullama.plan.quant_advice import Profile
from mullama.plan.steps import to_tree
from mullama.reconcile.files import Files
from mullama.runtime.base import UNDO, ApplyOptions, MetricsQuery, Origin, Reload, TextEdit
from mullama.runtime.metrics import Metrics
from mullama.runtime.peers.book import PeerBook
from mullama.runtime.pool import Pool
from mullama.runtime.rates.book import RateBook
from mullama.runtime.serving.captures import CaptureLog
from mullama.runtime.serving.usage_log import UsageLog
from mullama.sources.settings import requester
from mullama.store.usage import UsageQuery
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.reconcile.hub_models import HubBrowser
    from mullama.runtime.metrics_text import Family


class LocalOperator:
    """Implements `runtime.base.Operator`. Builds the changes of requests and reads the current state as one value.

    hub: returns the way to the hub, whose libraries take long to import. reload: reads the watched file again.
    stop: begins an orderly end.
    """

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        files: Files,
        pool: Pool,
        event_log: EventLog,
        metrics: Metrics,
        rates: RateBook,
        usage: UsageLog,
        captures: CaptureLog,
        sampler: MetricsSampler,
        peers: PeerBook,
        git: GitFollower,
        editor: ManifestEditor,
        documents: ModelDocuments,
        hub: Callable[[], HubBrowser],
        reload: Callable[[str], Awaitable[Reload]],
        stop: Callable[[], None],
    ) -> None:
        self._reconciler, self._files, self._event_log, self._rates = reconciler, files, event_log, rates
        self._usage, self._captures, self._git, self._editor = usage, captures, git, editor
        self._sampler, self._documents, self._hub = sampler, documents, hub
        self._reload, self._stop = reload, stop
        self._report = StatusReport(
            state=reconciler.state, status=reconciler.status, certificates=reconciler.certificates,
            served_files=reconciler.served_files, tools=reconciler.tools, pool=pool, files=files, metrics=metrics,
            rates=rates, peers=peers, git=git, rollouts=reconciler.rollouts,
        )  # fmt: skip
        self._metrics = MetricsReport(
            state=reconciler.state, report=self._report, pool=pool, metrics=metrics, tools=reconciler.tools
        )
        self._fleet = FleetLook(
            manifest=lambda: reconciler.current.snapshot.manifest, status=self.status, lease=reconciler.leases.tree,
            book=reconciler.rollouts, read=peers.read,
        )  # fmt: skip
        self._live_feed = LiveFeed(
            event_log,
            status=self.status,
            generated=metrics.generated,
            load=lambda: (len(pool.state.running), len(pool.state.waiting)),
        )

    # Status

    def status(self) -> dict[str, Any]:
        return self._report.tree()

    def missing(self) -> tuple[str, ...]:
        return self._report.missing()

    async def model(self, name: str, *, paths: bool) -> dict[str, Any]:
        current = self._reconciler.current
        known = current.require(name)
        return await self._documents.describe(self._report.row(known), current, paths=paths)

    def open_file(self, digest: str) -> int:
        blobs = self._files.index.blobs
        if not blobs.has(digest):
            raise NotFound(f"the store has no file {digest}", name=digest)
        return blobs.open(digest)

    async def worker_log(self, name: str) -> dict[str, Any]:
        current = self._reconciler.current
        return await self._documents.log(current.snapshot.deployments[current.require(name)])

    async def look_at_files(self) -> None:
        await self._reconciler.served_files.look()

    def stack(self) -> dict[str, Any]:
        current = self._reconciler.current
        # A server that starts serves nothing yet, and plans from the last revision of the previous process.
        applied = self._reconciler.planner.applied() or current.snapshot
        return {
            "generation": applied.generation,
            "revision": applied.revision,
            "manifest": block_to_tree(applied.manifest),
            "origin": origin_tree(current.origin),
        }

    def captures(self) -> list[dict[str, Any]]:
        return [capture.tree(texts=False) for capture in self._captures.list()]

    def capture(self, id: int) -> dict[str, Any]:
        for capture in self._captures.list():
            if capture.id == id:
                return capture.tree(texts=True)
        raise NotFound(f"there is no capture {id}", name=str(id), hint="see observability.captures")

    def live(self) -> AsyncIterator[dict[str, Any]]:
        return self._live_feed.follow()

    def follow_captures(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self._captures.follow(after)

    def git_notice(self, body: bytes, headers: Mapping[str, str]) -> None:
        self._git.notice(body, headers)

    def metrics_history(self, query: MetricsQuery) -> dict[str, Any]:
        return self._sampler.read(query)

    async def usage(self, query: UsageQuery) -> list[dict[str, Any]]:
        return await self._usage.read(query)

    async def key_report(self) -> dict[str, Any]:
        snapshot = self._reconciler.current.snapshot
        recorded = snapshot.manifest.observability.usage.keep > 0
        since = time.time() - key_report.DAYS * 86400
        usage = await self._usage.read(UsageQuery(since=since, by=("key",))) if recorded else None
        last_used = await self._usage.last_used() if recorded else {}
        in_force = {key.name for key in snapshot.access.keys}
        return key_report.key_report(snapshot.manifest, in_force, self._rates.by_key(), usage, last_used)

    async def search_hub(self, query: str, *, limit: int, every: bool) -> list[dict[str, Any]]:
        hub, author = self._hub(), requester.get()
        return await asyncio.to_thread(hub.search, query, limit=limit, every=every, author=author)

    async def hub_advice(self, source: str, *, context: int, profile: Profile) -> dict[str, Any]:
        hub, author = self._hub(), requester.get()
        return await asyncio.to_thread(hub.advice, source, context=context, profile=profile, author=author)

    # Changes

    async def plan(self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions) -> dict[str, Any]:
        known = origin if origin.path else self._reconciler.current.origin
        desired = await asyncio.to_thread(parse_resolved, manifest)
        change = Change(desired=desired, origin=known, options=options)
        return preview_tree(await self._reconciler.preview(change))

    async def apply(
        self, manifest: Mapping[str, Any], origin: Origin, options: ApplyOptions
    ) -> AsyncGenerator[dict[str, Any], None]:
        desired = await asyncio.to_thread(parse_resolved, manifest)
        change = Change(desired=desired, origin=origin, options=options)
        async with aclosing(self._reconciler.apply(change)) as lines:
            async for line in lines:
                yield line

    async def undo(
        self, to: int | None, options: ApplyOptions, fleet: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self._reconciler.apply(self._undo(to, options, fleet))) as lines:
            async for line in lines:
                yield line

    async def plan_undo(self, to: int | None) -> dict[str, Any]:
        return preview_tree(await self._reconciler.preview(self._undo(to, UNDO)))

    async def drift(self) -> dict[str, Any]:
        return to_tree(await self._reconciler.drift())

    async def refresh(self) -> dict[str, Any]:
        return to_tree(await self._reconciler.refresh())

    async def manifest_text(self) -> dict[str, Any]:
        return await self._editor.read()

    async def plan_text(self, text: str, profiles: tuple[str, ...] | None) -> dict[str, Any]:
        return await self._editor.plan(text, profiles)

    def save_text(self, edit: TextEdit, options: ApplyOptions) -> AsyncIterator[dict[str, Any]]:
        return self._editor.save(edit, options)

    def _undo(self, to: int | None, options: ApplyOptions, fleet: str = "") -> Change:
        desired, overlay = self._reconciler.history.restore(to)
        return Change(
            desired=desired,
            # An earlier revision is no commit: the git repository is followed further from its next one.
            origin=replace(self._reconciler.current.origin, commit="", targets=(), fleet=fleet),
            options=options,
            edit=lambda _: overlay,
        )

    async def reload(self, reason: str) -> dict[str, Any]:
        before = self._reconciler.current.snapshot.generation
        result = await self._reload(reason)
        changed = self._reconciler.current.snapshot.generation != before
        return {"changed": changed, "outcome": result.outcome, "message": result.message}

    def stop(self) -> None:
        self._report.stopping = True
        self._stop()

    # Records

    def history(self) -> list[dict[str, Any]]:
        return self._reconciler.history.listed()

    async def compare_revisions(self, before: int, after: int) -> dict[str, Any]:
        return await asyncio.to_thread(self._reconciler.history.compare, before, after)

    def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        return self._event_log.follow(after)

    def metrics(self, model: str = "") -> str:
        return self._metrics.text(model)

    def families(self) -> Sequence[Family]:
        """Return the families of mullama's own metrics."""
        return self._metrics.families()

    @property
    def leases(self) -> LeaseBook:
        return self._reconciler.leases

    @property
    def rollouts(self) -> RolloutBook:
        return self._reconciler.rollouts

    async def fleet(self) -> dict[str, Any]:
        return await self._fleet.view()

    @property
    def started(self) -> int:
        return int(self._report.started)
