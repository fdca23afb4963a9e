"""The pages on features, hooks and status say what is there: no more, no less."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import MessageBuffer, Sidecar
from mbframework.config import Config
from mbframework.plugins import hookspecs
from mbframework.plugins.source import resolve
from mbframework.status import STATES, BufferStatus, LaneStatus, SeekPosition
from tests.known_failures.conftest import FAST, WAIT_S, eventually

ROOT = Path(__file__).parents[1]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or above."""
    level = heading.split(" ", maxsplit=1)[0]
    body = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", body, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables' rows, those of the headings included."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|--")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def words(text: str) -> set[str]:
    """What stands in backticks."""
    return set(re.findall(r"`([^`]+)`", text))


# ---- features

#: What the original Go library has, and what stood on its list of things to do.
FEATURES = [
    "block on error",
    "error on error",
    "buffer on error",
    "always buffer",
    "live until the first error",
    "segments limited in age",
    "segments limited in size",
    "separate sender, same order",
    "resume by `S` file",
    "pruning at a total size",
    "provider interface: open",
    "provider interface: send",
    "provider interface: close",
    "provider interface: retry wait",
    "Kafka provider",
    "fake provider",
    "output delay",
    "injected error",
    "JSON configuration",
    "speed tests",
    "simulator page",
    "monitored channel",
    "return to live",
    "structured logging",
    "one connector per topic",
]
BUGS = [
    "resume lands inside a message",
    "`S` file deleted on opening",
    "stale digits in the `S` file",
    "a success after a retry does not count",
    "giving up on a message breaks the order",
    "two files in one second share a name",
    "the key is cut from the wrong text",
    "a newline is never decoded",
    "a tab shifts the columns",
    "an asynchronous Kafka error loses an earlier message",
    "never live again",
    "prunes every 30 minutes only",
    "a full disk is ignored",
    "no tests",
]
KNOWN_FAILURES = list(range(1, 22))


def names_of_tests(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


def test_every_feature_and_bug_of_the_original_is_named() -> None:
    text = page("features.md")
    assert [row[0] for row in rows(section(text, "## Features of the original"))[1:]] == FEATURES
    assert [row[0] for row in rows(section(text, "## Bugs of the original"))[1:]] == BUGS
    assert [int(row[0]) for row in rows(section(text, "## Known failures of other buffers"))[1:]] == KNOWN_FAILURES


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page("features.md"))
    assert len(named) >= len(FEATURES)
    missing = [f"{file}::{test}" for file, test in named if test not in names_of_tests(ROOT / file)]
    assert not missing


def test_every_row_names_a_test_or_what_comes_later() -> None:
    text = page("features.md")
    for heading in ("## Features of the original", "## Bugs of the original", "## Known failures of other buffers"):
        for row in rows(section(text, heading))[1:]:
            assert "::test_" in row[-1] or row[-1].startswith("Later: "), row[0]


@pytest.mark.parametrize("number", KNOWN_FAILURES)
def test_a_known_failure_is_shown_by_tests_of_its_number(number: int) -> None:
    files = sorted((ROOT / "tests" / "known_failures").glob("test_*.py"))
    ours = {f"{file.relative_to(ROOT)}::{test}" for file in files for test in names_of_tests(file)}
    ours = {name for name in ours if f"::test_{number:02}_" in name}
    (row,) = (row for row in rows(page("features.md")) if row[0] == str(number))
    assert ours
    assert words(row[-1]) <= ours


# ---- hooks


def hooks() -> Iterator[ast.FunctionDef]:
    tree = ast.parse(Path(hookspecs.__file__).read_text())
    return (node for node in tree.body if isinstance(node, ast.FunctionDef))


def signature(function: ast.FunctionDef) -> str:
    returns = "" if function.returns is None else f" -> {ast.unparse(function.returns)}"
    return f"{function.name}({ast.unparse(function.args)}){returns}"


def test_every_hook_is_documented_with_its_exact_signature() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", page("hooks.md"), re.MULTILINE | re.DOTALL)
    documented = [
        signature(node) for block in blocks for node in ast.parse(block).body if isinstance(node, ast.FunctionDef)
    ]
    assert sorted(documented) == sorted(signature(hook) for hook in hooks())


def test_every_hook_has_a_test() -> None:
    others = [file for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__)]
    # An observer's hook is tested by a function that implements it and is called; see also tests/test_hooks.py.
    sources = "\n".join(file.read_text() for file in others)
    untested = [hook.name for hook in hooks() if f"def {hook.name}(" not in sources]
    assert not untested


# ---- status


def names(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def documented(heading: str) -> set[str]:
    return words("\n".join(row[0] for row in rows(section(page("status.md"), heading))))


def test_every_field_of_the_status_is_documented() -> None:
    lane, buffer = section(page("status.md"), "## `mb status --json`").split("Each lane:")[::-1]
    assert words("\n".join(row[0] for row in rows(lane))) == names(LaneStatus) | {"balanced"}
    assert words("\n".join(row[0] for row in rows(buffer))) == names(BufferStatus) | {"schema"}
    assert names(SeekPosition) <= words(lane)


def test_every_state_is_documented() -> None:
    assert documented("## States") == set(STATES)


def keys(content: dict[str, Any]) -> set[str]:
    """All keys, those of tables of a fixed shape included."""
    nested = (content[name] for name in ("limits", "trouble", "traffic") if name in content)
    return set(content).union(*nested)


def test_every_field_of_the_status_files_is_documented(tmp_path: Path) -> None:
    both = words(section(page("status.md"), "## The status files").split("###")[0])
    text = {
        "writer": both | words(section(page("status.md"), "### `status.writer.json`")),
        "sender": both | words(section(page("status.md"), "### `status.sender.json`")),
    }
    broker = FakeBroker()
    lane = tmp_path / "buffer" / "main"

    def told(half: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((lane / f"status.{half}.json").read_text())
        return content

    found: dict[str, list[set[str]]] = {"writer": [], "sender": []}
    with MessageBuffer(tmp_path / "buffer", FakeProvider(broker), **FAST) as buffer:
        buffer.write("t", "1")
        buffer.flush(WAIT_S)
        eventually(lambda: told("writer")["state"] == "live", "the status files")
        for half, several in found.items():
            several.append(keys(told(half)))
    for half, several in found.items():
        several.append(keys(told(half)) - {"closed"})
    source = resolve(FakeProvider(broker))
    assert source is not None
    Sidecar(Config.layered(directory=str(tmp_path / "buffer"), **FAST), source).run(until_empty=True)
    found["sender"].append(keys(told("sender")) - {"closed"})
    for half, several in found.items():
        for each in several:
            assert each <= text[half]
        # What is documented is there, but for "closed" and what another process would tell.
        listed = documented(f"### `status.{half}.json`")
        assert listed <= several[0]


def test_every_kind_of_event_is_documented_with_its_fields() -> None:
    told: dict[str, set[str]] = {}
    for file in sorted((ROOT / "mbframework").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "tell"
            if is_call and node.args:
                assert isinstance(node.args[0], ast.Constant), f"{file}, line {node.lineno}: a kind is a literal"
                fields = told.setdefault(str(node.args[0].value), set())
                fields |= {str(keyword.arg) for keyword in node.keywords}
    table = rows(section(page("status.md"), "## Event lines"))[1:]
    assert {row[0].strip("`"): words(row[1]) for row in table} == told
