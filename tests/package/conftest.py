"""A clean checkout, the wheel that pip makes of it, and a virtual environment that has nothing of this package but that wheel."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from utilityvm.kit.proc import run_tool

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installed:
    """An environment with the installed package, and the `uvm` in it."""

    python: Path
    uvm: Path
    site_packages: Path


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows of the checkout, and nothing that was ever built in it."""
    folder = tmp_path_factory.mktemp("clean") / "checkout"
    for name in run_tool(["git", "-C", ROOT, "ls-files", "-z"], within=30).split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def pip_wheel(source: Path, out: Path, env: Mapping[str, str] | None = None) -> Path:
    """Let pip build a wheel of a folder or a source distribution, with the setuptools that is installed here."""
    argv = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(out), str(source)]
    run_tool([sys.executable, *argv], within=300, cwd=source.parent, env=env)
    (wheel,) = out.glob("*.whl")
    return wheel


def build_backend(source: Path, call: str, env: Mapping[str, str] | None = None) -> Path:
    """Call a hook of the build backend in a folder, as pip does, and return the file that it makes in the folder `out`."""
    out = source / "out" / call
    out.mkdir(parents=True)
    said = run_tool(
        [sys.executable, "-c", f"from setuptools import build_meta; print(build_meta.{call}({str(out)!r}))"],
        within=300,
        cwd=source,
        env=env,
    )
    return out / said.splitlines()[-1]


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pip_wheel(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own. What it depends on is lent by the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run_tool([sys.executable, "-m", "venv", "--without-pip", folder], within=60)
    python = folder / "bin" / "python"
    run_tool([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], within=120)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(python, folder / "bin" / "uvm", site_packages)


@pytest.fixture(scope="session")
def without_go(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """An environment whose PATH has a shell and no Go."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("sh", "dirname", "mkdir", "env"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return {**os.environ, "PATH": str(folder)}
