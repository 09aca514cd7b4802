"""The programs of docs/how-to/sandbox.md and the lines of docs/how-to/run.md run as they are printed."""

import os
import re
import subprocess  # noqa: TID251 (in the folder where a reader would run them)
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utilityvm.boot.files import BootFiles
from utilityvm.containers.volumes import volume_file
from utilityvm.images.store import ImageStore
from utilityvm.store.layout import Layout

from .python_image import write_python_image

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", (PAGES / "sandbox.md").read_text(), re.MULTILINE | re.DOTALL)
PYTHON = f"localhost/uvm-test-python:{os.getpid()}"
"""Stands for the page's image, which no test may fetch."""

pytestmark = pytest.mark.usefixtures("boot_files")


def run(program: str, folder: Path) -> list[str]:
    (file := folder / "program.py").write_text(program)
    done = subprocess.run([sys.executable, file], cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=240)
    return done.stdout.splitlines()


@pytest.fixture
def python_image(tmp_path: Path) -> Iterator[str]:
    """The name of an image with this host's Python, which is removed afterwards."""
    write_python_image(tmp_path / "python.tar")
    store = ImageStore.of_user()
    store.import_(tmp_path / "python.tar", PYTHON)
    yield PYTHON
    store.remove(PYTHON)


def test_untrusted_python_runs(python_image: str, tmp_path: Path) -> None:
    program = PROGRAMS[0]
    assert '"python:3.12"' in program
    assert run(program.replace("python:3.12", python_image), tmp_path) == ["0 42", "6", "killed"]


@pytest.mark.once
@pytest.mark.skipif(not Path("/usr/bin/gcc").exists() or not Path("/lib").is_symlink(), reason="the page's host has gcc and one /usr")
def test_a_c_program_is_built_with_the_hosts_compiler(tmp_path: Path) -> None:
    assert run(PROGRAMS[1], tmp_path) == ["3 42"]
    assert subprocess.run([tmp_path / "answer"], check=False).returncode == 3


def test_a_service_runs_behind_a_script(tmp_path: Path) -> None:
    assert run(PROGRAMS[2], tmp_path)[0] == "hello"
    assert len(PROGRAMS) == 3


@pytest.mark.once
def test_the_lines_of_the_page_run(boot_files: BootFiles, tmp_path: Path) -> None:
    found = re.search(r"^```sh\n(.*?)^```", (PAGES / "run.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    volume = f"kept-{os.getpid()}"
    script = re.sub(r"\bkept:", f"{volume}:", found[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (here := tmp_path / "here").mkdir()
    (here / "file").write_text("")
    try:
        done = subprocess.run(
            ["/bin/sh", "-ec", script],
            cwd=here,
            env={**os.environ, "PATH": path},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=240,
        )
    finally:
        volume_file(Layout.of_user(), volume).unlink(missing_ok=True)
    assert done.stdout.split() == ["hi", "5", "file", "1", "/data/log"]
    assert (here / "log.txt").read_text().count("\n") == 1
    assert boot_files.folder.is_dir()
