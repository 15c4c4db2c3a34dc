"""The policy of `mullama diff --policy FILE`: the rules that a plan breaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.api_client.discover import display_path
from mullama.cli.app.context import CommandContext
from mullama.plan.steps import Plan
from mullama.struct import Struct

if TYPE_CHECKING:
    from mullama.manifest.load import LoadedManifest
    from mullama.plan.review import Violation


class Review(Struct, frozen=True):
    """The rules of a policy that a plan breaks, and those that it keeps."""

    broken: tuple[Violation, ...] = ()
    passed: tuple[str, ...] = ()


def review(call: CommandContext, plan: Plan, loaded: LoadedManifest) -> Review:
    """Compare a plan with the policy of the command line; an empty review without one. Uses no network."""
    if call.options.policy is None:
        return Review()
    from mullama.manifest.load.policy import load_policy
    from mullama.plan.review import rules, violations
    from mullama.reconcile.files import Files
    from mullama.reconcile.pins import read_lock

    path = call.folder / call.options.policy
    policy = load_policy(str(path), display_path(call, path))
    lock = read_lock(loaded.path)
    files = Files.here(call.env).known([loaded.manifest], lock)
    folder = str(Path(loaded.path).parent) if loaded.path else None
    broken = violations(policy, plan, loaded.manifest, files, lock, folder)
    failed = {violation.rule for violation in broken}
    return Review(broken, tuple(rule for rule in rules(policy) if rule not in failed))
