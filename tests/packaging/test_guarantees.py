"""docs/guarantees.md: its promises are all there, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.packaging.conftest import ROOT

PROMISES = [
    "1. Order",
    "2. No loss",
    "3. No repeats",
    "4. No waiting",
    "5. Bounds",
    "6. Accounts",
    "7. Visible",
    "8. Faults",
]


def sections() -> dict[str, str]:
    _, *parts = re.split(r"^## ", (ROOT / "docs" / "guarantees.md").read_text(), flags=re.MULTILINE)
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


def functions_of(file: Path) -> set[str]:
    if not file.exists():
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, functions)}


def test_every_promise_has_its_tests() -> None:
    found = sections()
    assert [title for title in found if title[0].isdigit()] == PROMISES
    for title in PROMISES:
        table = found[title].split("\n| promised | but | shown by |\n|---|---|---|\n")[1].partition("\n\n")[0]
        for row in table.splitlines():
            assert "::test_" in row.split("|")[3], f"{title}: no test is named for: {row}"


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    missing = [f"{file}::{name}" for file, name in named if name not in functions_of(ROOT / file)]
    assert missing == []
