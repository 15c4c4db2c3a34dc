"""Conditions of the server and of each model, with reasons from a closed list."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from mullama.struct import Struct, field
from mullama.units import counted


class Condition(StrEnum):
    READY = "Ready"
    RECONCILING = "Reconciling"
    CONFIG_VALID = "ConfigValid"
    SYNCED = "Synced"
    DEGRADED = "Degraded"
    DRIFTED = "Drifted"
    GIT_SYNCED = "GitSynced"
    USAGE_RECORDED = "UsageRecorded"
    CERTIFICATE_VALID = "CertificateValid"
    PEERS_AVAILABLE = "PeersAvailable"
    TOOLS_READY = "ToolsReady"


OF_MODELS = frozenset({Condition.READY, Condition.DRIFTED})
"""The types that only models have."""


class Reason(StrEnum):
    """The reason for a condition. Each has a line in the reference."""

    LOADED = "Loaded"
    ON_DEMAND = "OnDemand"
    LOADING = "Loading"
    FETCHING = "Pulling"
    LOAD_FAILED = "LoadFailed"
    PROBE_FAILED = "ProbeFailed"
    WORKER_CRASHED = "WorkerCrashed"
    HOST_LOST = "HostLost"
    OLD_KEPT = "OldRevisionKept"
    UNLOADED = "UnloadedByClient"
    FILES_CHANGED = "FilesChanged"
    INVALID = "InvalidManifest"
    MISSING = "ManifestMissing"
    HELD = "Held"
    APPLIED = "Applied"
    APPLYING = "Applying"
    FETCH_FAILED = "FetchFailed"
    REFUSED = "Refused"
    OVER_BUDGET = "OverBudget"
    IDLE = "Idle"
    GIT_FAILED = "GitFailed"
    UNSIGNED_COMMIT = "UnsignedCommit"
    HISTORY_REWRITTEN = "HistoryRewritten"
    HAND_EDITED = "HandEdited"
    NOT_APPLIED = "NotApplied"
    STORE_FAILED = "StoreFailed"
    CERTIFICATE_REFUSED = "CertificateRefused"
    PEER_EJECTED = "PeerEjected"
    TOOLS_LISTED = "ToolsListed"
    TOOLS_UNAVAILABLE = "ToolsUnavailable"
    TOOLS_CHANGED = "ToolsChanged"
    TOOLS_LEFT_OUT = "ToolsLeftOut"


class Explanation(NamedTuple):
    """A reason in words."""

    meaning: str
    remedy: str
    """The next step of an operator; "" where none is needed."""


EXPLANATIONS: Mapping[str, Explanation] = {
    "Loaded": Explanation(
        "The model is in memory.",
        "",
    ),
    "OnDemand": Explanation(
        "The model is not in memory and loads with its first request.",
        "",
    ),
    "Loading": Explanation(
        "The worker is starting, or the context is being created.",
        "Wait: `mullama wait --for model/NAME=ready`.",
    ),
    "LoadFailed": Explanation(
        "The weights or the context could not be loaded.",
        "Correct the file or the settings that the message names, then apply.",
    ),
    "WorkerCrashed": Explanation(
        "The worker process ended or could not start.",
        "Read `mullama logs`. After five crashes in ten minutes that no request caused alone, the model stays down "
        "until the next apply or load.",
    ),
    "ProbeFailed": Explanation(
        "The model loads, and its answer does not match `probe`.",
        "Correct the probe or the model.",
    ),
    "HostLost": Explanation(
        "A host of `hardware.rpc` does not answer, or closed its connection.",
        "Start `mullama rpc` there. The model is tried again every 30 seconds at most, however long it takes; other "
        "models are not affected.",
    ),
    "OldRevisionKept": Explanation(
        "A new revision failed, so the previous one keeps serving.",
        "Correct the manifest, then apply.",
    ),
    "UnloadedByClient": Explanation(
        "A client unloaded the model (`keep_alive: 0`, `mullama unload`), or it was unloaded to make room for another.",
        "`mullama diff` shows drift, and `mullama apply` loads it.",
    ),
    "FilesChanged": Explanation(
        "A file of the model has other bytes on disk than those that serve, or does not exist.",
        "Restore a file that does not exist. `mullama diff` shows a changed file, and `mullama apply` loads it. A "
        "file without another pinned `digest` is also loaded the next time the model loads, and with `sync.watch` "
        "once it has not changed for 5 s.",
    ),
    "InvalidManifest": Explanation(
        "The file on disk, or a file that it refers to, is invalid; the last valid manifest serves.",
        "Correct the line that the message names.",
    ),
    "ManifestMissing": Explanation(
        "The file no longer exists.",
        "Restore it. Nothing is unloaded because of it.",
    ),
    "Held": Explanation(
        "A saved file would unload more than half of the loaded models.",
        "Check `mullama diff`, then confirm with `mullama apply`, a commit with `mullama reload`.",
    ),
    "Applied": Explanation(
        "The last change is complete.",
        "",
    ),
    "Applying": Explanation(
        "A change is in progress; the message names its origin.",
        "Wait.",
    ),
    "Pulling": Explanation(
        "A change waits for its files, and the message names the revision that serves until then; or the files of a "
        "model are fetched after a restart.",
        "Wait, or edit live fields, which do not wait. An interrupted download resumes.",
    ),
    "FetchFailed": Explanation(
        "A file is missing or damaged, or a download failed or timed out. The other models serve.",
        "Correct what the message names. The server tries again after 1 s, 2 s, … at most 60 s; `mullama apply` tries "
        "at once. Complete files are kept.",
    ),
    "Refused": Explanation(
        "A guard, `protect`, a lock or the memory check refused the change.",
        "The hint names the way to allow it.",
    ),
    "OverBudget": Explanation(
        "More is in memory than a lowered `hardware.budget` allows, by models that stay loaded or answer requests.",
        "Raise the budget, or give models `residency.load: on_demand`. Idle models on demand are unloaded by "
        "themselves.",
    ),
    "GitFailed": Explanation(
        "The repository cannot be reached, or its commit cannot be used. The last commit serves.",
        "Correct what the message names. The server tries again with growing pauses; `mullama reload` tries at once.",
    ),
    "UnsignedCommit": Explanation(
        "The commit has no signature of `sync.git.verify.ssh_signers`. The commit before it serves.",
        "Sign the commit, or add its signer to the file.",
    ),
    "HistoryRewritten": Explanation(
        "The branch was force-pushed. The commit before that serves.",
        "Check the branch, then `mullama reload`.",
    ),
    "HandEdited": Explanation(
        "Another manifest was applied by hand. It serves until the next commit.",
        "`mullama reload` applies the commit again.",
    ),
    "NotApplied": Explanation(
        "The commit is checked out and not applied yet: it settles, waits or cannot be used. The last commit serves.",
        "The conditions `ConfigValid`, `Synced` and `Reconciling` have the reason.",
    ),
    "StoreFailed": Explanation(
        "The records of usage cannot be written, because the disk is full or the state folder cannot be written. "
        "Requests are served, and their usage waits in memory.",
        "Make room. It is written with the next try.",
    ),
    "CertificateRefused": Explanation(
        "The certificate has expired, or its changed files cannot be used; the old certificate stays in use.",
        "Correct the file that the message names. It is read again when it changes.",
    ),
    "PeerEjected": Explanation(
        "A peer failed three times in a row and gets no requests. It is asked for its models after 5 s, 10 s, … at "
        "most 60 s, and returns with its first answer.",
        "Start its server, or correct `peers`.",
    ),
    "ToolsListed": Explanation(
        "Every server of tools answers, and models get its tools as they are pinned.",
        "",
    ),
    "ToolsUnavailable": Explanation(
        "A server of tools does not answer, or cannot be asked. Models are served without its tools.",
        "Correct what the message names. The server is asked again after 1 s, 2 s, … at most 60 s.",
    ),
    "ToolsChanged": Explanation(
        "A server lists tools otherwise than they are pinned. Models do not get a changed or new tool.",
        "Look at the tools. `mullama apply` accepts them, or `mullama lock --update` where the lock file pins them.",
    ),
    "ToolsLeftOut": Explanation(
        "A tool has a name, a description or a schema that no model can get, or no tool has an allowed name. The other "
        "tools are there.",
        "Correct `mcp.NAME.tools`, or the server.",
    ),
    "Idle": Explanation(
        "No change is in progress.",
        "",
    ),
}
"""The meaning and the remedy of each reason."""


class Conditions(Struct):
    """The server's conditions, each with the time of its last change (unix seconds)."""

    items: dict[Condition, dict[str, Any]] = field(default_factory=dict)

    def set(self, kind: Condition, status: bool, reason: Reason, message: str = "") -> bool:
        """Set a condition; return True if its status, reason or message changed."""
        known = self.items.get(kind)
        changed = known is None or known["status"] != status or known["reason"] != reason
        since = time.time() if changed or known is None else known["since"]
        self.items[kind] = condition(kind, status, reason, message, since)
        return changed or known is None or known["message"] != message

    def status(self, kind: Condition) -> bool | None:
        """Return the status of a condition; None if it was never set."""
        known = self.items.get(kind)
        return None if known is None else known["status"]

    def tree(self) -> list[dict[str, Any]]:
        return list(self.items.values())


def tools_ready(servers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the condition of servers of tools, given as `ToolBook.status` lists them; none without any."""
    troubles = [server for server in servers if server["message"]]
    if not servers:
        return []
    if not troubles:
        message = ", ".join(f"{server['name']}: {counted(len(server['tools']), 'tool')}" for server in servers)
        return [condition(Condition.TOOLS_READY, True, Reason.TOOLS_LISTED, message)]
    if any(server["state"] != "ready" for server in troubles):
        reason = Reason.TOOLS_UNAVAILABLE
    else:
        reason = Reason.TOOLS_CHANGED if any(server["changed"] for server in troubles) else Reason.TOOLS_LEFT_OUT
    message = "; ".join(f"{server['name']}: {server['message']}" for server in troubles)
    return [condition(Condition.TOOLS_READY, False, reason, message)]


def condition(
    kind: Condition, status: bool, reason: Reason, message: str = "", since: float | None = None
) -> dict[str, Any]:
    """Return one condition in its published form."""
    return {
        "type": kind.value, "status": status, "reason": reason.value, "message": message,
        "hint": EXPLANATIONS[reason.value].remedy, "since": since,
    }  # fmt: skip
