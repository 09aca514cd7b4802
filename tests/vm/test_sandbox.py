"""Sandboxes on a real VM: programs, their ends, their files, what is left behind, and the twin without await."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import utilityvm.sync
from utilityvm import (
    DeadlineExceeded,
    GuestError,
    InvalidOptions,
    NotFound,
    OutputLimitExceeded,
    Sandbox,
    StateError,
)
from utilityvm.boot.files import BootFiles
from utilityvm.sandbox.files import FileKind
from utilityvm.sync.loop import loop_thread

from .running import LIMIT, of_vm

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def _loop() -> None:
    """Begin the twin's loop thread, which stays, before descriptors are counted."""
    loop_thread()


SMALL = {"memory_size_in_mb": 256, "processor_count": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(boot_files: BootFiles) -> AsyncIterator[Sandbox]:
    """A sandbox for all tests of this module. They run in its event loop."""
    assert boot_files.folder.is_dir()
    async with Sandbox("busybox", env={"A": "of the sandbox"}, timeout=LIMIT, options=SMALL) as opened:
        yield opened


# -- programs -----------------------------------------------------------------------------------------------------------


async def test_a_program_runs_to_its_end(box: Sandbox) -> None:
    done = await box.run(
        "sh", "-c", 'echo "$A $B $(id -u) $PWD"; cat; echo err >&2; exit 3', input="in\n", env={"B": "1"}, cwd="/tmp", user="1"
    )
    assert (done.exit_code, done.text, done.stderr) == (3, "of the sandbox 1 1 /tmp\nin\n", b"err\n")
    assert done.stages.keys() == {"start", "run"}
    assert abs(sum(done.stages.values()) - done.seconds) < 0.001
    assert box.stages.keys() == {"prepare", "first process"}


async def test_programs_run_side_by_side(box: Sandbox) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(box.run("sh", "-c", f"sleep 0.2; echo {number}")) for number in range(4)]
    assert [task.result().text for task in tasks] == ["0\n", "1\n", "2\n", "3\n"]


async def test_a_program_that_does_not_exist_is_told(box: Sandbox) -> None:
    with pytest.raises(NotFound, match="sandbox busybox: nothing: no such program") as caught:
        await box.run("nothing")
    assert caught.value.hint == ""
    with pytest.raises(NotFound) as caught:
        await box.run("echo hi")
    assert "one by one" in caught.value.hint
    with pytest.raises(GuestError, match="/etc/passwd"):
        await box.run("/etc/passwd")
    for folder in ("/no/such", "/etc/passwd"):
        with pytest.raises(NotFound, match=f"^sandbox busybox: {folder}: no such folder$"):
            await box.run("pwd", cwd=folder)
    with pytest.raises(InvalidOptions, match="argv is empty"):
        await box.run()


async def test_a_program_that_takes_too_long_is_killed_with_its_children(box: Sandbox) -> None:
    with pytest.raises(DeadlineExceeded, match="not done within 6 s; it was killed") as caught:
        await box.run("sh", "-c", "echo begun; sleep 4321; true", timeout=6)
    assert caught.value.stdout == b"begun\n"
    assert "4321" not in (await box.run("ps")).text


async def test_a_program_that_says_too_much_is_killed(box: Sandbox) -> None:
    with pytest.raises(OutputLimitExceeded) as caught:
        await box.run("yes", limit=6)
    assert caught.value.stdout == b"y\ny\ny\n"
    assert " yes" not in (await box.run("ps")).text


async def test_a_program_that_kills_all_others_does_not_end_the_sandbox(box: Sandbox) -> None:
    await box.run("sh", "-c", "kill -9 -1")
    assert (await box.run("echo", "here")).text == "here\n"


async def test_a_program_in_the_background_has_streams(box: Sandbox) -> None:
    process = await box.start("cat", stdin=True)
    await process.stdin.write(b"hello")
    assert await process.stdout.read(5) == b"hello"
    await process.stdin.write_eof()
    assert await process.wait(timeout=LIMIT) == 0
    await process.close()


async def test_a_program_on_a_terminal(box: Sandbox) -> None:
    process = await box.terminal("sh", "-c", "stty size; read x; echo got $x", height=30, width=100)
    async with asyncio.timeout(LIMIT):
        said = b""
        while not said.endswith(b"\n"):
            said += await process.stdout.read(100)
        assert said == b"30 100\r\n"
        await process.stdin.write(b"it\n")
        assert await process.stdout.read() == b"it\r\ngot it\r\n"
        assert await process.wait() == 0
    await process.close()


async def test_orphans_leave_no_zombies(box: Sandbox) -> None:
    await box.run("sh", "-c", "(sleep 0.1; exit 1) & (sleep 0.1) & exit 0")
    await box.run("sleep", "0.5")
    assert "Z" not in (await box.run("ps", "-o", "stat")).text


async def test_its_limits_can_be_asked_for(box: Sandbox) -> None:
    assert box.container.state == "running"
    assert box.vm.state == "running"
    assert len(await box.container.pids()) >= 1


