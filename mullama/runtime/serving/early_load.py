"""The weights that a starting server loads while it still hashes their files and reads their templates."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mullama.engines.base import EngineChoice
from mullama.errors import MullamaError
from mullama.manifest.spec import Manifest
from mullama.plan.fit import drafter_facts, projector_memory, too_large
from mullama.plan.observed import Observed
from mullama.reconcile.execute import load_order
from mullama.reconcile.files import is_local
from mullama.runtime.serving.build import DeploymentBuilder


def early_choice(
    desired: Manifest, observed: Observed, missing: Collection[str], builder: DeploymentBuilder
) -> tuple[EngineChoice, Mapping[str, str]] | None:
    """Return the weights that a start loads first, and the states of their files; see `Pool.load_early`.

    None where they are not on this machine or do not fit, and where a download comes before the load.
    missing: the models whose files are not verified yet.
    """
    if not all(is_local(source) for name in missing for source in desired.models[name].sources):
        return None
    name = next((name for name in load_order(desired) if desired.models[name].residency.load == "at_start"), None)
    if name is None:
        return None
    model = desired.models[name]
    files = observed.files.get(model.from_)
    if files is None or not files.stored or files.facts is None or not files.stamps:
        return None
    if too_large(name, model, files.facts, desired.hardware.budget, builder.machine, None):
        return None
    try:
        drafter, projector = drafter_facts(model, observed.files), projector_memory(model, observed.files)
        return builder.choice(model, files, drafter, projector), files.stamps
    except MullamaError:  # the check of the model reports it
        return None
