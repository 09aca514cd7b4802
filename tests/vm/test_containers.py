"""Containers in a real guest, from a real image: what they are, what they may do, what they have, and what is left of them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from utilityvm import (
    Container,
    Exists,
    GuestError,
    InvalidOptions,
    UtilityVM,
    create_lcow,
    default_options_lcow,
)
from utilityvm.boot.files import BootFiles
from utilityvm.containers.volumes import lock_volume, volume_file
from utilityvm.images.store import ImageStore
from utilityvm.store.layout import Layout
from utilityvm.wire.gcs import FILE_NOT_FOUND, PATH_NOT_FOUND, NotificationType

from .counting import assert_nothing_left, count
from .disks import ext4
from .running import LIMIT, Done, ended, line, sh, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
NAMESPACES = ("pid", "ipc", "uts", "mount", "network", "cgroup")
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
BITS = sum(1 << bit for bit in (0, 1, 3, 5, 6, 7))
PATH = "PATH=/usr/bin:/usr/sbin:/bin:/sbin"


@pytest.fixture(scope="module")
def layers(boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """The layers of the image that comes with the boot files."""
    folder = tmp_path_factory.mktemp("images")
    folder.chmod(0o755)
    return ImageStore(folder, {"busybox": boot_files.folder / "busybox.tar"}).get("busybox").layers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vm(boot_files: BootFiles) -> AsyncIterator[UtilityVM]:
    """A running VM with room for containers."""
    async with await a_vm(boot_files) as machine:
        await machine.start()
        yield machine
        assert machine.containers == ()


async def a_vm(boot_files: BootFiles, **options: object) -> UtilityVM:
    return await create_lcow(
        default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=384, processor_count=1, **options)
    )


def spec(*argv: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """A specification as a careful user writes it; `process` and `linux` add to its own."""
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    process = {
        "args": list(argv or ("sleep", "1000")),
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "env": [PATH],
        "capabilities": capabilities,
    }
    linux = {"namespaces": [{"type": kind} for kind in NAMESPACES]}
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666", "mode=0620"]},
        *more.pop("mounts", []),
    ]
    return {
        "ociVersion": "1.0.2",
        "process": process | more.pop("process", {}),
        "linux": linux | more.pop("linux", {}),
        "mounts": mounts,
    } | more


@asynccontextmanager
async def running(vm: UtilityVM, layers: Sequence[Path], name: str = "c", **more: Any) -> AsyncIterator[Container]:  # noqa: ANN401
    """A container that sleeps."""
    parts = {key: more.pop(key) for key in ("scratch_size_in_bytes", "scratch", "pod") if key in more}
    async with await vm.create_container(name, spec(**more), layers=layers, **parts) as container:
        await container.start()
        yield container


async def script(container: Container, text: str, **more: Any) -> Done:  # noqa: ANN401
    done = await container.run(["sh", "-c", text], timeout=LIMIT, **more)
    return Done(done.exit_code, done.stdout, done.stderr)


async def said(vm: UtilityVM, layers: Sequence[Path], text: str, **more: Any) -> Done:  # noqa: ANN401
    """What the first process of a container says, a shell's script, and how it ends."""
    parts = {key: more.pop(key) for key in ("scratch_size_in_bytes", "scratch", "pod") if key in more}
    async with await vm.create_container("one", spec("sh", "-c", text, **more), layers=layers, **parts) as container:
        return await ended(await container.start())


# -- what it is ---------------------------------------------------------------------------------------------------------


async def test_a_container_has_its_own_name_root_processes_and_exit_code(vm: UtilityVM, layers: Sequence[Path]) -> None:
    text = "hostname; cat /etc/hostname; echo $$; ls /proc | grep -c '^[0-9]'; awk '$2 == \"/\" { print $3 }' /proc/mounts"
    done = await said(vm, layers, text + "; echo oh >&2; exit 7", hostname="box")
    assert done == Done(7, b"box\nbox\n1\n3\noverlay\n", b"oh\n")


