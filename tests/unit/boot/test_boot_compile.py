"""Compiling a kernel: what it takes, what reaches the tools, what is told, and how it fails. The tools are fakes."""

import os
from pathlib import Path

import pytest

from tests.unit.boot.toolchain import BUILT_IN, IMAGE, MODULE, RELEASE, FakeToolchain
from utilityvm.boot import compile as compiling
from utilityvm.boot.compile import ENVIRONMENT, OBJECTS, Compiled, Toolchain, compile_kernel, find_toolchain
from utilityvm.kit.errors import Exhausted, HostError, Unsupported


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeToolchain:
    found = FakeToolchain(tmp_path / "tools")
    monkeypatch.setenv("PATH", f"{found.bin}:/usr/bin:/bin")
    return found


def compiled(tmp_path: Path, progress: list[tuple[int, int]] | None = None) -> Compiled:
    work, archive = tmp_path / "work", tmp_path / "linux-source-6.1.tar.xz"
    work.mkdir()
    archive.write_bytes(b"")
    told = [] if progress is None else progress
    lock = os.open(tmp_path, os.O_RDONLY)
    try:
        return compile_kernel(archive, "CONFIG_A=y\n", work, lambda done, about: told.append((done, about)), lock=lock)
    finally:
        os.close(lock)


@pytest.mark.usefixtures("tools")
def test_the_compiler_and_linker_are_found_by_what_they_say() -> None:
    assert find_toolchain() == Toolchain("gcc (Debian) 12.2.0", "GNU ld 2.40")


def test_all_that_is_missing_is_named_at_once_with_the_packages_that_have_it(tools: FakeToolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tools.bin))
    for name in ("flex", "bison"):
        (tools.bin / name).unlink()
    tools.tool("gcc", '[ "$3" != gelf.h ] || exit 1')
    with pytest.raises(Unsupported, match=r"^compiling a kernel takes bison, flex, gelf\.h, which this host lacks$") as caught:
        find_toolchain()
    assert caught.value.hint == "install them: apt-get install bison flex libelf-dev"


def test_without_a_compiler_its_headers_are_asked_for_too(tools: FakeToolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tools.bin))
    (tools.bin / "gcc").unlink()
    with pytest.raises(Unsupported) as caught:
        find_toolchain()
    assert caught.value.hint == "install them: apt-get install gcc libc6-dev libelf-dev"


@pytest.mark.usefixtures("tools")
def test_what_came_out_is_returned(tmp_path: Path) -> None:
    assert compiled(tmp_path) == Compiled(RELEASE, IMAGE, b"CONFIG_A=y\n\n", BUILT_IN.encode(), {"virtio_scsi.ko": MODULE})


def test_nothing_of_the_users_environment_reaches_the_tools_but_the_path(
    tmp_path: Path, tools: FakeToolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"KCFLAGS": "-O0", "ARCH": "um", "MAKEFLAGS": "-n", "LOCALVERSION": "-x", "KBUILD_BUILD_USER": "me"}.items():
        monkeypatch.setenv(name, value)
    compiled(tmp_path)
    here = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "work" / "tmp")}
    assert tools.environment == {**ENVIRONMENT, **here}


def test_what_the_image_says_of_its_maker_and_hour_is_fixed() -> None:
    """`scripts/mkcompile_h` and the archive of the built-in initial RAM disk take these from the host unless they are set."""
    assert {f"KBUILD_BUILD_{what}" for what in ("HOST", "USER", "TIMESTAMP", "VERSION")} | {"KCONFIG_NOTIMESTAMP"} <= ENVIRONMENT.keys()


@pytest.mark.usefixtures("tools")
def test_each_compiled_file_is_told(tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    compiled(tmp_path, progress)
    assert progress == [(1, OBJECTS), (2, OBJECTS)]


def test_more_files_than_were_expected_are_not_told_as_too_many(tmp_path: Path, tools: FakeToolchain) -> None:
    progress: list[tuple[int, int]] = []
    tools.compile(f"seq -f '  CC      %g.o' {OBJECTS}")
    compiled(tmp_path, progress)
    assert progress[-1] == (OBJECTS + 2, OBJECTS + 2)


def test_an_option_that_is_not_granted_ends_it_before_anything_is_compiled(tmp_path: Path, tools: FakeToolchain) -> None:
    tools.configure("echo '# CONFIG_A is not set' >.config")
    with pytest.raises(Unsupported, match=r"linux-source-6\.1\.tar\.xz: .* CONFIG_A: asked for y, is n$"):
        compiled(tmp_path)
    assert tools.compilations == 0


def test_a_compiler_that_fails_is_quoted_without_the_steps_that_went_well(tmp_path: Path, tools: FakeToolchain) -> None:
    tools.compile("echo 'main.c:1: error: no' >&2; exit 2")
    with pytest.raises(HostError, match=r"^make KCFLAGS=\S+ bzImage modules --jobs=\d+: ended with 2: main\.c:1: error: no$"):
        compiled(tmp_path)


def test_a_full_disk_is_told_as_one(tmp_path: Path, tools: FakeToolchain) -> None:
    tools.compile("echo 'main.s: No space left on device' >&2; exit 2")
    with pytest.raises(Exhausted, match="work: No space left on device"):
        compiled(tmp_path)


def test_a_disk_that_would_be_full_is_told_before_anything_is_done(
    tmp_path: Path, tools: FakeToolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "SPACE", 1 << 60)
    with pytest.raises(Exhausted, match=r"work: compiling a kernel takes \d+ MiB, \d+ MiB are free"):
        compiled(tmp_path)
    assert list((tmp_path / "work").iterdir()) == []
    assert tools.compilations == 0
