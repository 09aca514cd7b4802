"""Folders of the host in a real guest, over 9p: what it sees, what it may do, and what is left. As root and as an ordinary user."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.pidfds import all_ended

from utilityvm import Exists, GuestError, InvalidOptions, NotFound, Unsupported, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.plan9 import RESOURCE
from utilityvm.compute.qemu.service import QemuService
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.ids import VmId
from utilityvm.schema.devices import Devices, Plan9, Plan9Share
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedDirectory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.testing.kernels import Then, kernel

from .running import LIMIT, Done, below, line, sh
from .test_qemu_driver import document

pytestmark = pytest.mark.asyncio(loop_scope="module")

READ_ONLY, METADATA, RESTRICT = 0x01, 0x04, 0x80
MOUNT = "/run/shares"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def request(
    kind: str, name: str, path: Path | str = "", flags: int = METADATA, allowed: tuple[str, ...] = (), *, guest: bool = True,
    mount: str = "", read_only: bool | None = None, port: int = 564,
) -> ModifySettingRequest:  # fmt: skip
    """Return the request by which a share is added to, or removed from, host and guest."""
    settings = LCOWMappedDirectory(
        mount_path=mount or f"{MOUNT}/{name}",
        share_name=name,
        port=564,
        read_only=bool(flags & READ_ONLY) if read_only is None else read_only,
    )
    return ModifySettingRequest(
        resource_path=RESOURCE,
        request_type=kind,
        settings=Plan9Share(name=name, access_name=name, path=str(path), port=port, flags=flags, allowed_files=list(allowed)),
        guest_request=GuestRequest(request_type=kind, resource_type="MappedDirectory", settings=settings) if guest else None,
    )


@asynccontextmanager
async def shared(vm: UtilityVM, name: str, path: Path, flags: int = METADATA, allowed: tuple[str, ...] = ()) -> AsyncIterator[str]:
    """Share `path`, and give its place in the guest."""
    await vm.modify(request("Add", name, path, flags, allowed))
    try:
        yield f"{MOUNT}/{name}"
    finally:
        await vm.modify(request("Remove", name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("from the host\n")
    return shared


def servers(owner: int = os.getpid()) -> list[int]:
    """Return the processes below `owner` that serve shares."""
    found = []
    for pid in below(owner):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"utilityvm.compute.plan9.serve" in words and b"setpriv" not in words[0] and b"unshare" not in words[0]:
                found.append(pid)
    return found


async def said(vm: UtilityVM, script: str) -> str:
    done = await sh(vm, script)
    assert done.code == 0, done
    return done.out.decode()


# -- what is in the guest --------------------------------------------------------------------------------------------------


async def test_files_are_read_and_written_moved_and_removed(vm: UtilityVM, folder: Path) -> None:
    async with shared(vm, "0", folder) as place:
        assert await said(vm, f"cat {place}/file") == "from the host\n"
        await said(vm, f"cd {place}; mkdir d; echo from the guest >d/new; mv d/new d/moved; ln -s moved d/link; cp file d/copy; rm file")
        assert (folder / "d" / "moved").read_text() == "from the guest\n"
        assert os.readlink(folder / "d" / "link") == "moved"  # noqa: PTH115
        assert (folder / "d" / "copy").read_text() == "from the host\n"
        assert names(folder) == ["d"]
        assert await said(vm, f"cat {place}/d/link; rm -r {place}/d; ls {place}") == "from the guest\n"
    assert names(folder) == []


async def test_modes_times_and_owners_are_kept(vm: UtilityVM, folder: Path) -> None:
    async with shared(vm, "0", folder) as place:
        script = f"cd {place}; chmod 640 file; touch -d '2001-02-03 04:05:06' file; touch own; chmod 4755 own; stat -c '%a %Y %u' file own"
        told = (await said(vm, script)).splitlines()
        host = (folder / "file").stat()
        assert told[0] == f"640 {int(host.st_mtime)} 0"
        assert stat.S_IMODE(host.st_mode) == 0o640
        assert told[1].split()[::2] == ["4755", "0"]
        assert (folder / "own").stat().st_uid == os.geteuid()
        if os.geteuid() == 0:
            await said(vm, f"chown 5:6 {place}/own")
            assert (folder / "own").stat()[4:6] == (5, 6)
        else:
            assert b"not permitted" in (await sh(vm, f"chown 5 {place}/own")).err


async def test_a_guests_user_is_kept_from_what_is_not_his(vm: UtilityVM, folder: Path) -> None:
    (folder / "private").write_text("x")
    (folder / "private").chmod(0o600)
    async with shared(vm, "0", folder) as place:
        process = await vm.create_process(["sh", "-c", f"chmod 755 {MOUNT}; cat {place}/file; cat {place}/private; echo x >{place}/own"])
        await process.wait()
        await process.close()
        done = await vm.run(["sh", "-c", f"cat {place}/file; cat {place}/private"], user="nobody")
        assert (done.exit_code, done.stdout) == (1, b"from the host\n")
        assert b"Permission denied" in done.stderr


async def test_changes_of_the_host_are_seen_at_once_and_files_grow_on_both_sides(vm: UtilityVM, folder: Path) -> None:
    async with shared(vm, "0", folder) as place:
        assert await said(vm, f"ls {place}; cat {place}/file") == "file\nfrom the host\n"
        (folder / "new").write_text("1")
        (folder / "file").write_text("changed, and longer than before\n")
        assert await said(vm, f"ls {place}; cat {place}/file") == "file\nnew\nchanged, and longer than before\n"
        (folder / "file").unlink()
        (folder / "other").write_text("another\n")
        (folder / "other").rename(folder / "file")
        assert await said(vm, f"cat {place}/file; echo 2 >>{place}/new") == "another\n"
        with (folder / "new").open("a") as file:
            file.write("3\n")
        assert await said(vm, f"cat {place}/new") == "12\n3\n"


async def test_a_program_runs_from_a_share_and_its_output_passes_through_a_pipe(vm: UtilityVM, folder: Path) -> None:
    """The kernel holds a pipe's lock while a share's server has not answered: who serves shares in the guest may not touch pipes."""
    (folder / "large").write_bytes(os.urandom(1 << 20))
    (folder / "program").write_text("#!/bin/sh\necho it runs\n")
    (folder / "program").chmod(0o755)
    async with shared(vm, "0", folder) as place:
        assert await said(vm, f"cp /bin/busybox {place}/; {place}/program; {place}/busybox echo and this") == "it runs\nand this\n"
        for _ in range(5):
            done = await vm.run(["cat", f"{place}/large"])
            assert done.stdout == (folder / "large").read_bytes()
        done = await vm.run([f"{place}/busybox", "sha256sum", f"{place}/large"], cwd=place)
        assert done.exit_code == 0
        written = await vm.run(["sh", "-c", f"cat >{place}/written"], input=b"x" * 300_000)
        assert (written.exit_code, (folder / "written").stat().st_size) == (0, 300_000)


async def test_two_shares_at_once_are_two(vm: UtilityVM, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    async with asyncio.TaskGroup() as group:
        for name in ("one", "two"):
            group.create_task(vm.modify(request("Add", name, tmp_path / name)))
    assert await said(vm, f"cat {MOUNT}/one/which {MOUNT}/two/which") == "onetwo"
    await vm.modify(request("Remove", "one"))
    assert await said(vm, f"cat {MOUNT}/two/which; ls {MOUNT}") == "twotwo\n"
    await vm.modify(request("Remove", "two"))
    assert servers() == []


async def test_a_file_is_shared_as_its_folder_restricted_to_it(vm: UtilityVM, folder: Path) -> None:
    (folder / "secret").write_text("secret")
    async with shared(vm, "0", folder, METADATA | RESTRICT, ("file",)) as place:
        assert await said(vm, f"ls {place}; cat {place}/file; echo new >{place}/file") == "file\nfrom the host\n"
        for script in (f"cat {place}/secret", f"echo x >{place}/other", f"mv {place}/file {place}/other", f"ln {place}/file {place}/other"):
            assert (await sh(vm, script)).code != 0, script
    assert (folder / "file").read_text() == "new\n"
    assert names(folder) == ["file", "secret"]


async def test_read_only_is_not_the_mounts_word_alone(vm: UtilityVM, folder: Path) -> None:
    """The guest mounts the share writable; the server refuses."""
    await vm.modify(request("Add", "0", folder, METADATA | READ_ONLY, read_only=False))
    place = f"{MOUNT}/0"
    assert "9p rw" in await said(vm, f"grep {place} /proc/mounts")
    for script in (f"echo x >{place}/file", f"echo x >{place}/new", f"rm {place}/file", f"chmod 777 {place}/file", f"mkdir {place}/d"):
        done = await sh(vm, script)
        assert done.code != 0, script
        assert b"Read-only file system" in done.err, done
    await vm.modify(request("Remove", "0"))
    async with shared(vm, "0", folder, METADATA | READ_ONLY):
        assert "9p ro" in await said(vm, f"grep {place} /proc/mounts")
    assert (folder / "file").read_text() == "from the host\n"


# -- removal and failures --------------------------------------------------------------------------------------------------


async def test_a_share_in_use_is_not_removed_and_says_so(vm: UtilityVM, folder: Path) -> None:
    await vm.modify(request("Add", "0", folder))
    process = await vm.create_process(["sh", "-c", "echo there; cat"], stdin=True, cwd=f"{MOUNT}/0")
    assert await line(process) == b"there\n"
    with pytest.raises(GuestError, match=rf"guest modify: .*unmounting {MOUNT}/0: device or resource busy"):
        await vm.modify(request("Remove", "0"))
    assert await said(vm, f"cat {MOUNT}/0/file") == "from the host\n"
    await process.kill()
    await process.wait()
    await process.close()
    await vm.modify(request("Remove", "0"))
    assert await said(vm, f"ls {MOUNT}") == ""


async def test_a_server_that_is_killed_is_an_error_in_the_guest_and_no_more(vm: UtilityVM, folder: Path) -> None:
    async with shared(vm, "0", folder) as place:
        assert await said(vm, f"cat {place}/file") == "from the host\n"
        (server,) = servers()
        os.kill(server, signal.SIGKILL)
        async with asyncio.timeout(LIMIT):
            done = await sh(vm, f"cat {place}/file")
            while done.code == 0 or b"reset" in done.err:  # what is under way is told that the connection was reset
                done = await sh(vm, f"cat {place}/file")
        assert done.code == 1
        assert b"Input/output error" in done.err
        assert (await sh(vm, "true")) == Done(0, b"")
    async with shared(vm, "0", folder) as place:
        assert await said(vm, f"cat {place}/file") == "from the host\n"


async def test_a_share_that_the_host_removes_while_it_is_mounted_is_an_error_in_the_guest(vm: UtilityVM, folder: Path) -> None:
    await vm.modify(request("Add", "0", folder))
    await vm.modify(request("Remove", "0", guest=False))
    assert (await sh(vm, f"cat {MOUNT}/0/file")).code != 0
    assert b"Input/output error" in (await sh(vm, f"cat {MOUNT}/0/file")).err
    assert servers() == []
    unmount = request("Remove", "0").guest_request
    await vm.modify(ModifySettingRequest(request_type="Remove", guest_request=unmount))
    await vm.modify(ModifySettingRequest(request_type="Remove", guest_request=unmount))  # again: nothing is there


async def test_what_fails_in_the_guest_is_taken_back_on_the_host(vm: UtilityVM, folder: Path) -> None:
    for mount, why in (
        ("relative", "MountPath must be an absolute path"),
        ("/proc/no", "failed to mount directory for mapped directory /proc/no"),
    ):
        with pytest.raises(GuestError, match=why):
            await vm.modify(request("Add", "0", folder, mount=mount))
        assert servers() == []
    async with shared(vm, "0", folder):
        with pytest.raises(GuestError, match=f"{MOUNT}/0: a folder of the host is mounted there already"):
            await vm.modify(request("Add", "1", folder, mount=f"{MOUNT}/0"))
        with pytest.raises(Exists, match="share 0: exists already"):
            await vm.modify(request("Add", "0", folder))
        wrong = request("Add", "2", folder).guest_request
        assert isinstance(wrong, GuestRequest)
        with pytest.raises(GuestError, match="no such file or directory"):
            await vm.modify(ModifySettingRequest(request_type="Add", guest_request=wrong))
        assert await said(vm, f"ls {MOUNT}") == "0\n"


async def test_what_cannot_be_shared_is_refused_by_name(vm: UtilityVM, folder: Path) -> None:
    with pytest.raises(NotFound, match=f"share 0: {folder}/none: no such folder"):
        await vm.modify(request("Add", "0", folder / "none"))
    with pytest.raises(NotFound, match=f"share 0: {folder}/file: not a folder"):
        await vm.modify(request("Add", "0", folder / "file"))
    with pytest.raises(Unsupported, match=r"Port: 565: shares are served on port 564"):
        await vm.modify(request("Add", "0", folder, port=565))
    with pytest.raises(Unsupported, match=r"Flags: 0x8: the flags that are carried out are"):
        await vm.modify(request("Add", "0", folder, 0x08 | METADATA))
    with pytest.raises(InvalidOptions, match="AllowedFiles: missing"):
        await vm.modify(request("Add", "0", folder, RESTRICT))
    with pytest.raises(InvalidOptions, match=r"AllowedFiles\[0\]: '\.\./secret'"):
        await vm.modify(request("Add", "0", folder, RESTRICT, ("../secret",)))
    with pytest.raises(NotFound, match="share '0': there is none"):
        await vm.modify(request("Remove", "0", guest=False))
    with pytest.raises(Unsupported, match="Update: a share is added and removed, and not changed"):
        await vm.modify(request("Update", "0", folder, guest=False))
    assert servers() == []


# -- the whole life --------------------------------------------------------------------------------------------------------

OWNER = """
import asyncio, sys
from tests.vm.test_shares import request
from utilityvm import create_lcow, default_options_lcow