async def test_environment_folder_and_input_are_what_was_said(vm: UtilityVM, layers: Sequence[Path]) -> None:
    process = {"cwd": "/var/tmp", "env": [PATH, "A=b c", "EMPTY="]}
    wanted = spec("sh", "-c", 'cat; pwd; echo "$A-${EMPTY-unset}-"', process=process)
    async with await vm.create_container("c", wanted, layers=layers) as container:
        first = await container.start(stdin=True)
        await first.stdin.write(b"x" * 200_000)
        await first.stdin.write_eof()
        assert await ended(first) == Done(0, b"x" * 200_000 + b"/var/tmp\nb c--\n")
        assert (await container.wait()).how is NotificationType.UNEXPECTED_EXIT


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({"uid": 0, "gid": 0}, b"uid=0(root) gid=0(root)"),
        ({"uid": 33, "gid": 33, "additionalGids": [8, 100]}, b"uid=33(www-data) gid=33(www-data) groups=8(mail),100(users)"),
        ({"uid": 0, "gid": 0, "username": "nobody"}, b"uid=65534(nobody) gid=65534(nogroup)"),
        ({"uid": 0, "gid": 0, "username": "8:users"}, b"uid=8(mail) gid=100(users)"),
        ({"uid": 4242, "gid": 4243}, b"uid=4242 gid=4243"),
    ],
)
async def test_a_user_is_found_by_number_or_in_the_images_own_lists(vm: UtilityVM, layers: Sequence[Path], user: Any, told: bytes) -> None:  # noqa: ANN401
    assert (await said(vm, layers, "id", process={"user": user})).out.split(b"\n")[0].startswith(told)


async def test_a_user_that_the_image_does_not_have_is_told(vm: UtilityVM, layers: Sequence[Path]) -> None:
    with pytest.raises(GuestError, match="no such user: stranger"):
        await said(vm, layers, "id", process={"user": {"uid": 0, "gid": 0, "username": "stranger"}})
    assert (await said(vm, layers, "true")).code == 0, "the id of a creation that failed is free"


async def test_it_has_the_capabilities_that_it_was_given_and_no_others(vm: UtilityVM, layers: Sequence[Path]) -> None:
    told = await said(vm, layers, "grep -E 'Cap(Eff|Bnd)' /proc/self/status; mount -t tmpfs x /mnt || echo refused")
    assert told.out.decode().split() == ["CapEff:", f"{BITS:016x}", "CapBnd:", f"{BITS:016x}", "refused"]


async def test_system_calls_are_filtered(vm: UtilityVM, layers: Sequence[Path]) -> None:
    rules = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    done = await said(vm, layers, "mkdir /tmp/x; grep '^Seccomp:' /proc/self/status", linux={"seccomp": rules})
    assert b"not supported" in done.err.lower()
    assert done.out.split() == [b"Seccomp:", b"2"]


async def test_limits_of_each_process_and_sysctls_are_set(vm: UtilityVM, layers: Sequence[Path]) -> None:
    process = {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]}
    text = "ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"
    sysctl = {"net.ipv4.ip_unprivileged_port_start": "42", "kernel.msgmax": "5000"}
    assert (await said(vm, layers, text, process=process, linux={"sysctl": sysctl})).out.split() == [b"77", b"99", b"42", b"5000"]


async def cgroup(vm: UtilityVM, name: str, *files: str) -> list[str]:
    done = await sh(vm, "cd /sys/fs/cgroup/containers/" + name + " && cat " + " ".join(files))
    assert done.code == 0, done
    return done.out.decode().splitlines()


async def test_limits_of_the_container_are_the_kernels_and_can_be_changed_while_it_runs(vm: UtilityVM, layers: Sequence[Path]) -> None:
    limits = {"memory": {"limit": 64 * MIB}, "cpu": {"quota": 20_000, "period": 100_000, "shares": 2048}, "pids": {"limit": 50}}
    files = ("memory.max", "cpu.max", "pids.max")
    async with running(vm, layers, linux={"resources": limits}) as container:
        assert await cgroup(vm, "c", *files) == [str(64 * MIB), "20000 100000", "50"]
        await container.update({"memory": {"limit": 32 * MIB}, "cpu": {"quota": 30_000, "period": 100_000}})
        assert await cgroup(vm, "c", *files) == [str(32 * MIB), "30000 100000", "50"]
        told = await container.stats()
        assert told.memory is not None
        assert told.memory.usage is not None
        assert told.memory.usage.limit == 32 * MIB
        assert 0 < told.memory.usage.usage <= 32 * MIB
        assert told.pids is not None
        assert (told.pids.current, told.pids.limit) == (1, 50)


async def test_too_many_processes_are_refused_to_it_alone(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers, linux={"resources": {"pids": {"limit": 8}}}) as container:
        done = await script(container, "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; echo no")
        assert b"fork" in done.err
        assert (await sh(vm, "true")).code == 0


