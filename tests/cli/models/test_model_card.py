"""The model card beside quantized files."""

from __future__ import annotations

from pathlib import Path

import yaml

from mullama.cli.models.model_card import QuantizedFile, render_card, write_card

METADATA = {
    "general.name": "Small 1B",
    "general.license": "other",
    "general.license.name": "it's: mine",
    "general.license.link": "https://example.org/license",
    "general.base_model.0.repo_url": "https://huggingface.co/org/small",
}
FILE = QuantizedFile(name="small-Q4_K_M.gguf", kind="Q4_K_M", bytes=2**20, imatrix="small.imatrix.gguf")


def front(text: str) -> dict[str, object]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_a_card_has_the_license_the_base_and_a_line_for_each_file() -> None:
    text = render_card("hf:org/small-GGUF:F16", "sha256:ab", METADATA, [FILE])
    assert front(text) == {
        "license": "other", "license_name": "it's: mine", "license_link": "https://example.org/license",
        "base_model": "org/small", "base_model_relation": "quantized", "quantized_by": "mullama", "tags": ["gguf"],
    }  # fmt: skip
    assert "# Small 1B, quantized" in text
    assert "`hf:org/small-GGUF:F16` (`sha256:ab`)" in text
    assert "| [small-Q4_K_M.gguf](./small-Q4_K_M.gguf) | Q4_K_M | 1 MiB | small.imatrix.gguf |" in text


def test_without_metadata_the_repository_is_the_base() -> None:
    text = render_card("hf:org/small-GGUF:F16@main", "sha256:ab", {}, [FILE])
    assert front(text)["base_model"] == "org/small-GGUF"
    assert "base_model" not in front(render_card("./small.gguf", "sha256:ab", {}, [FILE]))


def test_a_card_keeps_the_lines_of_earlier_files_that_are_there(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    for name in ("a.gguf", "gone.gguf", "b.gguf"):
        made = QuantizedFile(name=name, kind="Q8_0", bytes=1)
        path = write_card(tmp_path, "./m.gguf", "sha256:ab", {}, [made])
    lines = [line for line in path.read_text().splitlines() if line.startswith("| [")]
    assert [line.partition("]")[0] for line in lines] == ["| [a.gguf", "| [b.gguf"]
    write_card(tmp_path, "./m.gguf", "sha256:ab", {}, [QuantizedFile(name="a.gguf", kind="Q4_0", bytes=1)])
    assert path.read_text().count("a.gguf]") == 1
    assert "Q4_0" in path.read_text()


def test_a_readme_of_someone_else_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine")
    path = write_card(tmp_path, "./m.gguf", "sha256:ab", {}, [FILE])
    assert path.name == "small-Q4_K_M.md"
    assert (tmp_path / "README.md").read_text() == "# Mine"
