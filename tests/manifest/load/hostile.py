"""YAML documents that exhaust or break an ordinary loader."""

from __future__ import annotations

MIB = 1024 * 1024


def bomb(levels: int, width: int) -> str:
    lines = ["l0: &l0 [x, x, x]"]
    lines += [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n".join(lines)


def merge_bomb(levels: int, width: int) -> str:
    lines = ["l0: &l0 {a: 1}"]
    for level in range(1, levels):
        below = ", ".join([f"*l{level - 1}"] * width)
        lines += [f"l{level}: &l{level}", f"  <<: [{below}]", f"  k{level}: 1"]
    return "\n".join(lines)


def hostile(part: int) -> dict[str, bytes]:
    """Documents that broke or stalled an ordinary loader; each is the largest one divided by `part`."""
    size = MIB // part
    documents: dict[str, str | bytes] = {
        "laughs": bomb(30, 9),
        "merges": merge_bomb(40, 8),
        "many merges": "a: &a {k: 1}\nb:\n" + "".join(f"  k{i}: {{<<: *a}}\n" for i in range(5000 // part)),
        "recursive anchor": "a: &a {b: *a}",
        "deep brackets": "a: " + "[" * (100_000 // part),
        "deep closed brackets": "a: " + "[" * (5000 // part) + "]" * (5000 // part),
        "deep braces": "{a: " * (100_000 // part),
        "deep blocks": "".join(" " * i + "a:\n" for i in range(1000 // part)),
        "deep lists": "- " * (50_000 // part),
        "question marks": "? " * (50_000 // part),
        "many keys": "\n".join(f"k{i}: 1" for i in range(60_000 // part)),
        "many documents": "a: 1\n---\n" * (50_000 // part),
        "many items": "[" + ",".join(["a"] * (400_000 // part)) + "]",
        "many empty lists": "[" + "[]," * (300_000 // part) + "]",
        "same key": "a: 1\n" * (40_000 // part),
        "one long word": "a: " + "x" * (size - 10),
        "one long quoted word": 'a: "' + "x" * (size - 10),
        "one long key": "x" * (size - 10) + ": a",
        "long comment": "# " + "x" * (size - 10),
        "empty lines": "\n" * (size - 10),
        "spaces": " " * (size - 10),
        "colons": ":" * (size - 10),
        "anchors": "".join(f"- &a{i} x\n" for i in range(60_000 // part)),
        "aliases": "a: &a x\nb:\n" + "- *a\n" * (100_000 // part),
        "tabs": "\t" * (size - 10),
        "not a number": "a: .NaN",
        "long number": "a: " + "9" * (size - 10),
        "long fraction": "a: 0." + "9" * (size - 10),
        "object": "!!python/object/new:os.system [echo]",
        "binary": "a: !!binary " + "A" * (100_000 // part),
        "percent": "%" * (size - 10),
        "utf-16": ("a: 1\n" * 1000).encode("utf-16"),
        "half a character": b"a: " + "é".encode()[:1],
        "folded lines": "a: >\n" + "  x\n" * (200_000 // part),
        "escapes": 'a: "' + "\\x41" * (200_000 // part) + '"',
        "tags": "a: !" + "x" * (500_000 // part),
        "dashes": "-" * (size - 10),
        "pipes": "a: |" + "9" * (100_000 // part),
    }
    return {name: text if isinstance(text, bytes) else text.encode() for name, text in documents.items()}