async def test_memory_that_ran_out_is_told_as_that(vm: UtilityVM, layers: Sequence[Path]) -> None:
    limits = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    async with await vm.create_container("c", spec("tail", "/dev/zero", linux={"resources": limits}), layers=layers) as container:
        await container.start()
        told = await container.wait(timeout=LIMIT)
        assert (told.exit_code, told.oom_killed) == (137, True)
    assert (await sh(vm, "true")).code == 0, "the VM has the memory that its container had not"


# -- its root and mounts ------------------------------------------------------------------------------------------------


async def test_what_is_written_is_this_containers_alone_and_goes_with_it(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers, "a") as one, running(vm, layers, "b") as two:
        assert (await script(one, "echo mine >/etc/motd; rm /bin/vi; mkdir /new")).code == 0
        assert (await script(two, "cat /etc/motd; ls -d /bin/vi /new")).out == b"/bin/vi\n"
    assert (await said(vm, layers, "ls /etc/motd /bin/vi")).out == b"/bin/vi\n"


async def test_the_scratch_disk_has_the_size_that_was_asked_for(vm: UtilityVM, layers: Sequence[Path]) -> None:
    done = await said(
        vm, layers, "df -k / | awk 'NR == 2 { print $2 }'; dd if=/dev/zero of=/big bs=1M count=100", scratch_size_in_bytes=64 * MIB
    )
    assert 40_000 < int(done.out.split()[0]) <= 65_536
    assert (b"No space left" in done.err, done.code) == (True, 1)


async def test_the_host_gets_back_what_is_deleted_from_a_scratch_disk(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers) as container:
        (disk,) = vm.scsi.disks

        def taken() -> int:
            return os.stat(disk.host_path).st_blocks * 512  # noqa: PTH116 (a path to a descriptor)

        assert (await script(container, "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null; sync")).code == 0
        assert taken() > 40 * MIB
        assert (await script(container, "rm /big; sync")).code == 0
        assert taken() < 5 * MIB


async def test_a_root_can_be_read_only_with_a_scratch_disk_and_without(vm: UtilityVM, layers: Sequence[Path]) -> None:
    text = "touch /x 2>&1; echo y >/data/y && cat /data/y"
    more = {"mounts": [{"destination": "/data", "type": "tmpfs", "source": "tmpfs"}]}
    with_disk = await said(vm, layers, text, root={"readonly": True}, **more)
    assert with_disk.out == b"touch: /x: Read-only file system\ny\n"
    elsewhere = {"mounts": [{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}]}
    without = await said(vm, layers, text.replace("/data", "/mnt"), scratch_size_in_bytes=None, **elsewhere)
    assert without.out == b"touch: /x: Read-only file system\ny\n"


async def test_containers_can_share_a_disk_and_a_disk_of_ones_own_keeps_what_is_written(
    vm: UtilityVM, layers: Sequence[Path], tmp_path: Path
) -> None:
    async with running(vm, layers, "a") as one, running(vm, layers, "b", scratch=one) as two:
        assert (await script(one, "echo x >/x")).code == 0
        assert (await script(two, "cat /x")).code == 1, "their roots are their own"
        assert [disk.references for disk in vm.scsi.disks] == [2]
    disk = ext4(tmp_path / "mine.img", 32)
    for text, told in (("echo kept >/x", b""), ("cat /x", b"kept\n")):
        assert (await said(vm, layers, text, scratch=disk)).out == told
    await vm._containers.settled()
    assert vm.scsi.disks == ()


