"""The programs and the lines of docs/how-to/templates.md run as they are printed."""

import os
import re
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "templates.md").read_text()


@pytest.mark.usefixtures("boot_files")
@pytest.mark.parametrize(("number", "said"), [(0, "ready\n"), (1, "hello one\nhello two\n"), (2, "used once\n1\n")])
def test_the_programs_run(tmp_path: Path, number: int, said: str) -> None:
    found = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 3
    program = tmp_path / "program.py"
    program.write_text(found[number].replace('"warm"', f'"page-{tmp_path.name}"'))
    done = subprocess.run([sys.executable, program], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.stdout == said


@pytest.mark.usefixtures("boot_files")
def test_the_lines_run(tmp_path: Path) -> None:
    found = re.search(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    script = re.sub(r"\b(warm|again)\b(?!\.tar)", rf"\1-{tmp_path.name}", found[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    warm, again = f"warm-{tmp_path.name}", f"again-{tmp_path.name}"
    made, head, *listed, hot, linux, removed, imported, still_hot, gone = done.stdout.splitlines()
    assert (made, hot, linux, removed, imported, still_hot, gone) == (warm, "hot", "Linux", warm, again, "hot", again)
    assert head.split() == ["NAME", "CREATED", "MEMORY", "CPUS", "SIZE"]
    assert warm in [line.split()[0] for line in listed]
