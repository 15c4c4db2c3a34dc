"""The values of a resolved model with their cost."""

from __future__ import annotations

from mullama.manifest.spec import Model
from mullama.plan.model_values import model_values
from mullama.plan.steps import Cost


def test_every_value_has_a_cost_and_a_layer() -> None:
    model = Model.model_validate({"from": "https://h.example.org/m.gguf?sig=word", "context": {"size": 9}})
    found = {value.path: value for value in model_values(model, None)}
    assert found["from"].value == "https://h.example.org/m.gguf?sig=***"
    assert (found["context.size"].layer, found["context.size"].cost) == ("applied", Cost.CONTEXT)
    assert found["limits.parallel"].layer == "builtin"
    assert {value.layer for value in model_values(model, None, command=True)} == {"builtin", "command"}