# -- files --------------------------------------------------------------------------------------------------------------

ODD = "a b\n'\"$x\\ü"


async def test_files_are_written_read_listed_and_removed(box: Sandbox) -> None:
    files = box.files
    await files.write("/srv/one/a.txt", "text ü\n", mode=0o640)
    await files.write(f"/srv/one/{ODD}", b"\0\xff")
    await files.write("/srv/one/a.txt", "shorter\n")
    assert await files.read("/srv/one/a.txt") == b"shorter\n"
    assert await files.read(f"/srv/one/{ODD}") == b"\0\xff"
    await box.run("sh", "-c", "mkdir /srv/one/-d; ln -s a.txt /srv/one/link; ln -s /nowhere /srv/one/lost; mkfifo /srv/one/pipe")
    listed = await files.list("/srv/one")
    assert [(entry.name, entry.kind) for entry in listed] == [
        ("-d", FileKind.FOLDER),
        (ODD, FileKind.FILE),
        ("a.txt", FileKind.FILE),
        ("link", FileKind.LINK),
        ("lost", FileKind.LINK),
        ("pipe", FileKind.OTHER),
    ]
    assert (listed[2].size, listed[2].mode, listed[2].uid) == (8, 0o640, 0)
    assert await files.list("/srv/one/-d") == ()
    assert await files.exists("/srv/one/lost")
    await files.remove("/srv/one")
    assert not await files.exists("/srv/one")


async def test_a_file_that_is_not_there_or_is_none_is_told(box: Sandbox) -> None:
    for call in (box.files.read, box.files.list, box.files.remove):
        with pytest.raises(NotFound, match="sandbox busybox: /nothing: no such file or folder"):
            await call("/nothing")
    with pytest.raises(InvalidOptions, match="/etc is a folder"):
        await box.files.read("/etc")
    with pytest.raises(InvalidOptions, match="/etc is a folder"):
        await box.files.write("/etc", b"")
    with pytest.raises(InvalidOptions, match="/etc/passwd is no folder"):
        await box.files.list("/etc/passwd")
    with pytest.raises(InvalidOptions, match="'etc' is not an absolute path"):
        await box.files.read("etc")
    await box.files.write("/etc/secret", b"", mode=0o600)
    with pytest.raises(GuestError, match="denied"):
        await box.files.read("/etc/secret", user="1")
    with pytest.raises(OutputLimitExceeded):
        await box.files.read("/bin/busybox", limit=1000)


async def test_what_is_no_file_or_no_text_is_refused_by_its_name(box: Sandbox, tmp_path: Path) -> None:
    await box.run("mkfifo", "/srv/pipe")
    for call in (box.files.read("/srv/pipe"), box.files.write("/srv/pipe", b""), box.files.read("/dev/zero")):
        with pytest.raises(InvalidOptions, match="is a pipe, a socket or a device, and no file"):
            await call
    for source in (Path("/dev/null"), tmp_path / "pipe"):
        if not source.exists():
            os.mkfifo(source)
        with pytest.raises(InvalidOptions, match="is a socket, a pipe or a device"):
            await box.files.copy_in(source, "/srv/x")
    with pytest.raises(InvalidOptions, match="input is not UTF-8"):
        await box.run("cat", input="\ud800")
    with pytest.raises(InvalidOptions, match="timeout -1 is over before it begins"):
        await box.run("true", timeout=-1)
    with pytest.raises(InvalidOptions, match="'etc' is not an absolute path"):
        await box.run("true", cwd="etc")


