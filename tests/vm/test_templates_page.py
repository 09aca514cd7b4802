"""The program of docs/how-to/templates.md runs as it is printed."""

import re
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "templates.md").read_text()


@pytest.mark.usefixtures("boot_files")
def test_the_program_runs(tmp_path: Path) -> None:
    found = re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    program = tmp_path / "program.py"
    program.write_text(found[1].replace('"warm"', f'"page-{tmp_path.name}"'))
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout == "ready\n"
