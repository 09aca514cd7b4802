"""`uvm run` and `uvm cp` as commands: docker's meanings in a real guest, exit codes, signals, files."""

import asyncio
import io
import os
import posixpath
import signal
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from tests.unit.images.samples import folder, link, tar

from utilityvm.containers.volumes import volume_file
from utilityvm.kit.proc import run_tool
from utilityvm.store.layout import Layout

from .running import NOTHING, PIPE, UVM, Done, command, of_vm, outcome_of, told, uvm

SMALL = ("--memory-size-in-mb", "256", "--processor-count", "1")
numbers = count()

pytestmark = pytest.mark.usefixtures("boot_files")


@asynccontextmanager
async def running(
    *words: str, flags: Sequence[str] = (), image: str = "busybox", stdin: int = NOTHING
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `uvm run` with a command. Gives the process and the VM's name."""
    name = f"run-{os.getpid()}-{next(numbers)}"
    async with command(name, "run", *SMALL, "--name", name, *flags, image, *words, stdin=stdin) as process:
        yield process, name


async def outcome(*words: str, flags: Sequence[str] = (), image: str = "busybox", given: bytes | None = None) -> Done:
    """Run `uvm run` to its end."""
    async with running(*words, flags=flags, image=image, stdin=NOTHING if given is None else PIPE) as (process, _):
        return await outcome_of(process, given)


@pytest.fixture
def volume() -> Iterator[str]:
    """The name of a volume, which is removed afterwards."""
    name = f"test-{os.getpid()}-{next(numbers)}"
    yield name
    volume_file(Layout.of_user(), name).unlink(missing_ok=True)


# -- programs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("sh", "-c", "echo out; echo err >&2; exit 7"), Done(7, b"out\n", b"err\n")),
        (("sh", "-c", "exec 2>/dev/null; sleep 1000 & kill -9 $!; wait $!"), Done(137, b"")),
        (("no-such-program",), Done(127, b"", b"uvm: no-such-program: no such program in image busybox:latest\n")),
        (("/etc/passwd",), Done(126, b"", b"uvm: /etc/passwd: cannot be executed in image busybox:latest\n")),
    ],
)
async def test_the_exit_code_and_the_streams_are_the_programs(command: tuple[str, ...], expected: Done) -> None:
    assert await outcome(*command) == expected


async def test_a_folder_to_start_in_that_is_a_file_ends_with_127() -> None:
    said = b"uvm: /etc/passwd: no such folder in image busybox:latest\n"
    assert await outcome("true", flags=["-w", "/etc/passwd"]) == Done(127, b"", said)


SURROUNDINGS = """
echo "$A|${B-unset}|$C|$PWD|$(id -u):$(id -g)|$(hostname)|$(ulimit -n)"
grep CapBnd /proc/self/status | cut -f2
cat /proc/sys/net/ipv4/ip_default_ttl
touch /x 2>/dev/null || echo closed
touch /t/x && stat -f -c %T /t
nproc
cat /sys/fs/cgroup/pids.max
stat -f -c %b /dev/shm
cat $D
"""


