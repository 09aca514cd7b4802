import ctypes
import re
from pathlib import Path

import pytest

from utilityvm.boot import elf
from utilityvm.kit.errors import Corrupt, Unsupported
from utilityvm.kit.proc import run_tool

USER = "int absent(void); int there(void); int abs(int); int use(int calls) { return calls ? absent() : abs(-there()); }"


def compiled(folder: Path, libraries: str = "there absent", versioned: str = "there absent") -> Path:
    """Compile what links to `libraries` in this order, of which `versioned` have versions. Of libabsent there is nothing afterwards."""
    for name in libraries.split():
        (folder / f"{name}.c").write_text(f"int {name}(void) {{ return 7; }}")
        (folder / f"{name}.map").write_text(f"{name.upper()}_1 {{ global: {name}; local: *; }};")
        words = [f"-Wl,--version-script={folder}/{name}.map"] if name in versioned.split() else []
        gcc(folder, *words, f"-Wl,-soname,lib{name}.so", "-o", f"{folder}/lib{name}.so", f"{folder}/{name}.c")
    (folder / "user.c").write_text(USER)
    words = ["-Wl,-z,now", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", *(f"-l{name}" for name in libraries.split())]
    gcc(folder, "-o", f"{folder}/user.so", f"{folder}/user.c", *words)
    (folder / "libabsent.so").unlink()
    return folder / "user.so"


def gcc(folder: Path, *words: str) -> None:
    run_tool(["gcc", "-shared", "-fPIC", "-fno-builtin", f"-L{folder}", *words], within=60)


def without_absent(path: Path) -> Path:
    made = path.with_name("without.so")
    made.write_bytes(elf.without_library(path.read_bytes(), "libabsent.so"))
    return made


@pytest.mark.parametrize("libraries", ["there absent", "absent there"])
@pytest.mark.parametrize("versioned", ["there absent", "absent"])
def test_what_calls_nothing_of_a_library_runs_without_it(tmp_path: Path, libraries: str, versioned: str) -> None:
    user = compiled(tmp_path, libraries, versioned)
    with pytest.raises(OSError, match=re.escape("libabsent.so: cannot open shared object file")):
        ctypes.CDLL(str(user))
    assert ctypes.CDLL(str(without_absent(user))).use(0) == 7


def test_only_that_library_is_left_out(tmp_path: Path) -> None:
    user = compiled(tmp_path)
    data, made = user.read_bytes(), without_absent(user).read_bytes()
    assert (elf.needed(data), elf.needed(made)) == (("libthere.so", "libabsent.so", "libc.so.6"), ("libthere.so", "libc.so.6"))
    assert len(made) == len(data)


@pytest.mark.parametrize("versioned", ["there", ""])
def test_a_library_whose_symbols_nobody_knows_cannot_be_left_out(tmp_path: Path, versioned: str) -> None:
    with pytest.raises(Unsupported, match=r"cannot be without libabsent\.so: symbols that have no versions are nobody's"):
        without_absent(compiled(tmp_path, versioned=versioned))


def test_the_only_library_with_versions_cannot_be_left_out(tmp_path: Path) -> None:
    compiled(tmp_path)
    (tmp_path / "lonely.c").write_text("int there(void); int use(void) { return there(); }")
    gcc(tmp_path, "-nostdlib", "-o", f"{tmp_path}/lonely.so", f"{tmp_path}/lonely.c", "-lthere")
    with pytest.raises(Unsupported, match=r"cannot be without libthere\.so: no other library of it has versions"):
        elf.without_library((tmp_path / "lonely.so").read_bytes(), "libthere.so")


def test_what_does_not_link_to_the_library_stays_as_it_is(tmp_path: Path) -> None:
    data = compiled(tmp_path).read_bytes()
    assert elf.without_library(data, "libother.so") == data


def test_tables_that_lie_elsewhere_are_told(tmp_path: Path) -> None:
    data = bytearray(compiled(tmp_path).read_bytes())
    table, count = int.from_bytes(data[40:48], "little"), int.from_bytes(data[60:62], "little")
    (row,) = (row for row in range(table, table + 64 * count, 64) if data[row + 4 : row + 8] == (0x6FFFFFFE).to_bytes(4, "little"))
    data[row + 24 : row + 32] = (1 << 40).to_bytes(8, "little")  # where the versions are
    with pytest.raises(Corrupt, match="a table of its libraries"):
        elf.without_library(bytes(data), "libabsent.so")
