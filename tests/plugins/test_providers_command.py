from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from mbframework.cli import main
from tests.plugins.conftest import GOOD, Install

CHECK = """
    def check(self):
        from mbframework.provider import Health
        return Health({ok}, "hello " + (self.options.password or ""), {{"path": "\\x1b[2J"}})
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["providers", *arguments])


def test_the_list_shows_what_works_and_what_does_not(install: Install) -> None:
    install("a-queue", GOOD.replace("A queue.", "A \\x1b[31mred\\u202e queue."), providers="queue")
    install("a-broken-one", "import nothing_of_that_name", providers="broken")
    result = run()
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["queue"].split(None, 2)[1:] == ["ok", r"A \x1b[31mred\u202e queue."]
    assert "unusable" in lines["broken"]
    assert "nothing_of_that_name" in lines["broken"]


def test_json_has_every_option(install: Install) -> None:
    install("a-queue", GOOD, providers="queue")
    install("a-broken-one", "1 / 0", providers="broken")
    printed = json.loads(run("--json").stdout)
    assert printed["schema"] == 1
    found = {one["name"]: one for one in printed["providers"]}
    assert found["broken"]["status"] == "unusable"
    assert "ZeroDivisionError" in found["broken"]["error"]
    queue = found["queue"]
    assert (queue["distribution"], queue["version"], queue["status"], queue["error"]) == ("a-queue", "1.2", "ok", "")
    options = {option["name"]: option for option in queue["options"]}
    assert options["rate"] == {
        "name": "rate",
        "type": "a number",
        "default": 1.0,
        "required": False,
        "unit": "messages/s",
        "secret": False,
        "help": "Messages per second.",
        "part": "",
    }
    assert options["token"]["secret"]


def test_one_provider_is_shown_with_its_options(install: Install) -> None:
    install("a-queue", GOOD, providers="queue")
    text = run("queue").stdout
    assert "queue: A queue." in text
    assert "rate (messages/s): a number; default 1.0\n      Messages per second." in text
    assert "token (secret): text" in text
    unknown = run("quue")
    assert unknown.exit_code == 2
    assert "did you mean 'queue'?" in unknown.stderr
    assert unknown.stdout == ""


@pytest.mark.parametrize(("ok", "word", "status"), [(True, "ok", 0), (False, "failed", 1)])
def test_check_asks_the_provider_and_masks_secrets(install: Install, ok: bool, word: str, status: int) -> None:
    code = GOOD.replace("    def send", CHECK.format(ok=ok) + "\n    def send")
    install("a-queue", code, providers="queue")
    result = run("--check", "queue://u:hunter2@h")
    assert result.exit_code == status
    assert result.stdout == f"{word}  queue://u:***@h  hello ***\n    path: \\x1b[2J\n"
    found = json.loads(run("--json", "--check", "queue://u:hunter2@h").stdout)
    facts = {"path": "\x1b[2J"}
    assert found == {"schema": 1, "provider": "queue://u:***@h", "ok": ok, "detail": "hello ***", "facts": facts}


def test_a_check_that_raises_is_an_answer_and_a_wrong_url_an_error(install: Install) -> None:
    code = GOOD.replace(
        "    def send", "    def open(self, context):\n        raise OSError('no route')\n\n    def send"
    )
    install("a-queue", code, providers="queue")
    failed = run("--check", "queue://h")
    assert (failed.exit_code, failed.stdout) == (1, "failed  queue://h  OSError: no route\n")
    wrong = run("--check", "queue://u:hunter2@h?rate=fast")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "'rate': 'fast' is wrong" in wrong.stderr
    assert "hunter2" not in wrong.stderr
