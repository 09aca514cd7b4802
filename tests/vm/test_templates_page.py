"""The programs of docs/how-to/templates.md run as they are printed."""

import re
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "templates.md").read_text()


@pytest.mark.usefixtures("boot_files")
@pytest.mark.parametrize(("number", "said"), [(0, "ready\n"), (1, "used once\n1\n")])
def test_the_programs_run(tmp_path: Path, number: int, said: str) -> None:
    found = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    program = tmp_path / "program.py"
    program.write_text(found[number].replace('"warm"', f'"page-{tmp_path.name}"'))
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout == said
