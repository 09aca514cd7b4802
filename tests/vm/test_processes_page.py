"""The program of docs/how-to/processes.md runs as it is printed."""

import re
import sys
from pathlib import Path

import pytest

from utilityvm.kit.proc import run_tool

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "processes.md").read_text()


@pytest.mark.usefixtures("boot_files")
def test_the_program_runs(tmp_path: Path) -> None:
    found = re.search(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    program = tmp_path / "program.py"
    program.write_text(found[1])
    assert run_tool([sys.executable, program], within=120).splitlines() == [
        r"0 b'a\nb\n'",
        r"Completed(exit_code=0, stdout=b'two words\n$HOME\n', stderr=b'')",
        r"Completed(exit_code=0, stdout=b'6\n', stderr=b'')",
        r"b'begun\n'",
        r"b'y\ny\ny\n'",
    ]
