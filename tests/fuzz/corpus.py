"""Inputs as text files: what once found something stays, in ``corpus/``, and is looked at again by every run.

A file has lines ``target:``, ``why:``, ``facts:`` (JSON), and for each of the input's files ``file: NAME SIZE``, then
``@OFFSET HEX`` for what is not zeros. Promises: what :func:`to_text` writes, :func:`from_text` reads back.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.target import Input

FOLDER = Path(__file__).with_name("corpus")
_LINE = 48


def to_text(target: str, given: Input, why: str) -> str:
    """The input as text; ``why``: what it found, in one line."""
    lines = [f"target: {target}", f"why: {' '.join(why.split())}", f"facts: {json.dumps(given.facts)}"]
    for name, data in given.files.items():
        lines.append(f"file: {name} {len(data)}")
        for at in range(0, len(data), _LINE):
            if any(data[at : at + _LINE]):
                lines.append(f"@{at} {data[at : at + _LINE].hex()}")
    return "\n".join(lines) + "\n"


def from_text(text: str) -> tuple[str, Input]:
    """The target's name and the input."""
    target, facts, files = "", {}, {}
    data = bytearray()
    for line in text.splitlines():
        if line.startswith("@"):
            at, _, digits = line[1:].partition(" ")
            raw = bytes.fromhex(digits)
            data[int(at) : int(at) + len(raw)] = raw
            continue
        kind, _, rest = line.partition(": ")
        if kind == "target":
            target = rest
        elif kind == "facts":
            facts = json.loads(rest)
        elif kind == "file":
            name, _, size = rest.rpartition(" ")
            data = files[name] = bytearray(int(size))
    return target, Input({name: bytes(data) for name, data in files.items()}, facts)


def kept() -> list[Path]:
    """The inputs of the corpus."""
    return sorted(FOLDER.glob("*.txt"))
