"""What is in the wheel, and that it works where only the wheel and its base requirements are installed."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from email.message import Message
from pathlib import Path

import pytest

from tests.packaging.conftest import base_requirements, build

PACKAGES = {
    "mbframework",
    "mbframework_confluent",
    "mbframework_fake",
    "mbframework_fault",
    "mbframework_file",
    "mbframework_http",
    "mbframework_kafka",
    "mbframework_nats",
    "mbframework_postgres",
    "mbframework_redis",
    "mbframework_rabbitmq",
    "mbframework_mqtt",
    "mbframework_sqlite",
    "mbtui",
}
#: What `mb new-provider` makes a project of.
TEMPLATES = (
    *("README.md", "gitignore", "pyproject.toml", "tests/line_server.py", "tests/test_conformance.py"),
    *(f"src/package/{name}" for name in ("__init__.py", "connection.py", "provider.py", "py.typed")),
)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=60, env={}
    )


def below(names: Iterable[str]) -> set[str]:
    return {name.partition("/")[0] for name in names}


def test_top_level_names(wheel: Path, metadata: Message) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert below(names) == PACKAGES | {f"mbframework-{metadata['Version']}.dist-info"}
    assert {name for name in names if not name.endswith((".py", ".so")) and ".dist-info/" not in name} == {
        "mbframework/_speedups.pyi",
        "mbframework_kafka/_speedups.pyi",
        *(f"mbframework/cli/templates/provider/{name}.in" for name in TEMPLATES),
        "mbframework/py.typed",
        "mbtui/simulator.tcss",
        *(f"mbtui/web_page/{name}" for name in ("index.html", "page.css", "page.js")),
    }


def test_metadata(wheel: Path, metadata: Message) -> None:
    assert base_requirements(metadata) == ["click", "pluggy"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        *(
            "kafka",
            "confluent",
            "redis",
            "nats",
            "rabbitmq",
            "mqtt",
            "postgres",
            "http",
            "sqlite",
            "file",
            "fake",
            "fault",
        ),
        *("tui", "web", "prometheus", "otel", "testing", "bench", "all", "dev"),
    }
    with zipfile.ZipFile(wheel) as archive:
        folder = f"mbframework-{metadata['Version']}.dist-info"
        assert "Apache License" in archive.read(f"{folder}/licenses/LICENSE").decode()
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    assert set(entry_points.split("\n")) - {""} == {
        "[console_scripts]",
        "mb = mbframework.__main__:main",
        "mbtui = mbtui:main",
        "[mbframework.providers]",
        "amqp = mbframework_rabbitmq",
        "amqps = mbframework_rabbitmq",
        "confluent = mbframework_confluent",
        "fake = mbframework_fake",
        "fault = mbframework_fault",
        "file = mbframework_file",
        "http = mbframework_http",
        "https = mbframework_http",
        "kafka = mbframework_kafka",
        "nats = mbframework_nats",
        "postgres = mbframework_postgres",
        "postgresql = mbframework_postgres",
        "redis = mbframework_redis",
        "rediss = mbframework_redis",
        "rabbitmq = mbframework_rabbitmq",
        "mqtt = mbframework_mqtt",
        "mqtts = mbframework_mqtt",
        "sqlite = mbframework_sqlite",
    }


def test_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    again, source = build(tmp_path / "both")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"LICENSE", "README.md", "Makefile", ".ci/run", "tests/packaging/test_wheel.py", "docs/index.md"}
    assert not any("__pycache__" in name or name.startswith((".venv", "docs/_build")) for name in names)


@pytest.mark.parametrize("command", [("mb",), ("python", "-m", "mbframework")], ids=["mb", "python -m mbframework"])
def test_command_line(installed: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    program, *rest = command
    done = run(installed / program, *rest, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "send", "drain", "status", "providers"):
        assert re.search(rf"^  {name}\b", done.stdout, re.MULTILINE), done.stdout


def test_providers_are_found_by_entry_point(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "mb", "providers", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listing = json.dumps(json.loads(done.stdout))
    for name in (
        "kafka",
        "confluent",
        "redis",
        "nats",
        "rabbitmq",
        "mqtt",
        "postgres",
        "http",
        "sqlite",
        "file",
        "fake",
        "fault",
    ):
        assert f'"{name}"' in listing


def test_missing_client_library_names_the_command_that_installs_it(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "mb", "send", "outbox", "topic", "--provider", "kafka://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode != 0
    assert "pip install 'mbframework[kafka]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outbox").exists()


def test_dashboard_without_its_extra(installed: Path, tmp_path: Path) -> None:
    for command in (["mbtui"], ["python", "-m", "mbtui"]):
        done = run(installed / command[0], *command[1:], cwd=tmp_path)
        assert done.returncode == 2
        assert "pip install 'mbframework[tui]'" in done.stderr
        assert "Traceback" not in done.stderr
