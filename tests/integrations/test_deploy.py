"""What docs/deploy has for systemd and Kubernetes is well-formed, hangs together, and calls commands that exist."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from mbframework import MessageBuffer
from mbframework.cli import main
from mbframework.config import Config
from tests.engine.rig import eventually

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
UNIT, WAITS = DEPLOY / "mb-drain@.service", DEPLOY / "mb-drain@.path"
#: The keys that systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5) and systemd.path(5) know in a
#: section, as far as units like ours have use for them.
KEYS = {
    "Unit": """After Before BindsTo ConditionPathExists ConditionPathIsDirectory Conflicts Description Documentation
        OnFailure PartOf Requires StartLimitAction StartLimitBurst StartLimitIntervalSec Wants""",
    "Service": """CapabilityBoundingSet Environment EnvironmentFile ExecReload ExecStart ExecStartPost ExecStartPre
        ExecStop FinalKillSignal Group KillMode KillSignal LimitNOFILE LockPersonality MemoryDenyWriteExecute MemoryMax
        Nice NoNewPrivileges PIDFile PrivateDevices PrivateTmp ProtectControlGroups ProtectHome ProtectKernelModules
        ProtectKernelTunables ProtectSystem ReadOnlyPaths ReadWritePaths RemainAfterExit Restart RestartSec
        RestrictAddressFamilies RestrictNamespaces RestrictRealtime RuntimeDirectory StandardError StandardOutput
        StateDirectory SuccessExitStatus SupplementaryGroups SyslogIdentifier SystemCallFilter TimeoutStartSec
        TimeoutStopSec Type UMask User WatchdogSec WorkingDirectory""",
    "Path": "DirectoryMode DirectoryNotEmpty MakeDirectory PathChanged PathExists PathExistsGlob PathModified Unit",
    "Install": "Alias Also DefaultInstance RequiredBy WantedBy",
}


def check_command(words: list[str]) -> None:
    """That ``mb`` takes these words. Raises what click says otherwise."""
    assert Path(words[0]).name == "mb"
    with click.Context(main) as context:
        assert isinstance(main, click.Group)
        command = main.get_command(context, words[1])
        assert command is not None, words
        command.make_context(words[1], list(words[2:]), parent=context).close()


def settings(unit: Path = UNIT) -> dict[str, str]:
    """All of a unit. Raises what configparser says where it is none: keys and sections must not come twice."""
    parser = configparser.ConfigParser(delimiters="=", comment_prefixes="#", interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # upper and lower case differ
    parser.read_string(unit.read_text())
    found: dict[str, str] = {}
    for section in parser.sections():
        strange = parser[section].keys() - set(KEYS[section].split())
        assert not strange, f"[{section}] of {unit.name} has keys that systemd does not know there: {strange}"
        found |= parser[section]
    return found


def test_the_units_are_some(tmp_path: Path) -> None:
    assert settings(UNIT)["Type"] == "exec"
    assert settings(WAITS)["Unit"] == UNIT.name.replace("@", "@%i")
    # What knows all of systemd's keys and values, where it is installed.
    verify = shutil.which("systemd-analyze")
    if verify is None:
        return
    # The program is somewhere else here, and the user is none of this machine.
    unit = UNIT.read_text().replace("/usr/bin/mb", "/bin/true").replace("User=mbframework", "User=root")
    (tmp_path / "mb-drain@.service").write_text(unit.replace("Group=mbframework", "Group=root"))
    # An instance of the template, as systemctl would name it.
    shutil.copy(WAITS, tmp_path)
    instances = [tmp_path / f"mb-drain@orders.{kind}" for kind in ("service", "path")]
    for instance in instances:
        os.symlink(instance.name.replace("orders", ""), instance)
    result = subprocess.run(
        [verify, "verify", "--man=no", "--recursive-errors=no", *map(str, instances)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in result.stderr.splitlines() if "mb-drain" in line]
    assert result.returncode == 0, result.stderr
    assert not said


def test_the_unit_calls_what_there_is_and_gives_it_time() -> None:
    unit = settings()
    check_command(shlex.split(unit["ExecStart"].replace("%i", "orders")))
    directory = unit["ExecStart"].split()[-1]
    assert unit["ReadWritePaths"] == directory
    # Which the program makes, maybe long after systemd has begun to wait for it.
    assert unit["ConditionPathExists"] == settings(WAITS)["PathExists"] == f"{directory}/buffer.json"
    # A stuck provider is waited for as long as kafka's send_timeout.
    assert int(unit["TimeoutStopSec"]) > 30
    assert unit["KillSignal"] == "SIGTERM"


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="needs PyYAML; run: pip install PyYAML")
    return {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def test_the_manifests_hang_together(manifests: dict[str, Any]) -> None:
    assert set(manifests) == {"Service", "StatefulSet"}
    service, stateful = manifests["Service"], manifests["StatefulSet"]
    assert {each["apiVersion"] for each in (service, stateful)} == {"v1", "apps/v1"}
    spec, pod = stateful["spec"], stateful["spec"]["template"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert spec["serviceName"] == service["metadata"]["name"]
    claims = {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
    containers = [*pod["initContainers"], *pod["containers"]]
    assert {mount["name"] for each in containers for mount in each["volumeMounts"]} == claims
    assert len({each["name"] for each in containers}) == len(containers)
    assert all(each["image"] and each["resources"]["limits"] for each in containers)
    (program,) = pod["containers"]
    assert program["readinessProbe"]["httpGet"]["port"] in {port["name"] for port in program["ports"]}


def test_the_sidecar_drains_what_the_program_writes(manifests: dict[str, Any]) -> None:
    pod = manifests["StatefulSet"]["spec"]["template"]["spec"]
    (sidecar,), (program,) = pod["initContainers"], pod["containers"]
    assert sidecar["restartPolicy"] == "Always", "else the program would wait for it to end"
    assert "livenessProbe" not in sidecar
    environment = {each["name"]: each.get("value", "") for each in program["env"]}
    config = Config.layered(environ=environment)
    assert config.provider is None
    commands = re.findall(r"\bmb [a-z]+ [^ ]+(?: --[a-z-]+)*", sidecar["args"][0])
    assert [command.split()[1] for command in commands] == ["status", "drain", "drain"]
    for command in commands:
        check_command(shlex.split(command))
        assert command.split()[2] == config.directory
    assert {each["name"] for each in sidecar["env"]} == {"MBFRAMEWORK_PROVIDER"}
    assert config.directory is not None
    for each in (sidecar, program):
        (mount,) = each["volumeMounts"]
        assert config.directory.startswith(mount["mountPath"] + "/")
    (claim,) = manifests["StatefulSet"]["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) << 30 > config.total_size + config.dead_total_size
    assert pod["terminationGracePeriodSeconds"] > config.close_timeout
    assert pod["terminationGracePeriodSeconds"] > int(sidecar["args"][0].split("timeout ")[1].split()[0]) + 30
    user = pod["securityContext"]
    assert user["runAsUser"] == user["fsGroup"]
    assert user["runAsUser"] != 0


def test_the_sidecar_sends_what_the_program_wrote_last(manifests: dict[str, Any], tmp_path: Path) -> None:
    """Told to end, while what waits is held up by a long wait for the next attempt."""
    (sidecar,) = manifests["StatefulSet"]["spec"]["template"]["spec"]["initContainers"]
    outbox, destination = tmp_path / "outbox", tmp_path / "later" / "out.db"
    with MessageBuffer(outbox) as program:
        program.write_many("orders", [b"%d" % number for number in range(100)])
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MBFRAMEWORK_PROVIDER": f"sqlite://{destination}",
            "MBFRAMEWORK_RETRY_WAIT": "1h",
            "MBFRAMEWORK_RETRY_WAIT_MAX": "1h",
        }
        script = sidecar["args"][0].replace("/buffer/outbox", str(outbox))
        shell = subprocess.Popen([*sidecar["command"], script], env=environment, start_new_session=True)
        try:
            eventually(lambda: program.status().last_error, "a failed attempt")
            destination.parent.mkdir()
            shell.send_signal(signal.SIGTERM)
            assert shell.wait(60) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(destination)) as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (100,)
