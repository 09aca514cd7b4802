"""The lines of docs/how-to/limits.md about groups of VMs run as they are printed."""

import os
import re
import subprocess  # noqa: TID251 (in the shell in which a reader would run them)
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "limits.md").read_text()


@pytest.mark.usefixtures("boot_files")
@pytest.mark.root("make control groups in any case")
@pytest.mark.skipif(os.sched_getaffinity(0) < {0, 1}, reason="the page's host has two processors")
def test_the_lines_about_groups_run() -> None:
    found = re.search(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    name = f"batch-{os.getpid()}"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    try:
        script = re.sub(r"\bbatch\b", name, found[1])
        said = subprocess.run(["/bin/sh", "-ec", script], env=env, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    finally:
        subprocess.run([sys.executable, "-m", "utilityvm", "cpugroup", "rm", name], env=env, check=False, stderr=subprocess.DEVNULL)
    digest, head, *groups = said.splitlines()
    assert re.fullmatch(r"[0-9a-f]{64}  /bin/busybox", digest)
    assert head.split() == ["NAME", "CAP", "AFFINITY", "VMS"]
    assert [name, "1.5", "0-1", "-"] in [line.split() for line in groups]
