"""docs/security.md: each claim names its tests, and they exist."""

from __future__ import annotations

import re

from tests.packaging.conftest import ROOT
from tests.packaging.test_guarantees import functions_of

PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_claim_has_its_tests() -> None:
    tables = PAGE.split("| cannot | because | shown by |\n|---|---|---|\n")[1:]
    assert len(tables) == 4
    claims = [row for table in tables for row in table.partition("\n\n")[0].splitlines()]
    assert len(claims) > 15
    for row in claims:
        assert "::test_" in row.split("|")[3], f"no test is named for: {row}"


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert [f"{file}::{name}" for file, name in named if name not in functions_of(ROOT / file)] == []


def test_every_test_of_security_is_named() -> None:
    for file in sorted((ROOT / "tests/security").glob("test_*.py")):
        if file.name != "test_page.py":
            missing = [name for name in functions_of(file) if name.startswith("test_") and f"::{name}`" not in PAGE]
            assert missing == [], f"{file.name}: {missing}"
