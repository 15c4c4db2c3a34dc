"""Follows a git repository: fetches, checks and checks out each commit, and hands it to the watcher of the manifest.

The watcher applies the checkout by the rules of a saved file: it waits until the content has settled, holds a manifest
that would unload too much, and keeps the last good one for an invalid one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mullama.controller.conditions import Condition, Conditions, Reason
from mullama.controller.current import Current
from mullama.controller.event_log import EventLog
from mullama.controller.git.requests import is_from_host
from mullama.errors import Denied, MullamaError, NotFound
from mullama.manifest.spec import GitSync
from mullama.reconcile.git_repository import GitRepository, HistoryRewritten, UnsignedCommit
from mullama.reconcile.secrets import read_secret
from mullama.runtime.base import Origin

LONGEST_PAUSE = 1800.0
"""Seconds between two checks after many failures."""


def pause(interval: float, failures: int) -> float:
    """Return the seconds until the next check: the interval, doubled for each failure, at most `LONGEST_PAUSE`."""
    return max(1.0, interval, min(interval * 2.0 ** min(failures, 20), LONGEST_PAUSE))


class GitFollower:
    """Follows the repository of `sync.git`, while the applied manifest has one.

    folder: of the clone. current: returns the applied state. adopt: makes the watcher follow a checkout.
    """

    def __init__(
        self,
        *,
        folder: Path,
        current: Callable[[], Current],
        adopt: Callable[[Origin], None],
        conditions: Conditions,
        event_log: EventLog,
        env: Mapping[str, str],
    ) -> None:
        self._folder, self._current, self._adopt = folder, current, adopt
        self._conditions, self._event_log, self._env = conditions, event_log, env
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._settings: GitSync | None = None
        self._failures = 0
        self._checked = 0.0
        self._applied: str | None = None
        """The last commit that was applied, or that a manifest applied by hand replaced."""
        self._adopted: str | None = None
        """The last commit that was handed to the watcher, which waits until it may be applied."""
        self._origin = Origin()

    @property
    def settings(self) -> GitSync | None:
        """The repository to follow; None without one."""
        return self._current().snapshot.manifest.sync.git

    def applied(self, origin: Origin) -> None:
        """Note an applied change: it may have another repository, or be made by hand."""
        if origin.commit:
            self._applied = origin.commit
        elif origin != self._origin and self._adopted is not None:
            self._applied = self._adopted  # by hand: it replaces a commit that waits, too, until the next one
        self._origin = origin
        if (settings := self.settings) != self._settings:
            before, self._settings = self._settings, settings
            if before is None or settings is None or (before.url, before.ref) != (settings.url, settings.ref):
                self._applied, self._adopted = origin.commit or None, None
            self._wake.set()
        elif settings is not None:
            self._report(None)

    async def run(self) -> None:
        """Check the repository at each interval, and when it is asked for; endless."""
        while True:
            settings = self.settings
            if settings is not None:
                with contextlib.suppress(MullamaError):  # the conditions have it
                    await self.sync()
            else:
                self._conditions.items.pop(Condition.GIT_SYNCED, None)
            seconds = None if settings is None else pause(settings.interval, self._failures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            self._wake.clear()

    async def sync(self, *, forced: bool = False) -> str:
        """Check the repository now; return a sentence about its commit. Raises what prevents the commit.

        forced: accept a branch that was force-pushed, and replace a manifest that was applied by hand.
        """
        async with self._lock:
            settings = self.settings
            if settings is None:
                raise NotFound("this server follows no git repository", hint="sync.git in the manifest names one")
            repository = GitRepository(self._folder, settings, self._env)
            try:
                commit = await self._checked_out(repository, settings, forced=forced)
            except MullamaError as error:
                self._failures += 1
                self._report(error)
                raise
            except OSError as error:
                self._failures += 1
                wrapped = NotFound(f"the clone in {self._folder} cannot be written: {error.strerror}")
                self._report(wrapped)
                raise wrapped from error
            self._failures, self._checked = 0, time.time()
            origin = self._current().origin
            if origin.commit == commit:
                self._applied = commit
            if forced or commit not in (self._applied, self._adopted):
                self._adopted = commit
                path = origin.path or repository.manifest
                self._adopt(Origin(path=path, profiles=origin.profiles, checkout=repository.manifest, commit=commit))
            self._report(None)
            return f"{settings.ref} is at commit {commit[:12]}"

    async def _checked_out(self, repository: GitRepository, settings: GitSync, *, forced: bool) -> str:
        commit, before = await asyncio.to_thread(repository.fetch), repository.commit
        if commit == before:
            if await asyncio.to_thread(repository.restore):
                message = f"the files of commit {commit[:12]} were edited by hand, and are restored"
                self._event_log.add("git-edited", settings.url, message)
            return commit
        await asyncio.to_thread(repository.check, commit, after=None if forced else before)
        await asyncio.to_thread(repository.check_out, commit)
        self._event_log.add("git-commit", settings.url, f"{settings.ref} is at commit {commit[:12]}", commit=commit)
        return commit

    def _report(self, error: MullamaError | None) -> None:
        """Set the condition: of the error, else by the origin of what is applied."""
        if error is not None:
            reason = _reason(error)
            if self._conditions.set(Condition.GIT_SYNCED, False, reason, str(error)):
                self._event_log.add("git-failed", self._settings.url if self._settings else "", str(error))
            return
        settings, current = self.settings, self._current()
        if settings is None:
            return
        commit = GitRepository(self._folder, settings, self._env).commit
        if commit is None or self._failures:
            return
        if current.started and not current.origin.commit and self._applied == commit:
            message = (
                f"revision {current.snapshot.generation} was applied by hand instead of commit {commit[:12]}; "
                f"`mullama reload` applies the commit"
            )
            if self._conditions.set(Condition.GIT_SYNCED, False, Reason.HAND_EDITED, message):
                self._event_log.add("git-edited", settings.url, message)
        elif current.started and current.origin.commit != commit:
            message = f"{settings.ref} is at {commit[:12]}, which is not applied"
            self._conditions.set(Condition.GIT_SYNCED, False, Reason.NOT_APPLIED, message)
        else:
            self._conditions.set(Condition.GIT_SYNCED, True, Reason.APPLIED, f"{settings.ref} is at {commit[:12]}")

    def notice(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Check the repository at once, because its host says so. Raises `Denied` for a request of anybody else."""
        settings = self.settings
        if settings is None or settings.webhook is None:
            raise NotFound("no git host may call this server", hint="sync.git.webhook in the manifest has the secret")
        secret = read_secret(settings.webhook.secret, "sync.git.webhook.secret", self._env)
        if secret is None or not is_from_host(body, headers, secret):
            raise Denied("the request is not signed with the secret of sync.git.webhook", hint="correct it at the host")
        self._failures = 0
        self._wake.set()

    def tree(self) -> dict[str, Any] | None:
        """Return the repository for `status`; None without one."""
        settings = self.settings
        if settings is None:
            return None
        return {
            "url": settings.url,
            "ref": settings.ref,
            "path": settings.path,
            "commit": GitRepository(self._folder, settings, self._env).commit,
            "applied": self._current().origin.commit or None,
            "checked": self._checked or None,
            "failures": self._failures,
        }


def _reason(error: MullamaError) -> Reason:
    match error:
        case UnsignedCommit():
            return Reason.UNSIGNED_COMMIT
        case HistoryRewritten():
            return Reason.HISTORY_REWRITTEN
        case _:
            return Reason.GIT_FAILED
