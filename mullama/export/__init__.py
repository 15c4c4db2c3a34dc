"""Writes a manifest for other tools: one module for each, and their table. Pure: the caller writes the files.

The same manifest and options give the same texts, so an export can be compared and kept in a repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mullama.export.base import MARK, Exported, ExportedFile, ExportInput, ExportOptions, MemoryUse
from mullama.export.compose import export_compose
from mullama.export.helm_values import export_helm_values
from mullama.export.kube import export_kube
from mullama.export.llama_swap import export_llama_swap
from mullama.export.modelfile import export_modelfile
from mullama.export.ray import export_ray
from mullama.export.systemd import export_systemd

__all__ = ["MARK", "TARGETS", "ExportInput", "ExportOptions", "ExportTarget", "Exported", "ExportedFile", "MemoryUse"]


class ExportTarget(NamedTuple):
    """One tool that an export is for."""

    export: Callable[[ExportInput], Exported]
    options: tuple[str, ...]
    """The fields of `ExportOptions` that it reads."""
    summary: str


_CLUSTER = ("name", "image", "namespace", "replicas", "gpus", "storage", "storage_class", "weights_image")

TARGETS: Mapping[str, ExportTarget] = {
    "compose": ExportTarget(
        export_compose, ("name", "image", "gpus", "weights_image"), "a compose file with the manifest"
    ),
    "systemd": ExportTarget(export_systemd, ("name", "program"), "a unit that serves the manifest"),
    "kube": ExportTarget(export_kube, (*_CLUSTER, "endpoint_picker"), "objects for kubectl apply"),
    "helm-values": ExportTarget(export_helm_values, _CLUSTER, "values for the chart app-template"),
    "ray": ExportTarget(
        export_ray, ("name", "image", "namespace", "gpus"), "a config of Ray Serve, and a RayService for KubeRay"
    ),
    "llama-swap": ExportTarget(export_llama_swap, ("models",), "a configuration of llama-swap"),
    "modelfile": ExportTarget(export_modelfile, ("models",), "a Modelfile for each model"),
}
"""The targets of `mullama export` by name."""
