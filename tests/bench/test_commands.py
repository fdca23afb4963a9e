"""Every benchmark runs, and says on what machine: a figure nobody can repeat is worth nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.figures import median_and_doubt, percentile

QUICK = {
    "open": ["--backlog", "2MB", "--repeat", "1", "--only", "kill -9 at full speed, 1,000"],
    "write": ["--rounds", "1", "--messages", "2000"],
    "outage": ["--bytes", "30MB", "--total-size", "10MB"],
    "drain": ["--rounds", "1", "--messages", "2000"],
}


@pytest.mark.parametrize("name", QUICK)
def test_a_benchmark_prints_tables_and_json(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", name, *QUICK[name], "--directory", str(tmp_path)]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found["name"] == name
    assert {"machine", "python", "build", "file system"} <= set(found["machine"])
    for table in found["tables"]:
        assert table["rows"], table["title"]
        assert all(len(row) == len(table["headings"]) for row in table["rows"])
    assert "NO" not in [cell for table in found["tables"] for row in table["rows"] for cell in row]
    assert not [remark for remark in found["remarks"] if "NOT BALANCE" in remark]
    assert not list(tmp_path.iterdir()), "the benchmark left something behind"


def test_a_percentile_is_a_sample_and_no_smaller_than_its_share() -> None:
    ordered = [float(n) for n in range(1, 1001)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]
    assert percentile([7.0], 0.999) == 7


def test_the_doubt_of_a_median_shrinks_with_the_number_of_samples() -> None:
    assert median_and_doubt([5.0, -1.0, 2.0]) == "+2.0 (-1.0 … +5.0)"
    assert median_and_doubt([float(n) for n in range(101)], 0) == "+50 (+40 … +61)"
    assert median_and_doubt([]) == "-"
