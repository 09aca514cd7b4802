from pathlib import Path

import pytest

from tests.unit.boot import samples
from utilityvm.boot.libraries import needed_libraries
from utilityvm.kit.errors import NotFound

PROGRAM = samples.elf(needed=("liba.so.1", "libc.so.6"), interpreter="/lib64/ld.so.2")


def package(root: Path, **libraries: tuple[str, ...]) -> Path:
    folder = root / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    for name, needed in libraries.items():
        (folder / f"{name}.so.real").write_bytes(samples.elf({".name": name.encode()}, needed=needed))
    return folder


def test_libraries_of_libraries_are_found_and_the_loader_comes_first(tmp_path: Path) -> None:
    one, two = package(tmp_path / "one", a=("libc.so.6",)), package(tmp_path / "two", c=("ld.so.2",), ld=())
    (one / "liba.so.1").symlink_to("a.so.real")
    (two / "libc.so.6").symlink_to("c.so.real")
    (two / "ld.so.2").symlink_to("ld.so.real")
    found = needed_libraries(PROGRAM, [tmp_path / "one", tmp_path / "two"])
    assert [library.name for library in found] == ["ld.so.2", "liba.so.1", "libc.so.6"]
    assert [library.root.name for library in found] == ["two", "one", "two"]


def test_a_static_program_needs_none() -> None:
    assert needed_libraries(samples.elf(), []) == []


def test_a_library_that_no_package_has_is_named(tmp_path: Path) -> None:
    (package(tmp_path / "one", ld=()) / "ld.so.2").symlink_to("ld.so.real")
    with pytest.raises(NotFound, match=r"shared library liba\.so\.1"):
        needed_libraries(PROGRAM, [tmp_path / "one"])
