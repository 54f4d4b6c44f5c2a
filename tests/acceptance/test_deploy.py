"""What deploy/ has can be started."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from searchapp.cli.app import app
from tests.conftest import ROOT

UNIT = ROOT / "deploy" / "searchapp-worker.service"


def settings(name: str) -> list[str]:
    return [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith(f"{name}=")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    here = UNIT.read_text().replace("/opt/searchapp/bin/searchapp", sys.executable)
    (tmp_path / UNIT.name).write_text(here)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_command_is_one() -> None:
    (command,) = settings("ExecStart")
    program, *arguments = shlex.split(command)
    assert Path(program).name == "searchapp"
    assert parsed(arguments) == {"once": False, "concurrency": 1, "poll_interval": 0.2}


def test_it_is_given_time_to_finish_its_batch() -> None:
    assert [float(seconds) for seconds in settings("TimeoutStopSec")] == [20]
    assert compose()["stop_grace_period"] == "20s"


def test_the_compose_services_command_is_one() -> None:
    assert parsed(compose()["command"])["concurrency"] == 1
    assert (ROOT / compose()["build"]["dockerfile"]).is_file()


def compose() -> dict[str, Any]:
    text = (ROOT / "deploy" / "docker-compose.worker.yml").read_text()
    service: dict[str, Any] = yaml.safe_load(text)["services"]["worker"]
    return service


def parsed(arguments: list[str]) -> dict[str, object]:
    """The parameters of a command line, which begins with ``worker``."""
    name, *options = arguments
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # it is a group
    return dict(command.make_context(name, options).params)