async def test_folders_and_files_of_the_host_are_seen_written_and_protected(vm: UtilityVM, layers: Sequence[Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("of the host")
    (folder / "secret").write_text("not shared")
    (tmp_path / "link").symlink_to(folder / "file")
    mounts = [
        {"destination": "/rw", "type": "bind", "source": str(folder)},
        {"destination": "/ro", "type": "bind", "source": str(folder), "options": ["rbind", "ro"]},
        {"destination": "/etc/one", "type": "bind", "source": str(folder / "file"), "options": ["bind", "ro"]},
        {"destination": "/etc/two", "type": "bind", "source": str(tmp_path / "link"), "options": ["ro"]},
        {"destination": "/small", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
    ]
    async with running(vm, layers, mounts=mounts) as container:
        text = "cat /ro/file /etc/one /etc/two; echo new >/rw/new; touch /ro/x 2>&1; echo x 2>/dev/null >/etc/one || echo protected; "
        done = await script(container, text + "df -m /small | tail -1")
        words = done.out.decode()
        assert words.startswith("of the hostof the hostof the hosttouch: /ro/x: Read-only file system\nprotected\n")
        assert words.split()[-5] == "1"
        assert (folder / "new").read_text() == "new\n"
        assert [share.state for share in vm.plan9.shares] == ["attached"] * 4
    assert vm.plan9.shares == ()


async def test_disks_are_mounted_where_they_are_wanted(vm: UtilityVM, layers: Sequence[Path], tmp_path: Path) -> None:
    disk = ext4(tmp_path / "data.img", 16)
    for options, told in (([], b"yes\n"), (["ro"], b"touch: /d/z: Read-only file system\nyes\n")):
        mounts = [{"destination": "/d", "type": "virtual-disk", "source": str(disk), "options": options}]
        text = "echo yes >/d/x; cat /d/x" if not options else "touch /d/z 2>&1; cat /d/x"
        assert (await said(vm, layers, text, mounts=mounts)).out == told


async def test_a_volume_is_kept_from_one_vm_to_the_next_and_is_one_vms_at_a_time(
    vm: UtilityVM, boot_files: BootFiles, layers: Sequence[Path]
) -> None:
    name = f"test-{os.getpid()}"
    layout = Layout.of_user()

    def mounts(*options: str) -> list[dict[str, object]]:
        return [{"destination": "/v", "type": "volume", "source": name, "options": ["size=32m", *options]}]

    try:
        async with running(vm, layers, mounts=mounts()) as container:
            assert (await script(container, "ls -A /v; echo kept >/v/x")).out == b""
            async with await a_vm(boot_files) as other:
                await other.start()
                with pytest.raises(Exists, match=f"volume {name}: cannot be had to write: another VM has it"):
                    await other.create_container("c", spec(mounts=mounts()), layers=layers)
                await container.close()
                assert (await said(other, layers, "cat /v/x; touch /v/y 2>&1", mounts=mounts("ro"))).out == (
                    b"kept\ntouch: /v/y: Read-only file system\n"
                )
                await other.create_container("left", spec("sh", "-c", "echo more >>/v/x"), layers=layers)
                left = await other.create_container("writes", spec("sh", "-c", "echo more >>/v/x", mounts=mounts()), layers=layers)
                await left.start()
                await left.wait(timeout=LIMIT)  # and its VM ends without a word to it
        assert (await said(vm, layers, "cat /v/x", mounts=mounts())).out == b"kept\nmore\n"
        lock_volume(layout, name, read_only=False).close()
    finally:
        volume_file(layout, name).unlink(missing_ok=True)


# -- its processes ------------------------------------------------------------------------------------------------------


async def test_more_processes_run_in_it_with_its_rights_and_as_others(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers, process={"env": [PATH, "A=first"]}) as container:
        told = await script(container, "echo $A $B; pwd; id -u; grep CapEff /proc/self/status", env={"B": "more"}, cwd="/tmp")
        assert told.out.split() == [b"first", b"more", b"/tmp", b"0", b"CapEff:", b"%016x" % BITS]
        assert (await script(container, "id -un; id -gn; grep CapEff /proc/self/status", user="www-data:mail")).out.split() == [
            b"www-data",
            b"mail",
            b"CapEff:",
            b"0" * 16,
        ]
        assert (await container.run(["cat"], input=b"y" * 300_000, timeout=LIMIT)).stdout == b"y" * 300_000
        assert len(await container.pids()) == 1
        for argv, cwd, said, result in (
            (["/no/program"], None, "/no/program: no such program", FILE_NOT_FOUND),
            (["pwd"], "/no/folder", "/no/folder: no such folder", PATH_NOT_FOUND),
            (["pwd"], "/etc/passwd", "/etc/passwd: no such folder", PATH_NOT_FOUND),
        ):
            with pytest.raises(GuestError, match=f"^{said} in vm {vm.id}: container {container.id}$") as caught:
                await container.exec(argv, cwd=cwd)
            assert caught.value.result == result
        assert len(await container.pids()) == 1


async def test_a_process_has_a_terminal_that_can_be_resized(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers) as container:
        process = await container.exec(["sh", "-c", "stty size; read x; stty size; tty"], stdin=True, console_size=(20, 60))
        assert await line(process) == b"20 60\r\n"
        await process.resize(height=30, width=90)
        await process.stdin.write(b"\n")
        done = await ended(process)
        assert (done.code, done.out.split()) == (0, [b"30", b"90", b"/dev/pts/0"])
    first = spec("sh", "-c", "stty size; tty", process={"terminal": True, "consoleSize": {"height": 11, "width": 22}})
    async with await vm.create_container("t", first, layers=layers) as container:
        assert (await ended(await container.start(stdin=True))).out.split() == [b"11", b"22", b"/dev/pts/0"]


@pytest.mark.parametrize("everything", [False, True])
async def test_signals_reach_one_process_or_all(vm: UtilityVM, layers: Sequence[Path], *, everything: bool) -> None:
    trap = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    async with await vm.create_container("c", spec("sh", "-c", trap), layers=layers) as container:
        first = await container.start()
        assert await line(first) == b"ready\n"
        other = await container.exec(["sh", "-c", trap])
        assert await line(other) == b"ready\n"
        assert await container.kill(signal.SIGTERM, all=everything)
        assert await line(first) == b"heard\n"
        told = await container.wait(timeout=LIMIT)
        assert (told.exit_code, told.how) == (5, NotificationType.GRACEFUL_EXIT)
        assert await other.wait(timeout=LIMIT) in ({5, 137} if everything else {137})


async def test_a_process_of_its_is_signalled_alone(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers) as container:
        process = await container.exec(["sleep", "1000"])
        assert await process.kill(signal.SIGKILL)
        assert await process.wait(timeout=LIMIT) == 137
        assert await container.kill(signal.SIGKILL)
        told = await container.wait(timeout=LIMIT)
        assert (told.exit_code, told.how, told.oom_killed) == (137, NotificationType.FORCED_EXIT, False)


async def test_a_paused_container_stands_still(vm: UtilityVM, layers: Sequence[Path]) -> None:
    counting = "i=0; while :; do i=$((i + 1)); echo $i >/tmp/n.new; mv /tmp/n.new /tmp/n; done"
    root = "/run/gcs/c/c/rootfs/tmp/n"
    async with await vm.create_container("c", spec("sh", "-c", counting), layers=layers) as container:
        await container.start()
        await until(vm, f"test -s {root}")
        await container.pause()
        first = (await sh(vm, f"cat {root}; sleep 0.5; cat {root}")).out.split()
        assert first[0] == first[1]
        await container.resume()
        later = (await sh(vm, f"sleep 0.5; cat {root}")).out.split()
        assert int(later[0]) > int(first[0])
        await container.pause()  # and a paused one is ended as well


async def test_a_program_that_is_not_there_is_told_and_leaves_nothing(vm: UtilityVM, layers: Sequence[Path]) -> None:
    for argv in (["/no/such/program"], ["no-such-program"]):
        with pytest.raises(GuestError, match="no.such.program"):
            async with await vm.create_container("c", spec(*argv), layers=layers) as container:
                await container.start()
    await vm._containers.settled()
    assert vm.scsi.disks == ()


# -- several ------------------------------------------------------------------------------------------------------------


async def test_containers_of_one_vm_see_nothing_of_each_other(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async with running(vm, layers, "a", hostname="a") as one, running(vm, layers, "b", hostname="b") as two:
        look = "hostname; for kind in net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$kind; done; ps -o args"
        told = [(await script(container, look)).out.decode().splitlines() for container in (one, two)]
        assert (told[0][0], told[1][0]) == ("a", "b")
        assert all(len({mine, theirs}) == 2 for mine, theirs in zip(told[0][1:7], told[1][1:7], strict=True)), told
        assert [len([words for words in mine if words == "sleep 1000"]) for mine in told] == [1, 1]
        assert not set(await one.pids()) & set(await two.pids())


async def test_containers_of_a_pod_share_its_network_and_names_and_nothing_else(vm: UtilityVM, layers: Sequence[Path]) -> None:
    sandbox = {"annotations": {"io.kubernetes.cri.container-type": "sandbox"}, "hostname": "pod"}
    shared = [{"destination": "/shared", "type": "bind", "source": "sandbox:///s", "options": ["rbind"]}]
    look = "hostname; for kind in net ipc uts pid; do readlink /proc/self/ns/$kind; done"
    async with running(vm, layers, "pod", **sandbox) as pod:
        async with running(vm, layers, "a", pod=pod, mounts=shared) as one, running(vm, layers, "b", pod=pod, mounts=shared) as two:
            told = [(await script(container, look)).out.split() for container in (pod, one, two)]
            assert {words[0] for words in told} == {b"pod"}
            assert len({tuple(words[1:4]) for words in told}) == 1
            assert len({words[4] for words in told}) == 3
            assert (await script(one, "echo x >/shared/x")).code == 0
            assert (await script(two, "cat /shared/x")).out == b"x\n"
            server = await one.exec(["nc", "-l", "-p", "7777"])
            assert (await script(two, "until echo hi | nc 127.0.0.1 7777; do :; done")).code == 0
            assert (await ended(server)).out == b"hi\n"
        with pytest.raises(InvalidOptions, match="workload container must not change hostname"):
            await vm.create_container("c", spec(hostname="other"), layers=layers, pod=pod)


async def test_many_containers_at_once_and_in_turn_leave_nothing_in_host_and_guest(vm: UtilityVM, layers: Sequence[Path]) -> None:
    async def one(number: int) -> None:
        async with await vm.create_container(f"c{number}", spec("sh", "-c", f"echo {number}; exit {number}"), layers=layers) as container:
            done = await ended(await container.start())
            assert done == Done(number, b"%d\n" % number)

    async def leftovers() -> str:
        return (await sh(vm, "ls -A /run/gcs/c /run/mounts /run/layers /sys/fs/cgroup/containers; cat /proc/mounts | wc -l")).out.decode()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(one(number))
    before, there = await count(vm), await leftovers()
    for number in range(20):
        await one(number)
    assert await leftovers() == there
    assert_nothing_left(before, await count(vm), host_memory=4096, guest_memory=8192)
    await vm._containers.settled()
    assert (vm.scsi.disks, vm.containers) == ((), ())


# -- other ways ---------------------------------------------------------------------------------------------------------


async def test_the_originals_document_is_handed_over_as_it_is(vm: UtilityVM, layers: Sequence[Path]) -> None:
    added = [await vm.layers.add(str(layer)) for layer in layers]
    await vm.layers.combine_lcow([layer.guest_path for layer in added], "", "/run/gcs/c/raw/rootfs")
    document = {
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "OciBundlePath": "/run/gcs/c/raw",
        "OciSpecification": spec("sh", "-c", "echo raw", root={"path": "/run/gcs/c/raw/rootfs", "readonly": True}),
    }
    async with await vm.create_container("raw", document) as container:
        assert (await ended(await container.start())).out == b"raw\n"
    await vm.layers.remove_combined("/run/gcs/c/raw/rootfs")
    for layer in added:
        await vm.layers.remove(layer)


async def test_a_driver_that_keeps_the_guest_connection_has_containers_as_well(boot_files: BootFiles, layers: Sequence[Path]) -> None:
    async with await a_vm(boot_files, external_guest_connection=False) as vm:
        await vm.start()
        async with running(vm, layers) as container:
            assert (await script(container, "echo $$")).code == 0
            await container.update({"pids": {"limit": 40}})
            assert await cgroup(vm, "c", "pids.max") == ["40"]


_OWNER = """
import asyncio, sys
from utilityvm import create_lcow, default_options_lcow

async def main():
    async with await create_lcow(default_options_lcow(boot_files_path=sys.argv[1], memory_size_in_mb=384, processor_count=1)) as vm:
        await vm.start()
        process = {"args": ["sleep", "1000"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]}
        volume = {"destination": "/v", "type": "volume", "source": sys.argv[2], "options": ["size=32m"]}
        spec = {"ociVersion": "1.0.2", "process": process, "mounts": [volume]}
        container = await vm.create_container("c", spec, layers=sys.argv[3:])
        await container.start()
        print("ready", flush=True)
        await container.wait()

asyncio.run(main())
"""


async def test_nothing_is_left_of_containers_whose_owner_is_killed(boot_files: BootFiles, layers: Sequence[Path]) -> None:
    layout, name = Layout.of_user(), f"killed-{os.getpid()}"
    words = [sys.executable, "-c", _OWNER, str(boot_files.folder), name, *map(str, layers)]
    owner = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert await owner.stdout.readline() == b"ready\n"
            with pytest.raises(Exists):
                lock_volume(layout, name, read_only=False)
            owner.kill()
            await owner.wait()
            while True:  # QEMU, which has the volume too, ends a moment later
                try:
                    lock_volume(layout, name, read_only=False).close()
                    break
                except Exists:
                    await asyncio.sleep(0.05)
        assert list(layout.scratch.iterdir()) == []
    finally:
        if owner.returncode is None:
            owner.kill()
            await owner.wait()
        volume_file(layout, name).unlink(missing_ok=True)
