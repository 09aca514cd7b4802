"""The program and the command line of README.md run as they are printed."""

import os
import re
import sys
from pathlib import Path

from utilityvm.boot.files import BootFiles
from utilityvm.kit.proc import run_tool

README = (Path(__file__).parents[2] / "README.md").read_text()
SECONDS = 120


def block(language: str) -> str:
    """The first block of code in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_program_runs(boot_files: BootFiles, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(block("python"))
    said = run_tool([sys.executable, program], within=SECONDS)
    assert said.split() == ["Linux", boot_files.manifest.kernel.release, "0"]


def test_the_command_line_runs(boot_files: BootFiles) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = run_tool(["sh", "-c", block("sh")], within=SECONDS, env={"PATH": path})
    assert said == f"a kernel of its own: {boot_files.manifest.kernel.release}\n"
