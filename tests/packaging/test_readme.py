"""The programs and commands in the documents below do what is shown: they run, in order, in one folder.

A fenced block is run where its language is ``python``, ``console`` or ``sh``. In ``console``, lines after a
command are what it must print; where one of them is ``…`` they are an excerpt: lines in this order, with any numbers,
and any end after a ``…``. A comment on the line before a block says more: ``<!-- needs: kafka -->`` runs
it against a real broker, ``<!-- needs: tui -->`` with that extra, ``<!-- file: name -->`` saves it, in any language,
under that name instead.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

from mbframework.cli.demo import demo
from mbframework.testing.kafka import KafkaBroker
from tests.packaging.conftest import ROOT

DOCUMENTS = ("README.md", "docs/tutorial.md", "docs/migration.md", "docs/lanes.md")
WITH_KAFKA = ("README.md", "docs/tutorial.md")

#: The broker's address in the documents.
KAFKA = "127.0.0.1:9092"

BLOCK = re.compile(r"(?:^<!-- (needs|file): (\S+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    where: str
    language: str
    text: str
    needs: str
    file: str


@dataclass(frozen=True)
class Setting:
    """Where commands run, whose programs they call, and what they need to know of this project."""

    folder: Path
    programs: Path
    clone: Path
    extras: frozenset[str]


@pytest.fixture
def setting(tmp_path: Path, installed: Path, clone: Path, metadata: Message) -> Setting:
    return Setting(tmp_path, installed, clone, frozenset(metadata.get_all("Provides-Extra", [])))


def blocks(document: str) -> Iterator[Block]:
    source = (ROOT / document).read_text()
    for match in BLOCK.finditer(source):
        remark, name, language, text = match.groups()
        line = source.count("\n", 0, match.start(3)) + 1
        needs, file = (name if remark == each else "" for each in ("needs", "file"))
        yield Block(f"{document}, line {line}", language, text, needs, file)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a ``console`` block, each with the output that is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def run_block(block: Block, setting: Setting) -> None:
    if block.file:
        file = setting.folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
    elif block.language == "python":
        run(["python", "-c", block.text], setting, block.where)
    elif block.language == "sh":
        run(["sh", "-e", "-c", block.text], setting, block.where)
    elif block.language == "console":
        for command, output in commands(block.text):
            printed = run_command(command, setting, block.where)
            assert not output or shows(output, printed), f"{block.where}: {command}\n{printed}"


def run_command(command: str, setting: Setting, where: str) -> str:
    words = shlex.split(command, comments=True)
    if words[:2] == ["pip", "install"]:
        check_requirement(words[2], setting)
        return ""
    if words[0] == "make":
        # A whole test run inside of a test only has its steps listed.
        options = [] if words[1] == "demo" else ["--dry-run"]
        return run(["sh", "-c", 'make --no-print-directory -C "$@" 2>&1', "", str(setting.clone), *options, words[1]],
                   setting, where)  # fmt: skip
    if words[:2] == ["mb", "demo"]:
        # Against a broker it takes its time: tests/cli does that. Here it is seen that such options exist.
        demo.make_context("mb demo", words[2:])
        return ""
    return run(["sh", "-c", command], setting, where)


def check_requirement(requirement: str, setting: Setting) -> None:
    """It is this project, with extras that it has."""
    match = re.fullmatch(r"\.(?:\[(\w+)\])?", requirement)
    assert match, requirement
    assert match[1] is None or match[1] in setting.extras


def run(command: list[str], setting: Setting, where: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MBFRAMEWORK_", "MAKE"))}
    env["PATH"] = f"{setting.programs}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        command, cwd=setting.folder, env=env, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, f"{where}: {command[-1]}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr, f"{where}: {command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def shows(output: str, printed: str) -> bool:
    """Whether ``output`` is what was ``printed``, or an excerpt of it."""
    lines = output.splitlines()
    if "…" not in lines:
        return output == printed
    rest = iter([plain(line) for line in printed.splitlines()])
    return all(any(agrees(plain(wanted), line) for line in rest) for wanted in lines if wanted != "…")


def agrees(wanted: str, line: str) -> bool:
    return line.startswith(wanted[:-1]) if wanted.endswith("…") else line == wanted


def plain(line: str) -> str:
    """The line without its numbers, nor what depends on them."""
    return re.sub(r"\bfiles\b", "file", re.sub(r"\d[\d,.]*", "0", " ".join(line.split())))


def test_an_excerpt_is_told_from_what_is_not() -> None:
    printed = "1. Live\n   live   10 files\n   buffering   1 file\nlost 0\n"
    assert shows("…\n   live   2,000 files\n…\nlost 7\n", printed)
    assert not shows("…\n   buffering   1 file\n   live   1 file\n", printed)
    assert shows("…\n1. …\n", printed)
    assert not shows("…\ndraining\n", printed)
    assert not shows("…\nlive\n", printed)
    assert not shows("lost 0\n", printed)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_shown_works(document: str, setting: Setting) -> None:
    """With what the base installation has, and nothing else but where a block says so."""
    for block in blocks(document):
        if not block.needs:
            run_block(block, setting)
        elif block.needs in setting.extras - {"kafka"}:
            run_block(block, with_all_extras(setting))


@pytest.mark.parametrize("document", WITH_KAFKA)
def test_what_is_shown_works_with_kafka(document: str, setting: Setting, kafka_broker: KafkaBroker) -> None:
    needing = [block for block in blocks(document) if block.needs == "kafka"]
    assert needing
    for block in needing:
        text = block.text.replace(KAFKA, kafka_broker.bootstrap)
        run_block(Block(block.where, block.language, text, "", ""), with_all_extras(setting))


def with_all_extras(setting: Setting) -> Setting:
    return Setting(setting.folder, Path(sys.executable).parent, setting.clone, setting.extras)


@pytest.mark.parametrize(
    "document", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_links_between_files_lead_somewhere(document: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []
