"""The checkout of a repository as the manifest of a server that starts again."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.controller.watch.watcher import with_git
from mullama.errors import MullamaError
from mullama.manifest.load import LoadedManifest, load
from mullama.reconcile.git_repository import GitRepository
from mullama.reconcile.includes import PinnedIncludes
from mullama.reconcile.observe import last_applied
from mullama.reconcile.overlay import split
from mullama.runtime.base import Origin
from mullama.store.records import Records
from mullama.struct import replace


def from_checkout(
    loaded: LoadedManifest, origin: Origin, records: Records, env: Mapping[str, str]
) -> tuple[LoadedManifest, Origin, MullamaError | None]:
    """Return the manifest with which a server starts that follows a repository, its origin and its problem.

    loaded: the manifest that names the repository; it is returned where no commit is checked out yet. For a commit
    that cannot be used, the last applied revision is returned with the reason.
    """
    git = loaded.manifest.sync.git
    if git is None:
        return loaded, origin, None
    repository = GitRepository(records.git_folder, git, env)
    commit = repository.commit
    if commit is None:
        return loaded, origin, None
    there = replace(origin, checkout=repository.manifest, commit=commit)
    try:
        found = with_git(load(repository.manifest, profiles=origin.profiles, env=env, remote=PinnedIncludes(env)), git)
        return found, replace(there, digest=found.digest), None
    except MullamaError as error:
        last, applied = records.last(), last_applied(records)
        if last is None or applied is None:
            return loaded, origin, error
        manifest, _ = split(applied.manifest, last.overlay)
        before = str(last.origin.get("commit") or "")
        return replace(loaded, manifest=manifest), replace(there, digest="", commit=before), error
