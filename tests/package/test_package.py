"""`pip install .` of a clean checkout gives a working `uvm`."""

import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.package.conftest import ROOT, Installed, build_backend, pip_wheel
from utilityvm import __version__
from utilityvm.kit.errors import HostError
from utilityvm.kit.proc import run_tool

AGENT = "utilityvm/boot/agent"
LARGEST = 2_097_152
"""Most bytes of the wheel: 2 MiB."""


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def test_the_wheel_is_for_every_python_on_this_platform(wheel: Path) -> None:
    assert wheel.name == f"utilityvm-{__version__}-py3-none-linux_x86_64.whl"
    assert b"Root-Is-Purelib: false" in read(wheel, f"utilityvm-{__version__}.dist-info/WHEEL")


def test_the_wheel_has_every_file_of_the_package_and_no_other(checkout: Path, wheel: Path) -> None:
    source = checkout / "src"
    expected = {str(path.relative_to(source)) for path in (source / "utilityvm").rglob("*") if path.is_file()}
    assert {name for name in names(wheel) if name.startswith("utilityvm/")} == expected | {AGENT}
    assert {"utilityvm/py.typed", "utilityvm/boot/pins.json", "utilityvm/boot/debian-archive-bookworm.gpg"} <= expected


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LARGEST


def test_the_wheels_agent_is_the_checkouts_to_the_byte(wheel: Path) -> None:
    assert read(wheel, AGENT) == (ROOT / "build" / "agent").read_bytes()


def test_a_second_build_packs_nothing_that_was_removed_since(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    stray = checkout / "src/utilityvm/boot/stray.py"
    stray.write_text("")
    try:
        assert "utilityvm/boot/stray.py" in names(pip_wheel(checkout, tmp_path / "first"))
    finally:
        stray.unlink()
    assert names(pip_wheel(checkout, tmp_path / "second")) == names(wheel)


def test_a_source_distribution_gives_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    sdist = build_backend(checkout, "build_sdist")
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if name.endswith((".deb", ".pyc"))]
    again = pip_wheel(sdist, tmp_path)
    assert names(again) == names(wheel)
    assert read(again, AGENT) == read(wheel, AGENT)


def test_without_go_the_build_says_what_to_install(checkout: Path, tmp_path: Path, without_go: Mapping[str, str]) -> None:
    with pytest.raises(HostError, match=r"go: command not found: .*install Go 1\.19 or newer \(the package golang-go\)"):
        pip_wheel(checkout, tmp_path, without_go)


def test_an_editable_installation_needs_no_go(checkout: Path, without_go: Mapping[str, str]) -> None:
    wheel = build_backend(checkout, "build_editable", without_go)
    assert AGENT not in names(wheel)
    assert not (checkout / "src" / AGENT).exists()


def test_the_installed_uvm_says_its_version_and_uses_its_own_agent(installed: Installed) -> None:
    assert run_tool([installed.uvm, "--version"], within=30) == f"uvm {__version__}\n"
    agent = run_tool([installed.python, "-I", "-c", "from utilityvm.boot.build import find_agent; print(find_agent())"], within=30)
    assert Path(agent.strip()) == installed.site_packages / AGENT


def test_the_manual_page_lies_where_man_looks_for_that_of_a_program_on_the_path(installed: Installed) -> None:
    page = installed.uvm.parents[1] / "share/man/man1/uvm.1"
    assert page.read_text() == (ROOT / "docs/reference/uvm.1").read_text()


def test_the_installed_uvm_completes_itself(installed: Installed) -> None:
    assert "boot-files" in run_tool([installed.uvm, "completion", "bash"], within=30)
