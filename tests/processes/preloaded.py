"""Modules that commands, servers and workers import, imported by the process that is forked for each of them.

Libraries that read the environment when they are imported are not among them: a command has an environment of its own.
llama.cpp reads a few variables, which a worker has with the same values.
"""

import gc
import importlib
import os
import sys

from mullama.runtime.worker.spawn import environment

os.environ.update(environment(os.environ))
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # more would be threads of the process that is forked

from mullama.__main__ import main  # noqa: F401 - the entry point
from mullama.cli.app.commands import COMMANDS

for command in COMMANDS:
    importlib.import_module(f"mullama.cli.{command.module}")
for module in (
    "reconcile.observe", "reconcile.files", "manifest.load", "plan.report", "cli.console.view", "cli.server.wiring",
    "server.app", "controller.reconciler", "runtime.worker.child", "engines.scripted.engine", "engines.llamacpp.engine",
    "cli.app.main", "client.http", "chat.template.jinja", "chat.template.probe",
    "sources.transfer", "sources.fetch",
):  # fmt: skip
    importlib.import_module(f"mullama.{module}")
for library in ("anyio._backends._asyncio", "encodings.idna", "uvicorn.lifespan.off"):  # imported where they are used
    importlib.import_module(library)

assert "huggingface_hub" not in sys.modules
gc.collect()
gc.freeze()  # a collection in a fork would copy the pages of all these objects
