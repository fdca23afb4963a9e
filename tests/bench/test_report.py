"""What benchmarks have found, beside what is demanded, on a page and in a picture."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from mbframework.bench import BENCHMARKS
from mbframework.bench.budget import BUDGETS, BY_NAME, Budget, Measured
from mbframework.bench.catchup import sliced
from mbframework.bench.figures import median_and_doubt, number, percentile, ratios
from mbframework.bench.page import ELSEWHERE, filled, whole
from mbframework.bench.plot import drawn
from mbframework.bench.report import Report, budget_table
from mbframework.cli import main


@pytest.fixture
def reports() -> list[Report]:
    peers = Report("peers", machine={"machine": "two cores", "date": "2030-01-01", "load": "0.1"})
    table = peers.table("ns per message", "", "ns", "survives")
    table.add("write(), in C", "100", "yes", name="write(), in C", samples=[100.0, 90.0, 110.0], lost=0)
    table.add("a: fast|loses", "10", "NO", name="a: fast|loses", samples=[10.0], lost=5)
    table.add("a: <slow>", "1000", "yes", name="a: <slow>", samples=[1000.0], lost=0)
    peers.found("peers-c", [9.0, 10.0, 11.0], "the best other queue, a: <slow>")
    peers.missing("peers", "no reason")
    write = Report("write", machine={"machine": "two cores", "date": "2030-01-02", "load": "0.9"})
    write.found("write-c", [4.5])
    write.remarks.append("a remark")
    return [write, peers]


def test_a_budget_is_met_at_its_limit_and_missed_by_a_share_of_it() -> None:
    least, most = Budget("a", "b", "", "", "×", 6), Budget("a", "b", "", "", "ms", 20, at_most=True)
    assert (least.demanded, most.demanded) == ("≥ 6 ×", "≤ 20.0 ms")
    assert [least.verdict(value) for value in (6, 7, 4.5)] == ["met", "met", "missed by 25%"]
    assert [most.verdict(value) for value in (20, 0, 30)] == ["met", "met", "missed by 50%"]


def test_every_budget_of_a_name_and_benchmark_stands_once() -> None:
    assert len(BY_NAME) == len(BUDGETS)
    assert all(budget.limit > 0 for budget in BUDGETS)


def test_a_measure_is_the_median_and_shown_with_its_spread(reports: list[Report]) -> None:
    rows = {row[0]: row for row in budget_table(reports[1].measured).rows}
    assert rows["`write()`, C extension"] == [
        "`write()`, C extension", "the best other queue, a: <slow>", "10.0 ×", "9 … 11.0", "≥ 10.0 ×", "met"
    ]  # fmt: skip
    assert rows["`write()`, plain Python"][-1] == "not measured: no reason"


def test_a_whole_table_names_what_was_not_measured_and_the_command(reports: list[Report]) -> None:
    table = budget_table([each for report in reports for each in report.measured], everything=True)
    assert len(table.rows) == len(BUDGETS)
    assert "not measured; run: mb bench latency" in [row[-1] for row in table.rows]
    assert "missed by 25%" in [row[-1] for row in table.rows]


def test_a_report_is_read_back_as_it_was(reports: list[Report]) -> None:
    again = [Report.load(report.json()) for report in reports]
    assert [report.text() for report in again] == [report.text() for report in reports]
    for wrong in ("", "[]", "{}", '{"schema": 2}', '{"schema": 1, "nonsense": 3}'):
        with pytest.raises(ValueError):
            Report.load(wrong)


def test_a_page_gets_what_it_asks_for_and_keeps_the_rest(reports: list[Report]) -> None:
    page = "before\n<!-- mb bench: peers 1 -->\nold\n<!-- /mb bench -->\nafter\n<!-- mb bench: machine -->\n"
    page += "<!-- /mb bench -->"
    once = filled(page, reports)
    assert once.startswith("before\n<!-- mb bench: peers 1 -->\n\nns per message:\n\n|  | ns | survives |\n")
    assert "old" not in once
    assert "after" in once
    assert "fast\\|loses" in once
    assert "- date: 2030-01-02 (write); 2030-01-01 (peers)" in once
    assert "- load before the first benchmark: 0.9\n" in once
    assert filled(once, reports) == once
    other = page.replace("mb bench", ELSEWHERE)
    assert filled(other, reports, ELSEWHERE) == once.replace("mb bench", ELSEWHERE)
    strange = "<!-- measured: others 1 -->\nas it was\n<!-- /measured -->\n"
    assert filled(strange + other, reports, ELSEWHERE) == strange + filled(other, reports, ELSEWHERE)
    with pytest.raises(ValueError, match="nothing of write, peers"):
        filled(strange, reports, ELSEWHERE)
    some = filled("<!-- mb bench: peers a -->\n<!-- /mb bench -->", reports)
    assert [line for line in some.splitlines() if " | 10" in line] == [
        "| a: fast\\|loses | 10 | NO |",
        "| a: <slow> | 1000 | yes |",
    ]
    for wrong in (
        "nothing",
        "<!-- mb bench: peers 2 -->\n<!-- /mb bench -->",
        "<!-- mb bench: peers nobody -->\n<!-- /mb bench -->",
        "<!-- mb bench: open -->\n<!-- /mb bench -->",
    ):
        with pytest.raises(ValueError):
            filled(wrong, reports)


def test_the_short_table_says_what_is_missed_and_leaves_out_what_was_not_measured(reports: list[Report]) -> None:
    text = filled("<!-- mb bench: speed -->\n<!-- /mb bench -->", reports)
    assert [line for line in text.splitlines() if "`" in line] == [
        "| `write()`, C extension | 4.50 × | one `os.write()` a message | ≥ 6 ×: missed by 25% |",
        "| `write()`, C extension | 10.0 × | the best other queue, a: <slow> | ≥ 10.0 × |",
    ]


def test_everything_is_one_page(reports: list[Report]) -> None:
    text = whole(reports)
    assert text.index("## mb bench write") < text.index("a remark") < text.index("## mb bench peers")


def test_the_picture_shows_each_queue_at_its_fastest_that_survives(reports: list[Report]) -> None:
    root = ET.fromstring(drawn(reports))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:] == ["write(), in C", "10.0 M", "a: <slow>", "1 M"]
    widths = [float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.01)
    assert ET.fromstring(drawn([])) is not None


def test_results_are_put_into_pages_by_the_command(reports: list[Report], tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for report in reports:
        (results / f"{report.name}.json").write_text(report.json())
    page = tmp_path / "page.md"
    page.write_text("<!-- mb bench: budgets -->\n<!-- /mb bench -->\n")
    command = ["bench", "report", "--results", str(results)]
    done = CliRunner().invoke(main, [*command, "--into", str(page), "--plot", str(tmp_path / "plot.svg"), "--json"])
    assert done.exit_code == 0, done.output
    assert {each["name"]: each["value"] for each in json.loads(done.output)["figures"]}["write-c"] == 4.5
    assert "| `write()`, C extension |" in page.read_text()
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    (results / "write.json").write_text("{}")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "run it again: mb bench run" in done.output


def test_the_documents_ask_for_what_there_is() -> None:
    root = Path(__file__).parents[2]
    pages = [
        root / "README.md",
        *sorted((root / "docs").glob("*.md")),
        *sorted((root / "docs" / "providers").glob("*.md")),
    ]
    asked = [
        name for page in pages for name in re.findall(r"^<!-- mb bench: (.+?) -->$", page.read_text(), re.MULTILINE)
    ]
    assert {"budgets", "speed", "machine"} <= set(asked)
    assert {name.partition(" ")[0] for name in asked} - {"budgets", "speed", "machine"} == set(BENCHMARKS)


#: Pages that measure something, and what a figure looks like; promises and settings are said in whole seconds.
_MEASURING = ("monitoring.md", "observability.md", "dashboard.md", "providers/kafka.md", "providers/confluent.md")
_FIGURE = re.compile(
    r"\d[\d,.]* (?:[mµn]s\b|[KMG]i?B/s|(?:messages|msg) ?(?:/s|a second)|% (?:of a core|slower|faster|below)"
    r"|[KMG]i?B of memory)|some \d+ (?:instead|s\b)"
)
_MARKED = re.compile(r"^<!-- (mb bench|measured): (.+?) -->$(.*?)^<!-- /\1 -->$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", _MEASURING)
def test_a_page_has_no_figure_that_a_command_did_not_print(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / name).read_text()
    assert page.count("<!-- /") == len(_MARKED.findall(page)) > 0
    assert not [match[0] for match in _FIGURE.finditer(_MARKED.sub("", page))]


def test_pages_ask_the_commands_of_a_clone_for_tables_they_have() -> None:
    docs = Path(__file__).parents[2] / "docs"
    asked = {
        (page.name, found[1]) for page in docs.rglob("*.md") for found in _MARKED.findall(page.read_text())
        if found[0] == "measured"
    }  # fmt: skip
    names = {name.partition(" ")[0] for _, name in asked}
    assert {"dashboard", "monitor", "scale"} <= names <= {"dashboard", "monitor", "scale", "profile", "machine"}


def test_numbers_have_the_digits_that_are_worth_reading() -> None:
    assert [number(value) for value in (0, 0.123, 0.996, 1, 1.234, 12.34, 99.6, 1234.5)] == [
        "0", "0.12", "1", "1", "1.23", "12.3", "100", "1,234"
    ]  # fmt: skip
    assert number(-0.5) == "-0.50"


def test_a_ratio_is_formed_within_a_round() -> None:
    assert ratios([10.0, 40.0], [5.0, 10.0]) == [2.0, 4.0]
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


def test_messages_are_counted_in_whole_slices_of_time() -> None:
    assert sliced([(5.0, 1), (5.05, 2), (5.25, 4), (5.31, 8)], 0.1) == [3, 0, 4]
    assert sliced([(5.0, 3)], 0.1) == [3]


def test_a_percentile_is_a_sample_and_no_smaller_than_its_share() -> None:
    ordered = [float(n) for n in range(1, 1001)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]
    assert percentile([7.0], 0.999) == 7


def test_the_doubt_of_a_median_shrinks_with_the_number_of_samples() -> None:
    assert median_and_doubt([5.0, -1.0, 2.0]) == "+2.0 (-1.0 … +5.0)"
    assert median_and_doubt([float(n) for n in range(101)], 0) == "+50 (+40 … +61)"
    assert median_and_doubt([]) == "-"


def test_what_was_measured_is_a_median() -> None:
    assert Measured("write", [3.0, 1.0, 2.0]).value == 2.0
