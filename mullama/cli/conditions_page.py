"""The reference page of conditions: their types, and the reasons from the table in the code."""

from __future__ import annotations

from mullama.controller.conditions import EXPLANATIONS

_HEAD = """\
`mullama status`, `mullama status --json` and `GET /api/v1/status` report conditions of the stack and of each model.
A condition has a `type`, a `status`, a `reason` from the closed list below, a `message` and a `hint` with the remedy
of the reason. Conditions of the stack have `since` in Unix seconds.

## Types

| type | of | true means |
|---|---|---|
| `Ready` | a model | it answers now, or loads with its next request |
| `Degraded` | stack, model | an applied setting does not work as the manifest declares it |
| `Drifted` | a model | it should be in memory and is not, or its files changed on disk; the manifest did not change |
| `Reconciling` | stack | a change is in progress |
| `ConfigValid` | stack | the file on disk is a valid manifest |
| `Synced` | stack | the server serves the last requested manifest |
| `GitSynced` | stack with `sync.git` | the commit of the repository is what is applied |
| `UsageRecorded` | stack | the records of usage are written; shown after the first failure |
| `CertificateValid` | stack with `server.tls` | the certificate of the files is in use, and is valid now |
| `PeersAvailable` | stack with `peers` | each peer answers; shown while one does not |
| `ToolsReady` | stack with `mcp`, model | models get all tools of the servers; of a model, shown while it does not |
"""


def conditions_page(note: str) -> str:
    """Return the text of the page. note: the comment of a generated file."""
    rows = [
        f"| `{reason}` | {meaning} | {remedy or 'None needed.'} |" for reason, (meaning, remedy) in EXPLANATIONS.items()
    ]
    lines = ["# Conditions and their reasons", "", note, "", _HEAD, "## Reasons", ""]
    return "\n".join([*lines, "| reason | meaning | remedy |", "|---|---|---|", *rows]) + "\n"
