"""The text of the followed manifest for an editor: read, planned as it is written, and saved with an apply."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mullama.controller.reconciler import Reconciler
from mullama.controller.runs.change import Change, preview_tree
from mullama.errors import Conflict, ManifestError, MullamaError, NotFound, Refused
from mullama.manifest.load import Disk, LoadedManifest, load_text
from mullama.reconcile.includes import PinnedIncludes
from mullama.runtime.base import ApplyOptions, Origin, TextEdit
from mullama.store.disk import translate_os_errors, write_atomic
from mullama.struct import replace


class ManifestEditor:
    """Reads, plans and saves the file that the server follows. Administrators only: a text may include other files."""

    def __init__(self, reconciler: Reconciler, env: Mapping[str, str]) -> None:
        self._reconciler, self._env, self._remote = reconciler, env, PinnedIncludes(env)

    async def read(self) -> dict[str, Any]:
        """Return the text with its digest, and why it cannot be saved, "" for a file that can.

        Raises `NotFound` for a server that follows no file.
        """
        origin, path = self._followed()
        data = await asyncio.to_thread(Disk().read, path)
        return {
            "path": path,
            "profiles": list(origin.profiles),
            "text": data.decode("utf-8", "replace"),
            "digest": hashlib.sha256(data).hexdigest(),
            "revision": self._reconciler.current.snapshot.revision,
            "readonly": await asyncio.to_thread(self._readonly, origin, path),
        }

    async def plan(self, text: str, profiles: tuple[str, ...] | None) -> dict[str, Any]:
        """Return the mistakes of a text, and its plan where there are none. profiles: None for those of the server."""
        origin, path = self._followed()
        chosen = origin.profiles if profiles is None else profiles
        try:
            loaded = await self._loaded(text, path, chosen)
        except ManifestError as error:
            problems = [problem.tree() for problem in error.problems]
            return {"problems": problems, "warnings": [], "plan": None, "profiles": [], "removes_all": False}
        change = Change(
            desired=loaded.manifest,
            origin=replace(origin, profiles=chosen),
            options=ApplyOptions(allow_empty=True),
        )
        planned = await self._reconciler.preview(change, asks=False)  # a plan for each edit
        return {
            "problems": [],
            "warnings": [one.tree() for one in loaded.warnings],
            "plan": preview_tree(planned, loaded.places),
            "profiles": list(loaded.declared_profiles),
            "removes_all": bool(self._reconciler.current.manifest.models) and not loaded.manifest.models,
        }

    async def save(self, edit: TextEdit, options: ApplyOptions) -> AsyncGenerator[dict[str, Any], None]:
        """Save the text and apply it; yield the lines of the apply.

        A file with another content than the one that was read raises `Conflict`. Nothing is saved then, and none of a
        text with mistakes or of one whose apply is refused before it begins.
        """
        origin, path = self._followed()
        if reason := await asyncio.to_thread(self._readonly, origin, path):
            raise Refused(f"{path} cannot be saved here: {reason}", hint="change the file at its source")
        profiles = origin.profiles if edit.profiles is None else edit.profiles
        loaded = await self._loaded(edit.text, path, profiles)
        await asyncio.to_thread(_require_unchanged, Path(path), edit.digest)

        async def save() -> None:
            await asyncio.to_thread(_replace, Path(path), edit.text.encode(), edit.digest)

        origin = replace(origin, digest=loaded.digest, profiles=profiles, targets=())
        change = Change(desired=loaded.manifest, origin=origin, options=options, save=save)
        async with aclosing(self._reconciler.apply(change)) as lines:
            async for line in lines:
                yield line

    def _followed(self) -> tuple[Origin, str]:
        origin = self._reconciler.current.origin
        if origin.file is None:
            raise NotFound("this server follows no manifest file", hint="apply a manifest from a file first")
        return origin, origin.file

    async def _loaded(self, text: str, path: str, profiles: tuple[str, ...]) -> LoadedManifest:
        return await asyncio.to_thread(
            load_text,
            text,
            name=path,
            base_dir=os.path.dirname(path),
            path=path,
            profiles=profiles,
            env=self._env,
            remote=self._remote,
        )

    def _readonly(self, origin: Origin, path: str) -> str:
        if origin.checkout is not None:
            return "it is that of a git repository"
        if not _is_text(Disk().read(path)):
            return "it is not UTF-8"
        if not os.access(path, os.W_OK) or not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK):
            return "the server may not write it"
        return ""


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _require_unchanged(path: Path, digest: str) -> None:
    """Raise `Conflict` if the file has another content than the one with this digest."""
    try:
        before = Disk().read(str(path))
    except MullamaError as error:
        raise Conflict(f"{path} cannot be read any more: {error.message}", hint="read it again") from error
    if hashlib.sha256(before).hexdigest() != digest:
        raise Conflict(f"{path} was changed since it was read", hint="read it again and repeat the change")


def _replace(path: Path, data: bytes, digest: str) -> None:
    """Write a file with the mode of the old one, if that still has this digest. A link keeps leading to its target."""
    target = Path(os.path.realpath(path))
    _require_unchanged(target, digest)
    with translate_os_errors(target):
        mode = stat.S_IMODE(target.stat().st_mode)
        write_atomic(target, data)
        target.chmod(mode)
