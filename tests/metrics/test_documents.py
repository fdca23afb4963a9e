"""The page on observability, the alert rules and the dashboard speak of metrics that are there, in expressions that are
well formed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mbframework.config import MODES
from mbframework.metrics.catalogue import METRICS, REASONS
from mbframework.status import STATES
from tests.test_docs import rows, section

# It comes with the documentation's tools.
yaml = pytest.importorskip("yaml")

DOCS = Path(__file__).parents[2] / "docs"
NAMED = {metric.name: metric for metric in METRICS}
VALUES = {"reason": REASONS, "state": STATES, "mode": MODES}

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
PAIRS = {")": "(", "]": "[", "}": "{"}


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((DOCS / "alerts.yml").read_text())
    assert set(content) == {"groups"}
    return [rule for group in content["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DOCS / "grafana.json").read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def check_expression(expression: str) -> None:
    """Brackets are closed in order; metrics, their labels, and the values of those are there."""
    left: list[str] = []
    for character in STRING.sub("", expression):
        if character in PAIRS.values():
            left.append(character)
        elif character in PAIRS:
            assert left, expression
            assert left.pop() == PAIRS[character], expression
    assert left == [], expression
    assert expression.count('"') % 2 == 0
    names = set(re.findall(r"\bmbframework_\w+", expression))
    assert names or expression.startswith("vector"), expression
    assert names <= set(NAMED), expression
    for name, matchers in SELECTOR.findall(expression):
        assert MATCHER.sub("", matchers).strip(", ") == "", expression
        for label, operator, value in MATCHER.findall(matchers):
            assert label in NAMED[name].labels, expression
            if label in VALUES:
                values = value.split("|") if "~" in operator else [value]
                assert set(values) <= set(VALUES[label]), expression


def test_every_expression_is_well_formed() -> None:
    found = list(expressions())
    assert len(found) >= 25
    for _, expression in found:
        check_expression(expression)


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(mbframework_up",
        "mbframework_up)",
        "rate(mbframework_up[5m)]",
        "mbframework_down == 0",
        'mbframework_up{lane="main"}',
        'mbframework_state{state="alive"}',
        "mbframework_state{state=live}",
        'mbframework_discarded_messages_total{reason=~"pruned|gone"}',
        "1 + 1",
    ],
)
def test_what_is_not_is_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_expression(wrong)


def test_counters_are_used_as_counters_and_nothing_else_is() -> None:
    for _, expression in expressions():
        for function, name in re.findall(r"\b(rate|increase)\((\w+)", expression):
            assert NAMED[name].kind == "counter", f"{function} of {name}"
        for name in re.findall(r"mbframework_\w+_total", expression):
            assert re.search(rf"(rate|increase)\({name}", expression), expression


def anchors() -> set[str]:
    headings = re.findall(r"^## (.+)$", (DOCS / "runbook.md").read_text(), re.MULTILINE)
    return {heading.lower().replace(" ", "-") for heading in headings}


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["annotations"]["runbook"] in anchors(), rule["alert"]
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert used <= {"directory", "lane"}
    states = {state for rule in found for state in STATES if f'state="{state}"' in rule["expr"]}
    # The others are an outage and its end, which ages and numbers are for.
    assert states == set(STATES) - {"live", "buffering", "draining"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(DOCS / "alerts.yml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_can_be_laid_out() -> None:
    content = json.loads((DOCS / "grafana.json").read_text())
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert panel["description"]
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    variables = {variable["name"] for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(content)))
    assert used - {"__rate_interval", "__range", "__all"} == variables
    (timeline,) = (panel for panel in panels() if panel["type"] == "state-timeline")
    (mapping,) = timeline["fieldConfig"]["defaults"]["mappings"]
    told = [option["text"] for option in mapping["options"].values()]
    assert sorted(told) == sorted(STATES)
    for number, state in enumerate(told):
        assert f'state="{state}"}} == 1) * {number}' in timeline["targets"][0]["expr"]


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    text = (DOCS / "observability.md").read_text()
    table = rows(section(text, "## Metrics"))
    found = {row[0].strip("`"): (row[1], tuple(re.findall(r"\w+", row[2]))) for row in table if row[0].startswith("`")}
    assert found == {metric.name: (metric.kind, metric.labels) for metric in METRICS}
    for reason in REASONS:
        assert f"`{reason}`" in text
    # Elsewhere on the page, too, only these are named.
    assert set(re.findall(r"mbframework_\w+", text)) <= set(NAMED)


@pytest.mark.parametrize("number", [0, 1])
def test_the_programs_on_the_page_run(tmp_path: Path, number: int) -> None:
    programs = re.findall(r"^```python\n(.*?)^```$", (DOCS / "observability.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(programs) == 2
    # The port of the page may be in use.
    program = programs[number].replace("start_http_server(9464", "start_http_server(0")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "outbox" / "buffer.json").exists()


def test_every_option_of_check_is_documented_with_its_default() -> None:
    from mbframework.cli.check import check

    table = {
        row[0].strip("`"): row[1].strip("`") for row in rows(section((DOCS / "cli.md").read_text(), "## mb check"))
    }
    for option in check.params:
        if option.metavar == "W,C":
            assert table.pop(option.opts[0]) == option.default
    assert not [name for name in table if name.startswith("--")]
