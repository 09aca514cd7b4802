"""The program of docs/how-to/forks.md runs as it is printed."""

import re
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "forks.md").read_text()


@pytest.mark.usefixtures("boot_files")
def test_the_program_runs(tmp_path: Path) -> None:
    (found,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    program = tmp_path / "program.py"
    program.write_text(found)
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout == "so far\nchild 0\nso far\nchild 1\nso far\n"
