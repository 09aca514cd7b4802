"""The commands and the program of docs/how-to/images.md run as they are printed, with a registry behind its name."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.images.conftest import SMALL
from tests.images.registry import SECONDS, Registry
from utilityvm.kit.proc import run_tool

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "images.md").read_text()


@pytest.fixture
def home(hub: Registry, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose files say where the registry is."""
    hub.push_sample(SMALL, "team/tool:1")
    settings = tmp_path / "home" / ".config" / "containers"
    settings.mkdir(parents=True)
    mirror = f'[[registry]]\nlocation = "registry.example.org"\n[[registry.mirror]]\nlocation = "{hub.address}"\ninsecure = true\n'
    (settings / "registries.conf").write_text(mirror)
    return {"HOME": str(tmp_path / "home"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(os.geteuid() != 0, reason="root has its images in one place, and hides it for this test")
def test_the_commands_run(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    commands = "".join(blocks("sh"))
    script = f"set -eu; mount --bind {tmp_path / 'state'} /var/lib/utilityvm; cd {tmp_path}; {commands}"
    said = run_tool(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], within=SECONDS, env=home)
    lines = said.splitlines()
    assert lines[0] == f"registry.example.org/team/tool:1 {SMALL.digest}"
    assert lines[1].split() == ["NAME", "ID", "PLATFORM", "CREATED", "SIZE"]
    assert [line.split()[0] for line in lines if re.match(r"mine:\d ", line)] == ["mine:1", "mine:2"]
    assert re.search(r"^images +3 ", said, re.MULTILINE)
    assert lines[-1].startswith("freed ")
    assert run_tool(["tar", "-tf", tmp_path / "mine.tar"], within=SECONDS).startswith("index.json\n")


def test_the_program_runs(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    run_tool(["tar", "-C", tmp_path / "root", "-cf", tmp_path / "root.tar", "."], within=SECONDS)
    (program,) = blocks("python")
    (tmp_path / "program.py").write_text(program)
    said = run_tool([sys.executable, tmp_path / "program.py"], within=SECONDS, cwd=tmp_path, env=home)
    assert said.splitlines() == [
        "docker.io/library/mine:latest linux/amd64 1",
        "0",
        "registry.example.org/team/tool:1 ('sh',)",
    ]
