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

from mullama.controller.change import Change
from mullama.controller.reconciler import Reconciler
from mullama.errors import Conflict, ManifestError, MullamaError, NotFound, Refused
from mullama.manifest.load import Disk, LoadedManifest, load_text
from mullama.plan.steps import located, to_tree
from mullama.reconcile.includes import PinnedIncludes
from mullama.runtime.base import ApplyOptions, Origin
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
            return {"problems": [problem.tree() for problem in error.problems], "warnings": [], "plan": None}
        change = Change(desired=loaded.manifest, origin=replace(origin, profiles=chosen), options=ApplyOptions())
        plan = located(await self._reconciler.plan(change), loaded.places)
        return {"problems": [], "warnings": [one.tree() for one in loaded.warnings], "plan": to_tree(plan)}

    async def save(self, text: str, digest: str, options: ApplyOptions) -> AsyncGenerator[dict[str, Any], None]:
        """Save the text and apply it; yield the lines of the apply.

        digest: that of the text that was read; another content of the file raises `Conflict`, and nothing is saved.
        A text with mistakes, and one whose apply is refused before it begins, is not saved.
        """
        origin, path = self._followed()
        if reason := await asyncio.to_thread(self._readonly, origin, path):
            raise Refused(f"{path} cannot be saved here: {reason}", hint="change the file at its source")
        loaded = await self._loaded(text, path, origin.profiles)
        origin = replace(origin, digest=loaded.digest, targets=())
        change = Change(desired=loaded.manifest, origin=origin, options=options)
        refusals = [step.refusal for step in (await self._reconciler.plan(change)).steps if step.refusal]
        if refusals:
            raise Refused("; ".join(refusals))
        await asyncio.to_thread(_replace, Path(path), text.encode(), digest)
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
        if not os.access(path, os.W_OK) or not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK):
            return "the server may not write it"
        return ""


def _replace(path: Path, data: bytes, digest: str) -> None:
    """Write a file with the mode of the old one, if that still has this digest. A link keeps leading to its target."""
    target = Path(os.path.realpath(path))
    try:
        before = Disk().read(str(target))
        mode = stat.S_IMODE(target.stat().st_mode)
    except MullamaError as error:
        raise Conflict(f"{path} cannot be read any more: {error.message}", hint="read it again") from error
    if hashlib.sha256(before).hexdigest() != digest:
        raise Conflict(f"{path} was changed since it was read", hint="read it again and repeat the change")
    with translate_os_errors(target):
        write_atomic(target, data)
        target.chmod(mode)
