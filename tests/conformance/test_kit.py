"""The kit finds what it is to find: a good provider keeps every rule, and each bad one breaks its rule and no other.

The kit runs in processes of their own, on providers that are installed as pip would do it.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from mbframework.testing.conformance import ProviderContract
from mbframework.testing.conformance.verdict import examine, in_words, not_a_suffix

HERE = Path(__file__).parent
RULES = {name for name in dir(ProviderContract) if name.startswith("test_")}
#: Flaws run together in one process: to start one takes as long as most of them do.
PORTION = 24
ENTRY_POINTS = """[mbframework.providers]
reference = kit_reference
silent = kit_declarations:silent
bare = kit_declarations:bare
eager = kit_eager
"""


def flaws() -> dict[str, str]:
    """Flaw → the rule that it breaks, as kit_flaws.py says; read, since importing needs the installation."""
    parsed = ast.parse((HERE / "kit_flaws.py").read_text())
    found = {
        node.name: str(ast.literal_eval(decorator.args[0]))
        for node in parsed.body
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
    }
    [declarations] = (
        ast.literal_eval(node.value)
        for node in parsed.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DECLARATIONS"
    )
    return found | declarations


class Ran(NamedTuple):
    """Test class → rules that failed, with what they said; and what pytest printed."""

    broken: dict[str, dict[str, str]]
    skipped: dict[str, dict[str, str]]
    output: str


@pytest.fixture
def installed(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a Python that has the kit's own providers."""
    info = tmp_path / "kit-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(HERE)])}


def run(installed: Mapping[str, str], folder: Path, names: list[str]) -> Ran:
    """The kit on these providers, with every warning an error, as strict projects have it."""
    report = folder / "report.xml"
    settings = folder / "pytest.ini"
    settings.write_text("[pytest]\naddopts = --strict-markers --strict-config\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(settings)]
    # Not with the conftest of the tests around them, which minds leaks itself.
    command += [f"--rootdir={HERE}", f"--confcutdir={HERE}"]
    tests = [f"{HERE / 'kit_suite.py'}::Test{name}" for name in names]
    ran = subprocess.run(
        [*command, f"--basetemp={folder / 'temp'}", f"--junitxml={report}", *tests],
        check=False, capture_output=True, text=True, env=dict(installed), cwd=folder,
    )  # fmt: skip
    assert report.exists(), ran.stdout + ran.stderr
    broken: dict[str, dict[str, str]] = {name: {} for name in names}
    skipped: dict[str, dict[str, str]] = {name: {} for name in names}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("classname", "").rpartition(".")[2].removeprefix("Test")
        for child in case:
            found = {"failure": broken, "error": broken, "skipped": skipped}.get(child.tag)
            if found is not None:
                found[name][case.get("name", "")] = child.get("message", "")
    return Ran(broken, skipped, ran.stdout)


@pytest.mark.timeout(400)
def test_a_good_provider_keeps_every_rule(installed: Mapping[str, str], tmp_path: Path) -> None:
    ran = run(installed, tmp_path, ["Reference", "ReferenceWithPosition"])
    assert ran.broken == {"Reference": {}, "ReferenceWithPosition": {}}, ran.output
    # "Eager" declares a requirement.
    assert set(ran.skipped["ReferenceWithPosition"]) == {"test_declaring_imports_no_client"}
    assert "ReferenceWithPosition: 50 rules kept, 0 broken, 1 not tested" in ran.output


@pytest.mark.timeout(400)
@pytest.mark.parametrize("start", range(0, len(flaws()), PORTION))
def test_each_bad_provider_breaks_its_rule_and_no_other(
    installed: Mapping[str, str], tmp_path: Path, start: int
) -> None:
    expected = dict(list(flaws().items())[start : start + PORTION])
    ran = run(installed, tmp_path, list(expected))
    assert {name: set(rules) for name, rules in ran.broken.items()} == {n: {rule} for n, rule in expected.items()}, (
        ran.output
    )


def test_every_rule_has_a_bad_provider() -> None:
    assert set(flaws().values()) == RULES


def test_what_is_not_supplied_is_skipped_and_named(tmp_path: Path) -> None:
    (tmp_path / "test_bare.py").write_text(
        "from mbframework.testing.conformance import ProviderContract\n"
        'pytest_plugins = ["mbframework.testing.conformance"]\n'
        "class TestBare(ProviderContract):\n"
        "    def arrived(self):\n"
        "        return []\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bare.py"]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert f"TestBare: 0 rules kept, 0 broken, {len(RULES)} not tested" in ran.stdout, ran.stdout
    assert "needs url(): the provider's URL for this test's destination" in ran.stdout
    for hooks in (
        "take_down() and bring_up()",
        "freeze() and thaw()",
        "make_rejected()",
        "unusable_url()",
        "keeps_position",
    ):
        assert hooks in ran.stdout, ran.stdout


def test_the_verdict_tells_what_became_of_messages() -> None:
    sent: dict[bytes | None, int] = {b"1": 1, b"2": 2, b"3": 3, b"4": 4}

    def wrong(*arrived: bytes) -> str:
        return in_words(examine(sent, arrived, lambda sequence: sequence % 2))

    assert not wrong(b"1", b"2", b"3", b"4")
    assert not wrong(b"2", b"1", b"4", b"3")
    assert wrong(b"3", b"1", b"2", b"4") == "out of order: 1 after 3"
    assert wrong(b"1", b"2", b"1", b"4", b"5") == (
        "did not arrive: 3; arrived and was never sent: b'5'; arrived more than once: 1"
    )
    # A repeat may stand behind later ones: what counts is when each arrived first.
    findings = examine(sent, [b"1", b"3", b"1", b"3", b"2", b"4"], lambda _: 0)
    assert findings.overtaken == ((2, 3),)
    assert in_words(findings, may_repeat={1, 3}) == "out of order: 2 after 3"


def test_undelivered_messages_are_a_suffix_of_their_domain() -> None:
    assert not not_a_suffix({3, 4}, [1, 2, 3, 4], lambda _: 0)
    assert not not_a_suffix({3}, [1, 2, 3, 4], lambda sequence: sequence % 2)
    assert "message 4 counts as delivered, behind message 3" in not_a_suffix({3}, [1, 2, 3, 4], lambda _: 0)
