"""The programs of docs/how-to/forks.md run as they are printed."""

import re
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "forks.md").read_text()


@pytest.mark.once
@pytest.mark.usefixtures("boot_files")
@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "so far\nchild 0\nso far\nchild 1\nso far\n"), (1, "tried something\nprepared\nprepared\n"), (2, "where was I\n")],
)
def test_the_programs_run(tmp_path: Path, number: int, said: str) -> None:
    found = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    program = tmp_path / "program.py"
    program.write_text(found[number])
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout == said
