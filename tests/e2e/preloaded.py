"""Modules that commands import, imported by the process that is forked for each of them.

Libraries that read the environment when they are imported are not among them: a command has an environment of its own.
"""

import importlib
import sys

from mullama.__main__ import main  # noqa: F401 - the entry point
from mullama.cli.app.commands import COMMANDS

for command in COMMANDS:
    importlib.import_module(f"mullama.cli.{command.module}")
for module in ("reconcile.observe", "reconcile.files", "manifest.load", "plan.report", "cli.console.view"):
    importlib.import_module(f"mullama.{module}")

assert "huggingface_hub" not in sys.modules
assert "llama_cpp" not in sys.modules
