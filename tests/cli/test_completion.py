"""``mb completion``: a shell that has run the script completes commands, and nothing heavy is imported before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(mb: Run, shell: str) -> None:
    done = mb("completion", shell)
    assert done.returncode == 0
    assert b"_MB_COMPLETE" in done.stdout
    assert mb("completion", "tcsh").returncode == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(mb: Run, tmp_path: Path) -> None:
    (tmp_path / "mb").write_text(f'#!{sys.executable}\nfrom mbframework.cli import main\nmain(prog_name="mb")\n')
    (tmp_path / "mb").chmod(0o755)
    (tmp_path / "script").write_bytes(mb("completion", "bash").stdout)
    commands = (
        f'PATH="{tmp_path}:$PATH"; complete() {{ :; }}; source script; COMP_WORDS=(mb ver); COMP_CWORD=1; '
        '_mb_completion mb; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", commands], cwd=tmp_path, capture_output=True, check=False, timeout=30)
    assert done.stdout.split() == [b"verify"], done.stderr


def test_status_imports_none_of_the_others() -> None:
    code = (
        "import sys, mbframework.cli as cli; cli.main.get_command(None, 'status'); "
        "print([name for name in ('browse', 'verify', 'repair', 'transfer', 'scan') "
        "if f'mbframework.{name}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"
