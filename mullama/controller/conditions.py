"""Conditions of the server and of each model, with reasons from a closed list."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

from mullama.struct import Struct, field


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


def condition(
    kind: Condition, status: bool, reason: Reason, message: str = "", since: float | None = None
) -> dict[str, Any]:
    """Return one condition in its published form."""
    return {"type": kind.value, "status": status, "reason": reason.value, "message": message, "since": since}
