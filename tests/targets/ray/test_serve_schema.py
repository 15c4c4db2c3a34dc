"""The exported config of Serve fits the schema of the Ray that is installed."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip("ray", reason="Ray is not installed; make ray installs it in an environment of its own")

from mullama.export import TARGETS
from tests.export.builders import given

MODELS = """
metadata: {name: prod}
models:
  a: {from: 'builtin:tiny', context: {threads: 2}, limits: {queue: 0}, rollout: {drain_timeout: 0s}}
  b: {from: 'builtin:tiny', gpu: {layers: all}, scale: {min: 0, max: 3, target_ongoing: 2, idle: 90s}}
"""


@pytest.mark.filterwarnings("default")  # of Ray's own modules
def test_the_exported_config_is_one_of_serve() -> None:
    from ray.serve.schema import ServeDeploySchema

    config, service = (yaml.safe_load(file.text) for file in TARGETS["ray"].export(given(MODELS)).files)
    for tree in (config, yaml.safe_load(service["spec"]["serveConfigV2"])):
        read = ServeDeploySchema.model_validate(tree)
        assert [one.name.rpartition("-")[0] for one in read.applications] == ["m-a", "m-b", "gateway"]
        scaled = read.applications[1].deployments[0].autoscaling_config
        assert scaled["downscale_delay_s"] == 90