async def test_a_container_has_what_the_flags_say(tmp_path: Path) -> None:
    (file := tmp_path / "env").write_text("A=file\nC=file\n")
    (data := tmp_path / "data").write_text("of the host\n")
    flags = ["--env-file", str(file), "-e", "A=flag", "-e", "B", "-e", "D=/d/data", "-w", "/new/dir", "-u", "nobody:6", "--hostname", "box"]
    flags += ["--ulimit", "nofile=77", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--sysctl", "net.ipv4.ip_default_ttl=77", "--read-only"]
    flags += ["--tmpfs", "/t:size=1m,mode=1777", "-v", f"{data}:/d/data:ro", "--rm", "-m", "32m", "--cpus", "0.9"]
    flags += ["--pids-limit", "33", "--shm-size", "1m"]
    done = await outcome("sh", "-c", SURROUNDINGS, flags=flags)
    assert done.err == b""
    assert done.out.decode().splitlines() == [
        "flag|unset|file|/new/dir|65534:6|box|77",
        "0000000000000001",
        "77",
        "closed",
        "tmpfs",
        "1",
        "33",
        "256",
        "of the host",
    ]
    assert done.code == 0


async def test_without_flags_a_container_is_as_dockers() -> None:
    script = (
        "id -u; pwd; echo $PATH $HOME $HOSTNAME; hostname; grep CapBnd /proc/self/status | cut -f2; cat /proc/1/comm; ls /sys/class/net; "
        "touch /x && echo open"
    )
    done = await outcome("sh", "-c", script)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    name = done.out.decode().splitlines()[3]
    assert done.out.decode().splitlines() == ["0", "/", f"{path} /root {name}", name, "00000000a80425fb", "sh", "lo", "open"]
    assert done.err == b""


async def test_with_i_what_is_piped_in_reaches_the_program() -> None:
    data = bytes(range(256)) * 4096
    assert await outcome("cat", flags=["-i"], given=data) == Done(0, data)


async def test_a_command_that_takes_too_long_is_ended_with_124() -> None:
    done = await outcome("sh", "-c", "echo begun; sleep 1000", flags=["--timeout", "1.5"])
    assert done == Done(124, b"begun\n", b"uvm: busybox: still ran after 1.5 s\n")


async def test_the_least_memory_of_a_container_is_enough_for_its_vm_to_boot() -> None:
    assert await uvm("run", "-m", "6m", "--cpus", "1", "busybox", "true") == Done(0, b"", b"")


async def test_what_uses_up_its_memory_is_killed_and_told() -> None:
    done = await outcome("sh", "-c", "x=x; while true; do x=$x$x; done", flags=["-m", "24m"])
    assert (done.code, done.out) == (137, b"")
    assert done.err == b"uvm: it was killed because its memory had run out; -m sets how much it may use\n"


async def test_the_timeline_has_the_image_and_the_container() -> None:
    async with running("true", flags=["--timeline", "--no-template"]) as (process, _):
        _, err = await process.communicate()
    rows = [line[:22].strip() for line in err.decode().splitlines()]
    of_vm = ["probe", "plan", "create", "QEMU exec", "kernel", "init", "agent", "negotiated"]
    wanted = [*of_vm, "container created", "first process started", "first process ended", "close"]
    assert "image" in rows  # meanwhile
    assert [row for row in rows if row in wanted] == wanted


# -- images -------------------------------------------------------------------------------------------------------------


async def test_an_image_that_is_not_here_is_told_with_what_to_do() -> None:
    done = await outcome(image="localhost/no-such-image", flags=["--pull", "never"])
    assert (done.code, done.out) == (125, b"")
    assert done.err == (
        b"uvm: image localhost/no-such-image: is not here\n"
        b"uvm: hint: uvm pull localhost/no-such-image, or uvm import FILE localhost/no-such-image\n"
    )


async def test_an_image_of_another_platform_is_not_run_in_the_place_of_the_one_that_is_wanted() -> None:
    done = await outcome("true", flags=["--pull", "never", "--platform", "linux/arm64"])
    assert (done.code, done.out) == (125, b"")
    assert done.err.endswith(b", and not for linux/arm64\n")
    assert b"image busybox:latest: is here for linux/" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run"], b"uvm: no image: say which, e.g. uvm run busybox uname -a\n"),
        (["run", "-v", "/nowhere:/x", "busybox", "true"], b"/nowhere"),
        (["run", "--cap-add", "NET", "busybox"], b"uvm: no capability is called 'NET'\n"),
        (["run", "-w", "here", "busybox"], b"uvm: the working directory 'here' is not an absolute path of the container\n"),
        (["run", "BusyBox"], b"'BusyBox' cannot name an image"),
        (["run", "-it", "busybox"], b"uvm: -i with -t needs a terminal on standard input, and there is none\n"),
    ],
)
async def test_a_mistake_is_answered_in_words(words: list[str], says: bytes) -> None:
    done = await uvm(*words)
    assert (done.code, done.out) == (125, b"")
    assert says in done.err


# -- files --------------------------------------------------------------------------------------------------------------


async def test_a_folder_of_the_host_is_written_unless_it_is_closed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("here\n")
    script = "cat /r/file; cp /r/file /w/copy; touch /r/x 2>/dev/null || echo closed"
    flags = ["-v", f"{tmp_path}/in:/r:ro", "-v", f"{tmp_path}/in:/w"]
    assert await outcome("sh", "-c", script, flags=flags) == Done(0, b"here\nclosed\n")
    assert (tmp_path / "in" / "copy").read_text() == "here\n"


async def test_a_volume_keeps_what_was_written_and_files_are_copied_out_and_in(tmp_path: Path, volume: str) -> None:
    flags = ["-v", f"{volume}:/data:size=64m"]
    assert (await outcome("sh", "-c", "mkdir /data/d; echo kept > /data/d/file", flags=flags)).code == 0
    assert await outcome("cat", "/data/d/file", flags=["-v", f"{volume}:/data:ro"]) == Done(0, b"kept\n")
    assert await uvm("cp", f"{volume}:/d", str(tmp_path)) == Done(0, b"")
    assert (tmp_path / "d" / "file").read_text() == "kept\n"
    (tmp_path / "new").write_text("from here\n")
    assert await uvm("cp", "new", f"{volume}:/d/", cwd=tmp_path) == Done(0, b"")
    assert await outcome("cat", "/data/d/new", flags=flags) == Done(0, b"from here\n")


