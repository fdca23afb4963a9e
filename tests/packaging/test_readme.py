"""README.md and docs/tutorial.md do what they say: their programs and commands run, in order, in one folder.

A fenced block is run where its language is ``python``, ``console`` or ``sh``. In ``console``, lines after a
command are what it must print. A comment on the line before a block says more: ``<!-- needs: kafka -->`` runs
it, with the rest of its document, where a real broker is there; ``<!-- file: name -->`` saves it under that name
instead.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import pytest

from mbframework.testing.kafka import KafkaBroker

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/tutorial.md")

#: The broker's address in the documents.
KAFKA = "127.0.0.1:9092"

BLOCK = re.compile(r"(?:^<!-- (needs|file): (\S+) -->\n)?^```(python|console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    where: str
    language: str
    text: str
    needs: str
    file: str


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


def run_document(document: str, folder: Path, kafka: str = "") -> None:
    """Run all blocks, those that need Kafka only where its address is given."""
    for block in blocks(document):
        if block.file:
            (folder / block.file).write_text(block.text)
        elif block.needs and not kafka:
            continue
        elif block.language == "python":
            text = block.text.replace(KAFKA, kafka) if kafka else block.text
            run([sys.executable, "-c", text], folder, block.where)
        elif block.language == "sh":
            run(["sh", "-e", "-c", block.text], folder, block.where)
        else:
            for command, output in commands(block.text):
                printed = run_command(command, folder, block.where)
                assert not output or printed == output, f"{block.where}: {command}"


def run_command(command: str, folder: Path, where: str) -> str:
    words = shlex.split(command, comments=True)
    if words[:2] == ["pip", "install"]:
        check_requirement(words[2])
        return ""
    if words[0] == "make":
        return run_make(words[1], where)
    return run(["sh", "-c", command], folder, where)


def check_requirement(requirement: str) -> None:
    """It is this project, with extras that it has."""
    match = re.fullmatch(r"mbframework(?:\[(\w+)\])?", requirement)
    assert match, requirement
    assert match[1] is None or match[1] in metadata("mbframework").get_all("Provides-Extra", [])


def run_make(target: str, where: str) -> str:
    """The demo runs with what is installed here; a whole test run inside of a test only has its steps listed."""
    stamp = Path(sys.prefix, ".installed")
    options = [f"VENV={sys.prefix}", f"--old-file={stamp}"] if target == "demo" else ["--dry-run"]
    return run(["make", "--no-print-directory", *options, target], ROOT, where)


def run(command: list[str], folder: Path, where: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MBFRAMEWORK_", "MAKE"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, f"{where}: {command[-1]}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, f"{where}: {command[-1]}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_shown_works(document: str, tmp_path: Path) -> None:
    run_document(document, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_shown_works_with_kafka(document: str, tmp_path: Path, kafka_broker: KafkaBroker) -> None:
    assert any(block.needs == "kafka" for block in blocks(document))
    run_document(document, tmp_path, kafka_broker.bootstrap)


@pytest.mark.parametrize(
    "document", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
)
def test_links_between_files_lead_somewhere(document: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (ROOT / document).parent.joinpath(link).exists()]
    assert missing == []
