"""The programs of docs/how-to/containers.md run as they are printed."""

import re
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

from .once import once

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "containers.md").read_text()


@pytest.mark.usefixtures("boot_files")
@pytest.mark.parametrize("number", [0, *once(1)])
def test_a_program_runs(tmp_path: Path, number: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[number])
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert (
        done.stdout.splitlines()
        == [
            [
                r"b'hello\n'",
                "ContainerExit(exit_code=3, how=<NotificationType.UNEXPECTED_EXIT: 'UnexpectedExit'>, oom_kills=0)",
            ],
            [
                r"b'what is told is said'",
                r"0 b'65534\n'",
                "67108864 1",
                "137 ForcedExit False",
            ],
        ][number]
    )