async def main():
    async with await create_lcow(default_options_lcow(boot_files_path=sys.argv[1], memory_size_in_mb=256, processor_count=1)) as vm:
        await vm.start()
        await vm.modify(request("Add", "0", sys.argv[2]))
        print("shared", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_nothing_is_left_when_the_owner_is_killed(boot_files: BootFiles, folder: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(boot_files.folder), str(folder)), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(LIMIT):
        assert await owner.stdout.readline() == b"shared\n"
    gone = [os.pidfd_open(pid) for pid in below(owner.pid)]
    assert len(servers(owner.pid)) == 1
    owner.kill()
    await owner.wait()
    await all_ended(gone)
    assert names(folder) == ["file"]


@pytest_asyncio.fixture
async def other(boot_files: BootFiles) -> AsyncIterator[UtilityVM]:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as machine:
        await machine.start()
        yield machine


@pytest.mark.asyncio(loop_scope="function")
async def test_a_vm_that_is_closed_ends_its_shares(other: UtilityVM, folder: Path) -> None:
    await other.modify(request("Add", "0", folder))
    assert servers()
    await other.close()
    assert servers() == []


@pytest.mark.asyncio(loop_scope="function")
async def test_shares_of_a_document_are_served_from_the_start_or_there_is_no_machine(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "kernel").write_bytes(kernel("hello\n", Then.HANG))
    service = QemuService(cache=tmp_path / "cache", environ={**os.environ, "UVM_ACCEL": "tcg"})

    async def created(path: Path) -> QemuMachine:
        told = document(tmp_path / "kernel")
        assert told.virtual_machine is not None
        shares = Plan9(shares=[Plan9Share(name="0", path=str(path), port=564, flags=METADATA)])
        machine = msgspec.structs.replace(told.virtual_machine, devices=Devices(plan9=shares))
        return await service.create(VmId("with-a-share"), msgspec.structs.replace(told, virtual_machine=machine))

    running = await created(folder)
    await running.start()
    assert len(servers()) == 1
    await running.close()
    refused = await created(folder / "none")
    with pytest.raises(NotFound, match="share 0: .*none: no such folder"):
        await refused.start()
    await refused.close()
    assert servers() == []
