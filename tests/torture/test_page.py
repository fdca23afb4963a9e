"""docs/testing.md names each command of ``make torture``, and only files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()


def test_every_command_of_make_torture_is_told_with_its_cost() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipes = [makefile.split(f"\n{target}: ")[1].partition("\n\n")[0] for target in ("torture", "asan")]
    asked = "\n".join(recipes)
    table = PAGE.split("| run by `make torture` |")[1].partition("\n\n")[0]
    assert set(re.findall(r"python -m (tests[\w.]+)", asked)) == set(re.findall(r"python -m (tests[\w.]+)", table))
    assert set(re.findall(r"MBFRAMEWORK\w+=\w+", asked)) == set(re.findall(r"MBFRAMEWORK\w+=\w+", table))


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+\.\w+)", PAGE))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
