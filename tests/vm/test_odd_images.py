"""Images with odd things in them: what cannot run, what is mounted over, and what is to be filled."""

import os
import tarfile
from pathlib import Path

import pytest

from utilityvm import GuestError, NotFound, Sandbox
from utilityvm.boot.files import BootFiles
from utilityvm.containers.volumes import volume_file
from utilityvm.store.layout import Layout

from .odd_image import entry, image, run_in
from .running import LIMIT, Done, uvm

ELSEWHERE = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\0\xb7\0" + bytes(44)  # a program for aarch64
FOLDER, LINK = tarfile.DIRTYPE, tarfile.SYMTYPE


async def test_a_program_that_the_kernel_does_not_run_ends_with_126_and_one_without_its_loader_with_127(
    boot_files: BootFiles, tmp_path: Path
) -> None:
    programs = {"garbage": b"\0\1", "elsewhere": ELSEWHERE, "nolang": b"#!/nowhere/sh\n"}
    async with image(tmp_path, boot_files, {name: (entry(), content) for name, content in programs.items()}) as name:
        known = f" in image {name}\n".encode()
        bad = b"uvm: /%s: cannot be executed, being for another machine or a script without #!," + known
        assert await run_in(name, "/garbage") == Done(126, b"", bad % b"garbage")
        assert await run_in(name, "/elsewhere") == Done(126, b"", bad % b"elsewhere")
        missing = b"uvm: /nolang: its interpreter or dynamic loader is missing" + known
        assert await run_in(name, "/nolang") == Done(127, b"", missing)
        assert await run_in(name, "/nolang", flags=("-t",)) == Done(127, b"", missing)
        async with Sandbox(name, timeout=LIMIT) as box:
            with pytest.raises(GuestError, match="^/garbage: cannot be executed, being for another machine"):
                await box.run("/garbage")
            with pytest.raises(GuestError, match="^/nolang: its interpreter or dynamic loader is missing in sandbox"):
                await box.run("/nolang")
            with pytest.raises(NotFound):
                await box.run("/nothing")
            assert (await box.run("sh", "-c", "echo of the program >&2; exit 1")).stderr == b"of the program\n"
            terminal = await box.terminal("sh", "-c", "echo hello; sleep 1; exit 7")
            assert (await terminal.stdout.read(), await terminal.wait()) == (b"hello\r\n", 7)
            await terminal.close()


async def test_an_images_volumes_are_beside_its_root_with_what_the_image_has_there(boot_files: BootFiles, tmp_path: Path) -> None:
    entries = {
        "data": (entry(FOLDER, 0o710, owner=5), b""),
        "data/file": (entry(mode=0o640, owner=6), b"of the image\n"),
        "data/link": (entry(LINK, target="/etc/passwd"), b""),
    }
    async with image(tmp_path, boot_files, entries, volumes=("/data", "/new/deep")) as name:
        script = (
            "stat -c '%a %u %g' /data /data/file; readlink /data/link; cat /data/file; touch /data/x /new/deep/x; df -P /data | tail -1"
        )
        for flags in ((), ("--read-only",)):
            done = await run_in(name, "sh", "-c", script, flags=flags)
            assert (done.code, done.err) == (0, b"")
            *lines, disk = done.out.decode().splitlines()
            assert lines == ["710 5 5", "640 6 6", "/etc/passwd", "of the image"]
            assert disk.startswith("/dev/sd")


async def test_a_volume_that_is_empty_is_filled_from_the_image_once(boot_files: BootFiles, tmp_path: Path) -> None:
    volume = f"filled-{os.getpid()}"
    try:
        async with image(tmp_path, boot_files, {"data/file": (entry(mode=0o644), b"of the image\n")}) as name:
            flags = ("-v", f"{volume}:/data:size=64m")
            assert (await run_in(name, "ls", "/data", flags=("-v", f"{volume}:/data:size=64m,nocopy"))).out == b""
            assert (await run_in(name, "cat", "/data/file", flags=flags)).out == b"of the image\n"
            assert (await run_in(name, "sh", "-c", "rm /data/file; touch /data/mine", flags=flags)).code == 0
            assert (await run_in(name, "ls", "/data", flags=flags)).out == b"mine\n"
    finally:
        volume_file(Layout.of_user(), volume).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"proc": (entry(LINK, target="/etc"), b"")}, b"mount /proc: /proc of the container's root is no folder, but a link or a file"),
        ({"sys": (entry(), b"")}, b"mount /sys: /sys of the container's root is no folder"),
        ({"dev": (entry(LINK, target="/usr"), b"")}, b"mount /dev: /dev of the container's root is no folder"),
    ],
)
async def test_an_image_in_which_nothing_can_be_mounted_is_told_by_its_name(
    boot_files: BootFiles, tmp_path: Path, entries: dict[str, tuple[tarfile.TarInfo, bytes]], says: bytes
) -> None:
    async with image(tmp_path, boot_files, entries) as name:
        done = await run_in(name, "true")
        assert (done.code, done.out) == (125, b"")
        assert done.err.startswith(f"uvm: image {name}: ".encode())
        assert says in done.err


async def test_an_image_whose_etc_leads_elsewhere_runs(boot_files: BootFiles, tmp_path: Path) -> None:
    async with image(tmp_path, boot_files, {"etc": (entry(LINK, target="/usr"), b"")}) as name:
        assert await run_in(name, "/bin/busybox", "echo", "alive") == Done(0, b"alive\n")


async def test_a_folder_in_the_place_of_a_file_of_ours_is_left_alone(boot_files: BootFiles, tmp_path: Path) -> None:
    async with image(tmp_path, boot_files, {"etc/resolv.conf": (entry(FOLDER), b"")}) as name:
        assert await run_in(name, "ls", "-d", "/etc/resolv.conf/") == Done(0, b"/etc/resolv.conf/\n")


@pytest.mark.parametrize(
    ("source", "says"),
    [("/", b"is the whole of this host"), ("/dev/null", b"is neither a file nor a folder"), ("/no/where", b"no such file")],
)
async def test_what_cannot_be_shared_is_told_before_anything_boots(source: str, says: bytes) -> None:
    done = await uvm("run", "--timeline", "-v", f"{source}:/x", "busybox", "true")
    assert (done.code, done.out) == (125, b"")
    assert says in done.err
    assert b"kernel" not in done.err


async def test_an_image_of_another_system_is_refused_by_its_name(boot_files: BootFiles, tmp_path: Path) -> None:
    async with image(tmp_path, boot_files, {}, system="windows") as name:
        done = await run_in(name, "true")
    assert (done.code, done.out) == (125, b"")
    assert done.err.startswith(f"uvm: image {name}: is for windows/".encode())
    assert done.err.endswith(b", and the guest is Linux\n")
