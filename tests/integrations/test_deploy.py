"""What docs/deploy has for systemd and Kubernetes is well-formed, hangs together, and calls commands that exist."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from mbframework.cli import main
from mbframework.config import Config

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
UNIT = DEPLOY / "mb-drain@.service"


def check_command(words: list[str]) -> None:
    """That ``mb`` takes these words. Raises what click says otherwise."""
    assert Path(words[0]).name == "mb"
    with click.Context(main) as context:
        assert isinstance(main, click.Group)
        command = main.get_command(context, words[1])
        assert command is not None, words
        command.make_context(words[1], list(words[2:]), parent=context).close()


def settings() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)  # type: ignore[misc]


def test_the_unit_is_one(tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("needs systemd-analyze; install the Debian package systemd")
    # The program is somewhere else here, and the user is none of this machine.
    unit = UNIT.read_text().replace("/usr/bin/mb", "/bin/true").replace("User=mbframework", "User=root")
    (tmp_path / "mb-drain@.service").write_text(unit.replace("Group=mbframework", "Group=root"))
    # An instance of the template, as systemctl would name it.
    os.symlink("mb-drain@.service", tmp_path / "mb-drain@orders.service")
    result = subprocess.run(
        [verify, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "mb-drain@orders.service")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in result.stderr.splitlines() if "mb-drain" in line]
    assert result.returncode == 0, result.stderr
    assert not said


def test_the_unit_calls_what_there_is_and_gives_it_time() -> None:
    unit = settings()
    check_command(shlex.split(unit["ExecStart"].replace("%i", "orders")))
    directory = unit["ExecStart"].split()[-1]
    assert unit["ReadWritePaths"] == directory == unit["ConditionPathIsDirectory"]
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
    script = sidecar["args"][0]
    assert subprocess.run(["sh", "-n", "-c", script], timeout=10, check=False).returncode == 0
    status, drain = script.removeprefix("until ").split(" >")[0], script.rpartition("exec ")[2]
    for command in (status, drain):
        check_command(shlex.split(command))
        assert command.split()[-1] == config.directory
    assert {each["name"] for each in sidecar["env"]} == {"MBFRAMEWORK_PROVIDER"}
    assert config.directory is not None
    for each in (sidecar, program):
        (mount,) = each["volumeMounts"]
        assert config.directory.startswith(mount["mountPath"] + "/")
    (claim,) = manifests["StatefulSet"]["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) << 30 > config.total_size + config.dead_total_size
    assert pod["terminationGracePeriodSeconds"] > config.close_timeout
    user = pod["securityContext"]
    assert user["runAsUser"] == user["fsGroup"]
    assert user["runAsUser"] != 0
