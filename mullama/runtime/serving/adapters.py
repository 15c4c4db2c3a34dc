"""The adapters that a request names, by their number or name, as scales in the order of the manifest."""

from __future__ import annotations

from mullama.chat import types as chat
from mullama.errors import Invalid
from mullama.runtime.snapshot import Deployment


def adapter_scales(request: chat.TextRequest, deployment: Deployment) -> tuple[float, ...] | None:
    """Return the scale of each adapter of the model for a request; None for those of the context.

    An adapter that the request does not name has the scale 0, as in llama-server. Raises `Invalid` for an unknown one.
    """
    if not request.adapters:
        return deployment.scales
    asked = numbered_adapters(request, deployment)
    return tuple(asked.get(number, 0.0) for number in range(len(deployment.model.adapters)))


def numbered_adapters(request: chat.TextRequest, deployment: Deployment) -> dict[int, float]:
    """Return the scales that a request states, by the number of the adapter."""
    return numbered(request.adapters, [adapter.name or "" for adapter in deployment.model.adapters], deployment.name)


def numbered(
    asked: tuple[tuple[int | str, float], ...], names: list[str], model: str, field: str = "lora"
) -> dict[int, float]:
    """Return the scales by the number of the adapter. names: of the adapters of the model, "" for one without.

    field: with the list, "" if it is the whole body.
    """
    found: dict[int, float] = {}
    for place, (id, scale) in enumerate(asked):
        number = names.index(id) if isinstance(id, str) and id in names and id else id
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise Invalid(
                f'{field}[{place}].id: the model "{model}" has no adapter {id!r}',
                hint=f"its adapters are {_listed(names)}" if names else "it has no adapters",
                field=field or None,
            )
        if number in found:
            raise Invalid(f"{field}[{place}].id: the adapter {id!r} is named twice", field=field or None)
        found[number] = scale
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(f"{number} ({name})" if name else str(number) for number, name in enumerate(names))
