"""`mullama wait`: wait until a server, a model or a condition is ready."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, get_args

from mullama.cli.api_client.discover import find
from mullama.cli.app import context
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.server.status import holds
from mullama.errors import MullamaError, TimedOut, Unavailable

_POLL_SECONDS = 0.1


def wait_options(parser: Parser) -> None:
    context.manifest_options(parser)
    context.server_options(parser)
    context.timeout_option(parser, "5m")
    parser.add_argument(
        "--for",
        dest="condition",
        default="ready",
        metavar="CONDITION",
        help="ready, condition=TYPE, or model/NAME=STATE such as model/chat=ready (default: ready)",
    )


def wait(call: CommandContext) -> int:
    """Poll until the condition holds; exit with 6 at the timeout, 11 when no server answered."""
    condition = WaitCondition(call.options.condition)
    deadline = time.monotonic() + call.options.timeout
    while True:
        missing: MullamaError | str
        try:
            server = find(call)
            missing = condition.missing(server.client) if server else Unavailable("no server is running")
        except Unavailable as error:
            missing = error
        if not missing:
            call.terminal.line(condition.success)
            return DONE
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
    if isinstance(missing, MullamaError):
        raise missing
    raise TimedOut(f"{condition.text} is not met: {missing}", hint="mullama status shows why")


def _of_the_stack() -> dict[str, str]:
    """Return the types of `condition=TYPE` in lower case, with their spelling."""
    from mullama.controller.conditions import OF_MODELS, Condition  # `ready`, the default, needs none

    return {kind.casefold(): kind.value for kind in Condition if kind not in OF_MODELS}


def _of_a_model() -> dict[str, str]:
    """Return the states and types of `model/NAME=STATE` in lower case, with their spelling."""
    from mullama.controller.conditions import Condition
    from mullama.plan.observed import LiveState

    states = {state: state for state in (*get_args(LiveState), "loaded")}
    return states | {Condition.DRIFTED.casefold(): Condition.DRIFTED.value}


class WaitCondition:
    """A condition to wait for, parsed from `--for`. `success` is the line that reports it."""

    def __init__(self, text: str) -> None:
        self.text = text
        subject, _, wanted = text.partition("=")
        self._wanted = wanted.casefold()
        self._condition = subject == "condition"
        self._model = subject.removeprefix("model/") if subject.startswith("model/") else None
        known = text == "ready" or self._condition or bool(self._model)
        if text == "ready":
            self.success = "the server is ready"
        elif self._model is not None:
            self.success = f"{self._model} is {wanted}"
        else:
            self.success = f"{wanted} is true"
        if not known:
            raise UsageError(f"--for: unknown condition {text!r}", hint="use ready, condition=TYPE or model/NAME=STATE")
        if text != "ready" and self._wanted not in (choices := _of_a_model() if self._model else _of_the_stack()):
            raise UsageError(f"--for: unknown condition {text!r}", hint=f"one of {', '.join(choices.values())}")

    def missing(self, client: Any) -> str:
        """Return the reason why the condition does not hold yet, empty when it holds."""
        if self._model is None and not self._condition:
            code, tree = client.probe("/readyz")
            waiting = ", ".join(tree.get("missing") or ()) if isinstance(tree, dict) else ""
            return "" if code == 200 else f"not loaded: {waiting or 'unknown'}"
        tree = client.get("/api/v1/status")
        return self._condition_missing(tree) if self._condition else self._model_missing(tree)

    def _condition_missing(self, tree: Mapping[str, Any]) -> str:
        for condition in tree.get("conditions") or ():
            if condition["type"].casefold() == self._wanted:
                return "" if holds(condition["status"]) else str(condition.get("message") or "false")
        return "the server has no such condition"

    def _model_missing(self, tree: Mapping[str, Any]) -> str:
        for model in tree.get("models") or ():
            if model["name"].casefold() == str(self._model).casefold():
                return "" if self._reached(model) else f"it is {model['state']}"
        return "there is no such model"

    def _reached(self, model: Mapping[str, Any]) -> bool:
        """True when the model has this state or condition; a ready model counts as `loaded`."""
        if model["state"].casefold() == self._wanted:
            return True
        if self._wanted == "loaded" and model["state"] == "ready":
            return True
        return any(c["type"].casefold() == self._wanted and holds(c["status"]) for c in model.get("conditions") or ())
