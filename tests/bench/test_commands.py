"""Every benchmark runs, and says on what machine: a figure nobody can repeat is worth nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mbframework.bench import BENCHMARKS
from mbframework.bench.budget import BUDGETS
from mbframework.bench.peer import OURS, Setting
from mbframework.bench.quick import QUICK
from mbframework.cli import main
from mbframework.testing.kafka import ENVIRONMENT, KafkaBroker

#: What is left out here; those with a broker are given one that runs.
ONLY = {
    "peers": ["--only", "litequeue: synchronous=OFF"],
    "open": ["--only", "1,000 segments, kill -9 at full speed"],
    "providers": ["--only", "sqlite"],
    "read": ["--only", "frames of 10"],
    "catchup": ["--only", "frames of 1,000"],
    "write": ["--only", ": write(), provider away"],
}
WITH_KAFKA = {
    "kafka": ["--only", "buffer, kafka"],
    "baselines": ["--only", "kafka-python"],
    "acknowledged": ["--only", "kafka-python"],
}


def bench(*arguments: str, **environ: str) -> str:
    command = [sys.executable, "-m", "mbframework", "bench", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=os.environ | environ, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def options(name: str) -> list[str]:
    given = [(f"--{option.replace('_', '-')}", value) for option, value in QUICK[name].items()]
    return [text for option, value in given for text in (option, str(value))]


def check(name: str, output: str, folder: Path) -> dict[str, Any]:
    """What it printed is whole; of its budgets it measured one at least, and none of another benchmark."""
    found: dict[str, Any] = json.loads(output)
    assert found["name"] == name
    assert found["schema"] == 1
    assert {"machine", "python", "build", "file system", "mbframework"} <= set(found["machine"])
    for table in found["tables"]:
        assert table["rows"], table["title"]
        assert all(len(row) == len(table["headings"]) for row in table["rows"])
    cells = [cell for table in found["tables"] for row in table["rows"] for cell in row]
    assert "NO" not in cells
    assert not [remark for remark in found["remarks"] if "NOT BALANCE" in remark]
    theirs = {budget.name for budget in BUDGETS if budget.bench == name}
    measured = {each["name"] for each in found["measured"] if each["samples"]}
    assert measured <= theirs
    assert bool(measured) == bool(theirs)
    assert not list(folder.iterdir()), "the benchmark left something behind"
    return found


def test_there_is_a_quick_way_to_see_each_benchmark_run() -> None:
    assert set(QUICK) == set(BENCHMARKS)
    assert {budget.bench for budget in BUDGETS} <= set(BENCHMARKS)


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - set(WITH_KAFKA) - {"latency"}))
def test_a_benchmark_prints_tables_and_budgets(name: str, tmp_path: Path) -> None:
    output = bench(name, *options(name), *ONLY.get(name, ()), "--json", "--directory", str(tmp_path))
    check(name, output, tmp_path)


@pytest.mark.parametrize("name", WITH_KAFKA)
def test_a_benchmark_with_kafka_prints_tables_and_budgets(
    name: str, kafka_broker: KafkaBroker, tmp_path: Path
) -> None:  # fmt: skip
    environ = {ENVIRONMENT: kafka_broker.bootstrap}
    output = bench(name, *options(name), *WITH_KAFKA[name], "--json", "--directory", str(tmp_path), **environ)
    check(name, output, tmp_path)


def test_the_latency_through_outages_is_measured(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    """Outages are not for a broker that others use: here one is measured that stays up, by the same processes."""
    environ = {ENVIRONMENT: kafka_broker.bootstrap}
    short = ("--rounds", "1", "--seconds", "1", "--no-outages")
    output = bench("latency", *short, "--json", "--directory", str(tmp_path), **environ)
    found = check("latency", output, tmp_path)
    assert [row[0] for row in found["tables"][0]["rows"]] == [
        "MessageBuffer.write()", "KafkaProducer.send(), kafka-python", "os.write() to a file"
    ]  # fmt: skip


def test_results_are_kept_and_made_a_page_also_where_one_benchmark_fails(tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [sys.executable, "-m", "mbframework", "bench"]
    # Not a broker: the benchmark that needs one fails, and the other one runs.
    done = subprocess.run(
        [*command, "run", "baselines", "check", "--quick", "--results", str(results)],
        capture_output=True, text=True, timeout=90, check=False, env=os.environ | {ENVIRONMENT: "127.0.0.1:1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "mb bench baselines: no Kafka answers" in done.stderr
    assert [path.name for path in results.iterdir()] == ["check.json"]
    page = bench("report", "--results", str(results))
    assert "| `mb verify` |" in page
    assert "not measured; run: mb bench write" in page


def test_what_is_missing_is_said_with_what_to_install() -> None:
    missing = Setting("some-queue", "defaults", "no_such_queue", lambda folder: pytest.fail(folder)).missing
    assert missing == "some-queue is not installed; run: pip install 'mbframework[bench]'"
    assert OURS.missing == ""


def test_bad_usage_is_one_line(tmp_path: Path) -> None:
    for arguments, words in (
        (["report", "--results", str(tmp_path)], "there is nothing here"),
        (["write", "--rounds", "many"], "'many' is not a valid integer"),
        (["write", "--rounds", "0"], "0 is not in the range"),
        (["catchup", "--value", "a lot"], "'a lot'"),
        (["latency", "--calls", "shout", "--no-outages"], "expected some of write"),
        (["nonsense"], "No such command"),
    ):
        done = CliRunner().invoke(main, ["bench", *arguments])
        assert done.exit_code == 2
        assert words in done.output


def test_the_list_of_benchmarks_imports_none_of_them() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from mbframework.cli import main;"
        " print(CliRunner().invoke(main, ['bench', '--help']).output);"
        " print([name for name in sys.modules if name.startswith('mbframework.bench.')])"
    )
    output = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert all(f"  {name} " in output for name in BENCHMARKS)
    assert output.splitlines()[-1] == "[]"