async def test_files_are_copied_out_of_an_image(tmp_path: Path) -> None:
    for path in ("/etc/passwd", "etc/passwd"):
        assert await uvm("cp", f"busybox:{path}", str(tmp_path / "users")) == Done(0, b"")
        assert "root:" in (tmp_path / "users").read_text()
        (tmp_path / "users").unlink()
    done = await uvm("cp", "busybox:/nothing", str(tmp_path))
    assert (done.code, done.out) == (3, b"")
    assert b"/nothing" in done.err


async def test_an_archive_is_copied_in_from_standard_input_and_out_to_standard_output(volume: str) -> None:
    assert (await outcome("true", flags=["-v", f"{volume}:/data:size=64m"])).code == 0
    given = tar({"d/": folder(), "d/file": b"kept\n", "d/link": link("file")})
    process = await asyncio.create_subprocess_exec(*UVM, "cp", "-", f"{volume}:/in", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert await outcome_of(process, given) == Done(0, b"")
    for path, names in (("/in/d", ["d", "d/file", "d/link"]), ("/in/d/.", [".", "./file", "./link"])):
        done = await uvm("cp", f"{volume}:{path}", "-")
        assert (done.code, done.err) == (0, b"")
        with tarfile.open(fileobj=io.BytesIO(done.out)) as archive:
            assert [posixpath.normpath(name) for name in sorted(archive.getnames())] == [posixpath.normpath(name) for name in names]
            file = next(entry for entry in archive if entry.isfile())
            assert (copied := archive.extractfile(file)) is not None
            assert copied.read() == b"kept\n"
    done = await uvm("cp", f"{volume}:/nothing", "-")
    assert (done.code, done.out) == (3, b"")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["a", "./b:c"], 2, b"neither side is in an image or a volume"),
        (["busybox:/a", "busybox:/b"], 6, b"one side of a copy is a path of this host"),
        (["a", "busybox:/b"], 3, b"no volume is called busybox; an image can only be read"),
    ],
)
async def test_a_copy_that_makes_no_sense_is_refused(words: list[str], code: int, says: bytes) -> None:
    done = await uvm("cp", *words)
    assert (done.code, done.out) == (code, b"")
    assert says in done.err


# -- signals ------------------------------------------------------------------------------------------------------------

LISTENS = "trap 'echo got TERM; exit 9' TERM; trap 'echo got INT' INT; echo ready; while true; do sleep 0.1; done"


async def test_signals_reach_the_program() -> None:
    async with running("sh", "-c", LISTENS) as (process, _):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert await process.stdout.readline() == b"got INT\n"
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
    assert (process.returncode, out, told(err)) == (9, b"got TERM\n", b"")


async def test_a_program_that_minds_no_interrupt_is_ended_by_the_third() -> None:
    async with running("sh", "-c", "trap '' INT; echo ready; sleep 1000") as (process, name):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        for _ in range(3):
            assert of_vm(name)
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.3)  # two signals of a kind at once are one
        out, err = await process.communicate()
    assert (process.returncode, out, told(err)) == (130, b"", b"")


async def test_when_it_is_killed_nothing_is_left() -> None:
    async with running("sh", "-c", "echo ready; sleep 1000") as (process, name):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.kill()
        await process.communicate()
        async with asyncio.timeout(2):
            while of_vm(name):
                await asyncio.sleep(0.01)


async def test_a_volume_whose_vm_is_killed_while_it_writes_is_whole_and_has_what_was_synced(volume: str) -> None:
    flags = ["-v", f"{volume}:/data:size=64m"]
    script = (
        "cd /data; echo kept > kept; sync; echo ready; while true; do dd if=/dev/urandom of=f$((i++ % 9)) bs=64k count=9 2>/dev/null; done"
    )
    async with running("sh", "-c", script, flags=flags) as (process, name):
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        await asyncio.sleep(1)  # of writing
        process.kill()
        await process.communicate()
        async with asyncio.timeout(2):
            while of_vm(name):
                await asyncio.sleep(0.01)
    assert await outcome("sh", "-c", "cat /data/kept; echo more >> /data/kept", flags=flags) == Done(0, b"kept\n")
    assert await outcome("cat", "/data/kept", flags=flags) == Done(0, b"kept\nmore\n")
    run_tool(["/sbin/e2fsck", "-fn", volume_file(Layout.of_user(), volume)], within=60)
