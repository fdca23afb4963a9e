"""Throw-away distributions: what pip would have installed, made in a folder on ``sys.path``."""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., str]

#: A provider that works, to be changed by ``str.replace``.
GOOD = """
from collections.abc import Mapping
from dataclasses import dataclass
from mbframework.plugins import ProviderType, hookimpl, option
from mbframework.provider import Provider

@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    hosts: tuple[str, ...] = option(("localhost",), part="hosts")
    username: str | None = option(None, part="username")
    password: str | None = option(None, part="password")
    rate: float = option(1.0, help="Messages per second.", unit="messages/s")
    token: str | None = option(None, secret=True)
    client: Mapping[str, str] = option(factory=dict, part="client")

class Queue(Provider):
    def __init__(self, options):
        self.options = options

    def send(self, batch):
        pass

@hookimpl
def mbframework_provider():
    return ProviderType(api=1, name="queue", options=Options, factory=Queue, summary="A queue.")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    numbers = itertools.count()
    modules: list[str] = []

    def install(
        distribution: str,
        code: str = "",
        *,
        version: str = "1.2",
        value: str = "{module}",
        requires: str = "",
        **entries: str,
    ) -> str:
        """Bring ``code`` as a module, and an entry point for each keyword (group ``providers`` or ``observers``).

        Returns the module's name, which is new each time.
        """
        number = next(numbers)
        module = f"thirdparty_{tmp_path.name.replace('-', '_')}_{number}"
        modules.append(module)
        site = tmp_path / f"site{number}"
        info = site / f"{re.sub('[-_.]+', '_', distribution).lower()}-{version}.dist-info"
        info.mkdir(parents=True)
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}")
        lines = [f"[mbframework.{group}]\n{name} = {value.format(module=module)}\n" for group, name in entries.items()]
        (info / "entry_points.txt").write_text("".join(lines))
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(site))
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)
