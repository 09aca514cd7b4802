"""By what the template of a boot is called: what the boot depends on, all of it, and nothing else. No QEMU is asked."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import utilityvm
from utilityvm.compute.qemu import records
from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.service import QemuService
from utilityvm.kit.errors import NotFound
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.vm import compose


class Host:
    """A host on which VMs boot from `folder`, and what the probe says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("kernel", "initrd.img", "qemu"):
            (folder / name).write_text(name)
        self.facts = HostFacts(qemu=str(folder / "qemu"), version=(7, 2, 0), accel=Accel.TCG, reason="", processors=1, address_bits=40)

    def has(self, **changed: Any) -> None:  # noqa: ANN401 (facts of any kind)
        self.facts = msgspec.structs.replace(self.facts, **changed)

    async def key(self, **options: Any) -> str:  # noqa: ANN401 (options of any kind)
        given = {"boot_files_path": str(self.folder), "kernel_file": "kernel", "root_fs_file": "initrd.img"}
        return await compose.boot_key(OptionsLCOW(**{**given, **options}))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)

    async def probe(_service: QemuService, kernel: Path) -> HostFacts:
        assert kernel == tmp_path / "kernel"
        return made.facts

    monkeypatch.setattr(QemuService, "probe", probe)
    return made


async def test_it_is_the_same_whoever_asks_and_fits_a_name(host: Host) -> None:
    key = await host.key()
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")
    host.has(reason="said otherwise", processors=8)
    assert await host.key(id="another") == await host.key(id="") == key


@pytest.mark.parametrize(
    "changed", [{"memory_size_in_mb": 128}, {"processor_count": 1}, {"kernel_boot_options": "a=b"}, {"forkable": True}]
)
async def test_other_options_are_another_boot(host: Host, changed: dict[str, Any]) -> None:
    assert await host.key(**changed) != await host.key()


@pytest.mark.parametrize("name", ["kernel", "initrd.img", "qemu"])
async def test_a_file_that_was_changed_or_only_written_anew_is_another_boot(host: Host, name: str) -> None:
    path, before = host.folder / name, await host.key()
    about = path.stat()
    path.write_text("longer than it was")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    longer = await host.key()
    path.write_text(name)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert len({before, longer, await host.key()}) == 3


def another_version(host: Host, _: pytest.MonkeyPatch) -> None:
    host.has(version=(7, 2, 1))


def another_acceleration(host: Host, _: pytest.MonkeyPatch) -> None:
    host.has(accel=Accel.KVM)


def another_package(_: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utilityvm, "__version__", "0.0.0")


def another_manifest(_: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "VERSION", 0)


@pytest.mark.parametrize("change", [another_version, another_acceleration, another_package, another_manifest])
async def test_another_qemu_and_another_of_ours_are_another_boot(
    host: Host, monkeypatch: pytest.MonkeyPatch, change: Callable[[Host, pytest.MonkeyPatch], None]
) -> None:
    before = await host.key()
    change(host, monkeypatch)
    assert await host.key() != before


@pytest.mark.parametrize(("accel", "matters"), [(Accel.KVM, True), (Accel.TCG, False)])
async def test_the_processor_matters_where_the_guest_sees_it(
    host: Host, monkeypatch: pytest.MonkeyPatch, accel: Accel, *, matters: bool
) -> None:
    host.has(accel=accel)
    before = await host.key()
    monkeypatch.setattr(records, "_processor", lambda: "another")
    assert (await host.key() != before) is matters


async def test_there_is_none_without_a_kernel(host: Host) -> None:
    (host.folder / "kernel").unlink()
    with pytest.raises(NotFound, match="kernel: no such kernel$"):
        await host.key()
