"""Kernels of our own are compiled once, kept by what went into them, and never found half. The tools are fakes."""

import itertools
import os
from pathlib import Path

import pytest

from tests.unit.boot.toolchain import IMAGE, KERNEL, MODULE, RELEASE, FakeToolchain
from utilityvm.boot import source
from utilityvm.boot.compile import find_toolchain
from utilityvm.boot.manifest import CompiledRecord
from utilityvm.boot.modules import GROUPS, Module
from utilityvm.boot.pick import Kernel
from utilityvm.boot.source import KEPT, source_kernel
from utilityvm.kit.errors import HostError, NotFound
from utilityvm.kit.files import FileLock


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeToolchain:
    found = FakeToolchain(tmp_path / "tools")
    monkeypatch.setenv("PATH", f"{found.bin}:/usr/bin:/bin")
    return found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "kernels"


def unpack(folder: Path) -> Path:
    folder.mkdir()
    archive = folder / "linux-source-6.1.tar.xz"
    archive.write_bytes(b"")
    return archive


def ours(cache: Path, sha256: str = "5", said: list[str] | None = None) -> tuple[Kernel, CompiledRecord]:
    return source_kernel(sha256, find_toolchain(), unpack, cache, (said if said is not None else []).append, lambda _done, _about: None)


@pytest.mark.usefixtures("tools")
def test_the_kernel_is_what_was_compiled_with_its_one_module(cache: Path) -> None:
    kernel, record = ours(cache)
    modules = {group: [Module("virtio_scsi", MODULE)] if group == "scsi" else [] for group in GROUPS}
    assert kernel == Kernel(RELEASE, IMAGE, KERNEL, modules)
    assert (record.compiler, record.linker) == ("gcc (Debian) 12.2.0", "GNU ld 2.40")
    assert [path.name for path in cache.iterdir()] == [record.key]


def test_a_second_build_compiles_nothing(cache: Path, tools: FakeToolchain) -> None:
    said: list[str] = []
    assert ours(cache) == ours(cache, said=said)
    assert tools.compilations == 1
    assert said == [f"the kernel is there, compiled before: {RELEASE}"]


def test_each_thing_that_goes_in_makes_another_kernel(cache: Path, tools: FakeToolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [ours(cache)[1].key, ours(cache, "6")[1].key]
    tools.compiler("gcc (Debian) 13")
    keys.append(ours(cache)[1].key)
    monkeypatch.setattr(source, "our_config", lambda: "CONFIG_A=y\n")
    keys.append(ours(cache)[1].key)
    monkeypatch.setattr(source, "ENVIRONMENT", {"TZ": "UTC"})
    keys.append(ours(cache)[1].key)
    monkeypatch.setattr(source, "COMPILE", ("make", "bzImage"))
    keys.append(ours(cache)[1].key)
    assert len(set(keys)) == tools.compilations == len(keys)


@pytest.mark.parametrize("name", ["kernel", "config", "modules.builtin", "virtio_scsi.ko", "record.json"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), Path.unlink], ids=["changed", "missing"])
def test_a_kept_kernel_that_is_damaged_is_compiled_again(cache: Path, tools: FakeToolchain, name: str, damage: object) -> None:
    before = ours(cache)
    assert callable(damage)
    damage(cache / before[1].key / name)
    assert ours(cache) == before
    assert tools.compilations == 2
    assert ours(cache) == before
    assert tools.compilations == 2


@pytest.mark.parametrize("script", ["exit 2", "kill -INT $PPID; exit 2"], ids=["failed", "interrupted"])
def test_a_build_that_fails_leaves_nothing(cache: Path, tools: FakeToolchain, script: str) -> None:
    tools.compile(script.replace("$PPID", str(os.getpid())))
    with pytest.raises((HostError, KeyboardInterrupt)):
        ours(cache)
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("tools")
def test_what_a_killed_build_left_is_removed_by_the_next(cache: Path) -> None:
    (cache / ".compile-x1" / "work" / "linux").mkdir(parents=True)
    _, record = ours(cache)
    assert [path.name for path in cache.iterdir()] == [record.key]


def test_a_kernel_without_what_the_guest_loads_is_not_kept(cache: Path, tools: FakeToolchain) -> None:
    (tools.home / "built_in").write_text("kernel/virtio_pci.ko\n")
    with pytest.raises(NotFound, match="kernel module virtio_console: the kernel does not have it"):
        ours(cache)
    assert list(cache.iterdir()) == []


def test_the_kernels_used_last_are_kept(cache: Path, tools: FakeToolchain, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1)
    monkeypatch.setattr("os.utime", lambda path, _utime=os.utime: _utime(path, ns=(0, next(clock))))
    keys = [ours(cache, str(number))[1].key for number in range(KEPT)]
    ours(cache, "0")
    newest = ours(cache, "new")[1].key
    assert {path.name for path in cache.iterdir()} == {keys[0], *keys[2:], newest}
    assert tools.compilations == KEPT + 1


@pytest.mark.usefixtures("tools")
def test_a_second_build_at_the_same_time_waits_for_the_first(cache: Path) -> None:
    cache.mkdir(parents=True)
    first = FileLock(cache)
    first.acquire()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        first.release()

    source_kernel("5", find_toolchain(), unpack, cache, say, lambda _done, _about: None)
    assert said[0] == f"waiting for another build of a kernel in {cache}"
