"""Boots that fail in every way: each error says what failed, what was waited for, and has the console's last lines."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from utilityvm import DeadlineExceeded, HostError, UtilityVM, UtilityVMError, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.vm import uvm
from utilityvm.vm.life import State

from .running import LIMIT, of_vm

NO_ARCHIVE = b"not an archive\n" * 5000
Change = Callable[[bytes], bytes]


async def failure(
    boot_files: BootFiles, folder: Path, *, kernel: Change | None = None, initrd: Change | None = None, **options: object
) -> UtilityVMError:
    """Boot from a folder of its own, in which a file may have been changed, and return the error."""
    for source, name, change in ((boot_files.vmlinux, "vmlinux", kernel), (boot_files.initrd, "initrd.img", initrd)):
        if change is None:
            (folder / name).symlink_to(source)
        else:
            (folder / name).write_bytes(change(source.read_bytes()))
    given: dict[str, object] = {"boot_files_path": str(folder), "memory_size_in_mb": 256, "processor_count": 1}
    vm: UtilityVM = await create_lcow(default_options_lcow(**given | options))
    async with asyncio.timeout(LIMIT), vm:
        with pytest.raises(UtilityVMError) as caught:
            await vm.start()
        assert vm.state is State.STOPPED
    assert of_vm(vm.id) == []
    return caught.value


def console(error: UtilityVMError) -> str:
    """What the error has of the console: some lines, not all of it."""
    head, _, lines = error.message.partition("\nlast lines of its console:\n")
    assert lines, error.message
    assert len(lines.splitlines()) <= 40
    assert "\n" not in head
    return lines


async def test_a_panic(boot_files: BootFiles, tmp_path: Path) -> None:
    error = await failure(boot_files, tmp_path, kernel_boot_options="rdinit=/nonexistent init=/nonexistent")
    assert isinstance(error, HostError)
    assert "the guest's kernel panicked, while waiting for the guest to ask for entropy (port 1)" in error.message
    assert "Kernel panic - not syncing" in console(error)


async def test_an_init_that_ends(boot_files: BootFiles, tmp_path: Path) -> None:
    error = await failure(boot_files, tmp_path, kernel_boot_options="rdinit=/bin/false")
    assert isinstance(error, HostError)
    assert "Attempted to kill init!" in console(error)


@pytest.mark.parametrize(
    "change", [lambda _: NO_ARCHIVE, lambda data: data[: len(data) // 20], lambda data: data[:64]], ids=["no archive", "cut", "begun"]
)
async def test_a_corrupt_initrd(boot_files: BootFiles, tmp_path: Path, change: Change) -> None:
    error = await failure(boot_files, tmp_path, initrd=change)
    assert isinstance(error, HostError)
    assert console(error)


async def test_an_agent_that_does_not_know_its_arguments(boot_files: BootFiles, tmp_path: Path) -> None:
    error = await failure(boot_files, tmp_path, exec_command_line="/bin/gcs -loglevel deafening")
    assert isinstance(error, HostError)
    assert "ended while starting (powered_off), while waiting for the guest to ask for entropy (port 1)" in error.message
    assert "utilityvm: command line: " in console(error)
    assert "deafening" in console(error)


async def test_a_guest_that_hangs_is_given_up_at_the_deadline(
    boot_files: BootFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits for a root file system for ever, and says all that it does meanwhile."""
    monkeypatch.setattr(uvm, "START_TIMEOUT", 6.0)
    error = await failure(boot_files, tmp_path, initrd=lambda _: NO_ARCHIVE, kernel_boot_options="root=/dev/vda rootwait loglevel=7")
    assert isinstance(error, DeadlineExceeded)
    assert "not ready within 6 s: waiting for the guest to ask for entropy (port 1)\nlast lines of its console:\n" in error.message
    assert console(error)


async def test_a_kernel_that_qemu_refuses(boot_files: BootFiles, tmp_path: Path) -> None:
    error = await failure(boot_files, tmp_path, kernel=lambda _: b"no kernel\n" * 1000)
    assert isinstance(error, HostError)
    assert "exit code 1" in error.message
    assert "qemu" in error.message
    assert error.message.endswith("\nits console said nothing")
