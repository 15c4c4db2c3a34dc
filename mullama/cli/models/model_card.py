"""Writes a model card beside quantized files: their source, types, sizes, importance matrix and license."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import mullama
from mullama.cli.app.text_files import write_text
from mullama.struct import Struct
from mullama.units import size

NAME: Final = "README.md"
_MARK: Final = "quantized_by: mullama"
_ROW = re.compile(r"^\| \[([^\]]+\.gguf)\]\([^)]*\) \| [^|]* \| [^|]* \|(?: [^|]* \|)?$", re.MULTILINE)
_SIMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:+-]*")
# Keys of a GGUF file, by the key of a card.
_FIELDS: Final = {
    "license": "general.license",
    "license_name": "general.license.name",
    "license_link": "general.license.link",
    "base_model": "general.base_model.0.repo_url",
}


class QuantizedFile(Struct, frozen=True, kw_only=True):
    """A file that was written. imatrix: the name of its importance matrix, "" without one."""

    name: str
    kind: str
    bytes: int
    imatrix: str = ""

    @property
    def row(self) -> str:
        return f"| [{self.name}](./{self.name}) | {self.kind} | {size(self.bytes)} | {self.imatrix or '-'} |"


def render_card(
    source: str, digest: str, metadata: Mapping[str, object], files: Sequence[QuantizedFile], rows: Sequence[str] = ()
) -> str:
    """Return the text of a card. rows: lines of files that were written before."""
    name = str(metadata.get("general.name") or source)
    fields = {key: str(metadata[given]) for key, given in _FIELDS.items() if metadata.get(given)}
    if "base_model" in fields:
        fields["base_model"] = fields["base_model"].removeprefix("https://huggingface.co/")
    elif source.startswith("hf:"):
        fields["base_model"] = source.removeprefix("hf:").partition(":")[0].partition("@")[0]
    head = [f"{key}: {_scalar(value)}" for key, value in fields.items()]
    return "\n".join(
        [
            "---", *head, "base_model_relation: quantized", _MARK, "tags: [gguf]", "---", "",
            f"# {name}, quantized", "",
            f"Quantized from `{source}` (`{digest}`) with llama.cpp by mullama {mullama.__version__}.", "",
            "| file | type | size | importance matrix |", "|---|---|---|---|",
            *sorted({*rows, *(file.row for file in files)}), "",
        ]
    )  # fmt: skip


def write_card(
    folder: Path, source: str, digest: str, metadata: Mapping[str, object], files: Sequence[QuantizedFile]
) -> Path:
    """Write README.md into the folder and return its path. A README.md that is no card of mullama stays: the card has
    the name of the first file then.

    A card of mullama keeps the lines of files that are still there.
    """
    path = folder / NAME
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else _MARK
    if _MARK not in before:
        path = folder / f"{files[0].name.removesuffix('.gguf')}.md"
        before = ""
    ours = {file.name for file in files}
    rows = [row[0] for row in _ROW.finditer(before) if row[1] not in ours and (folder / row[1]).is_file()]
    write_text(path, render_card(source, digest, metadata, files, rows))
    return path


def _scalar(text: str) -> str:
    """Return text as a scalar of YAML."""
    return text if _SIMPLE.fullmatch(text) and ": " not in text else "'" + text.replace("'", "''") + "'"
