"""Builds the web page into wheels and source archives: a hook of hatch, which loads this file by its path."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_REQUIRED = "MULLAMA_WEB"
"""With the value `required`, an archive without the page is an error."""


class WebPageHook(BuildHookInterface[Any]):
    """Builds the page where it is not current. Without Node the archive has no page, and all else works."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run before an archive is made. An editable installation uses the files of the source tree."""
        if version == "editable":
            return
        module = Path(self.root, "mullama/web/build.py")
        spec = importlib.util.spec_from_file_location("mullama_web_build", module)
        assert spec is not None
        assert spec.loader is not None
        build = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = build
        spec.loader.exec_module(build)
        try:
            build.build()
        except (build.NotBuilt, OSError) as error:
            if os.environ.get(_REQUIRED) == "required":
                raise
            self.app.display_warning(f"the web page was not built: {error}")
