"""Debian as a root file system, made once from this host's mirror by debootstrap; what was made is kept in `build`."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from utilityvm.kit.errors import DeadlineExceeded, HostError
from utilityvm.kit.proc import run_tool

KEPT = Path(__file__).parents[2] / "build" / "debian.tar"
SECONDS = 900


def debian_tar() -> Path:
    """Return the archive of a small Debian 12 with Python; skips the test where none can be made."""
    if os.geteuid() != 0 and not KEPT.exists():
        pytest.skip("only root makes a Debian by debootstrap")
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two lanes may want it at once
        if not KEPT.exists():
            _make()
    return KEPT


def _make() -> None:
    sites = run_tool(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"], within=60).split()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        words = ["debootstrap", "--variant=minbase", "--include=python3-minimal", "bookworm", str(root), sites[0]]
        try:
            run_tool(words, within=SECONDS, package="debootstrap")
        except (HostError, DeadlineExceeded) as error:
            pytest.skip(f"no Debian can be made here: {error.message}")
        for left in (root / "var/cache/apt/archives", root / "var/lib/apt/lists"):
            for path in left.glob("*.deb"):
                path.unlink()
        written = KEPT.with_suffix(".part")
        run_tool(["tar", "--xattrs", "--numeric-owner", "--sort=name", "-C", root, "-cf", written, "."], within=SECONDS)
        written.replace(KEPT)
