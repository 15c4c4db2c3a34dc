"""The web page at `/ui/`: its sources in TypeScript, their build, and the built files."""

from pathlib import Path

DIST = Path(__file__).parent / "dist"
"""The folder of the built files. It does not exist where the page was not built."""