async def test_trees_are_copied_in_and_out(box: Sandbox, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep" / ("x" * 120)).mkdir(parents=True)
    (source / "deep" / ("x" * 120) / "big").write_bytes(os.urandom(2_000_000))
    (source / ODD).write_bytes(b"1")
    (source / "run").write_bytes(b"#!/bin/sh\necho ran\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("run")
    await box.files.copy_in(source, "/in/tree")
    assert (await box.run("/in/tree/link")).text == "ran\n"
    copied = await box.files.copy_out("/in/tree", tmp_path / "copy")
    assert (copied.size, copied.left_out) == (2_000_000 + 1 + 19, ())
    for name in (f"deep/{'x' * 120}/big", ODD, "run", "link"):
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes()
    assert (tmp_path / "copy" / "run").stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "copy" / "link") == "run"  # noqa: PTH115 (as text)


async def test_a_copy_goes_where_docker_would_put_it(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    await box.files.copy_in(tmp_path / "file", "/where/renamed")
    await box.files.copy_in(tmp_path / "file", "/where")
    await box.files.copy_in(tmp_path / "file", "/new/")
    assert [entry.name for entry in await box.files.list("/where")] == ["file", "renamed"]
    assert await box.files.read("/new/file") == b"1"
    (here := tmp_path / "here").mkdir()
    await box.files.copy_out("/where", here)
    await box.files.copy_out("/where/renamed", here / "one")
    await box.files.copy_out("/where/.", here / "contents")
    found = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert found == {"where/file", "where/renamed", "one", "contents/file", "contents/renamed"}


async def test_a_copy_that_cannot_be_made_is_told(box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or folder"):
        await box.files.copy_out("/nothing", tmp_path / "x")
    with pytest.raises(NotFound, match="no such file or folder"):
        await box.files.copy_in(tmp_path / "nothing", "/x")
    with pytest.raises(NotFound, match="no such folder on this host"):
        await box.files.copy_out("/etc", tmp_path / "no" / "where")
    with pytest.raises(OutputLimitExceeded):
        await box.files.copy_out("/bin/busybox", tmp_path / "x", limit=1000)
    (tmp_path / "big").write_bytes(bytes(66 << 20))
    with pytest.raises(GuestError, match="No space left on device"):
        await box.files.copy_in(tmp_path / "big", "/dev/shm")
    await box.files.remove("/dev/shm/big")
    assert not (tmp_path / "x").exists()


# -- life ---------------------------------------------------------------------------------------------------------------


async def test_a_sandbox_is_opened_once_and_ends_with_all_that_is_in_it(boot_files: BootFiles) -> None:
    assert boot_files.folder.is_dir()
    made = Sandbox("busybox", options=SMALL)
    with pytest.raises(StateError, match="sandbox busybox: cannot run a program while new"):
        await made.run("true")
    async with made:
        vm_id = made.vm.id
        process = await made.start("sleep", "1000", stdout=False, stderr=False)
        with pytest.raises(StateError, match="open"):
            await made.open()
    assert process.ended
    assert of_vm(vm_id) == []
    for _ in range(2):
        await made.close()
    with pytest.raises(StateError, match="closed"):
        await made.run("true")


async def test_an_opening_that_is_cancelled_or_fails_leaves_nothing(boot_files: BootFiles) -> None:
    assert boot_files.folder.is_dir()
    made = Sandbox("busybox", options={**SMALL, "id": f"box-{os.getpid()}"})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await made.open()
    assert (made.state, of_vm(f"box-{os.getpid()}")) == ("closed", [])
    with pytest.raises(NotFound, match="is not here"):
        await Sandbox("localhost/no-such-image", pull="never", options=SMALL).open()


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"memory": "lots"}, "'lots' is not a size"),
        ({"cpus": 0}, "is not a number of processors"),
        ({"volumes": ["/x"]}, "is a volume without a source"),
        ({"pull": "often"}, "pull is 'often'; it is one of missing, always, never"),
        ({"timeout": "soon"}, "timeout 'soon' is not a number of seconds"),
        ({"options": {"memory": 5}}, "memory"),
        ({"hostname": "a b"}, "is not a host's name"),
        ({"timeout": -1}, "timeout -1 is over before it begins"),
        ({"cwd": "here"}, "the working directory 'here' is not an absolute path of the container"),
        ({"env": {"A=B": "1"}}, "cannot name an environment variable"),
        ({"env": {"A": "\ud800"}}, "is not UTF-8"),
        ({"volumes": ["a:/x", "b:/x/"]}, "two things are mounted at /x"),
    ],
)
async def test_a_mistake_is_told_before_anything_is_made(wish: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        Sandbox("busybox", **wish)  # type: ignore[arg-type]


async def test_limits_hold_and_a_read_only_root_can_be_written_only_where_it_is_said(boot_files: BootFiles, tmp_path: Path) -> None:
    assert boot_files.folder.is_dir()
    (tmp_path / "file").write_text("of the host")
    os.chmod(tmp_path, 0o755)  # noqa: PTH101, S103
    wishes = {
        "memory": "40MiB",
        "cpus": 0.5,
        "read_only": True,
        "tmpfs": ["/t:size=1m"],
        "volumes": [f"{tmp_path}:/h:ro"],
        "hostname": "box",
    }
    async with Sandbox("busybox", user="1", timeout=LIMIT, **wishes) as made:  # type: ignore[arg-type]
        script = "hostname; cat /h/file; touch /x 2>/dev/null || echo closed; touch /t/x && echo open; nproc; id -u"
        assert (await made.run("sh", "-c", script)).text == "box\nof the hostclosed\nopen\n1\n1\n"
        done = await made.run("sh", "-c", "x=x; while true; do x=$x$x; done")
        assert done.exit_code == 137
        assert (await made.run("echo", "alive")).text == "alive\n"


async def test_the_twin_is_the_same_without_await(boot_files: BootFiles) -> None:
    assert boot_files.folder.is_dir()

    def work() -> tuple[str, bytes, int]:
        with utilityvm.sync.Sandbox("busybox", options=SMALL) as made:
            made.files.write("/x", "1")
            process = made.start("sh", "-c", "exit 4")
            return made.run("cat", input="in").text, made.files.read("/x"), process.wait(timeout=LIMIT)

    assert await asyncio.to_thread(work) == ("in", b"1", 4)
