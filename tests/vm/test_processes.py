"""Processes in a real VM: streams, exit codes, environment, terminals, signals, and that none is lost or left."""

import asyncio
import hashlib
import os
import random
import signal

import pytest

from utilityvm import Completed, DeadlineExceeded, GuestError, InvalidOptions, OutputLimitExceeded, Process, UtilityVM
from utilityvm.wire.gcs import ACCESS_DENIED, FILE_NOT_FOUND, PATH_NOT_FOUND

from .counting import assert_nothing_left, count, short_processes, through_cat
from .running import LIMIT, Done, ended, line, run, sh, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20


# -- ends -------------------------------------------------------------------------------------------------------------


async def test_output_errors_and_exit_code_are_the_programs(vm: UtilityVM) -> None:
    assert await sh(vm, "echo out; echo err >&2; exit 7") == Done(7, b"out\n", b"err\n")


@pytest.mark.parametrize("code", [0, 7, 255])
async def test_each_exit_code_comes_back(vm: UtilityVM, code: int) -> None:
    assert await sh(vm, f"exit {code}") == Done(code, b"")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
async def test_a_process_killed_by_us_ends_with_128_and_the_signal(vm: UtilityVM, number: int) -> None:
    process = await vm.create_process(["sleep", "1000"])
    assert await process.kill(number)
    assert await ended(process) == Done(128 + number, b"")
    assert not await process.kill(number), "a signal was delivered to a process that has ended"


async def test_a_process_killed_in_the_guest_ends_the_same_way(vm: UtilityVM) -> None:
    assert (await sh(vm, "kill -SEGV $$")).code == 128 + signal.SIGSEGV


async def test_a_signal_can_be_handled(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "trap 'echo caught; kill $!; exit 9' HUP; sleep 1000 & echo ready; wait"])
    assert await line(process) == b"ready\n"
    assert await process.kill(signal.SIGHUP)
    assert await ended(process) == Done(9, b"caught\n")


async def test_programs_that_keep_the_processor_busy_keep_the_agent_from_nothing(vm: UtilityVM) -> None:
    busy = [await vm.create_process(["sh", "-c", "echo busy; while :; do :; done"]) for _ in range(4)]
    for process in busy:
        assert await line(process) == b"busy\n"
    assert await sh(vm, "echo answered") == Done(0, b"answered\n")
    policies = await sh(vm, f"cd /proc; cut -d' ' -f41 1/stat {' '.join(f'{process.pid}/stat' for process in busy)}")
    assert policies.out.split() == [b"3"] * 5, "emulated, nobody interrupts anybody (SCHED_BATCH)"
    for process in busy:
        assert await process.kill(signal.SIGKILL)
        assert (await ended(process)).code == 128 + signal.SIGKILL


async def test_waiting_again_and_by_many_gives_the_same_code(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "exit 3"])
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        waiting = [group.create_task(process.wait()) for _ in range(5)]
    assert [task.result() for task in waiting] == [3] * 5
    assert await process.wait() == 3
    await process.close()
    await process.close()
    assert await process.wait() == 3


# -- what a program is given ------------------------------------------------------------------------------------------


async def test_the_environment_is_exactly_what_was_given(vm: UtilityVM) -> None:
    given = {"A": "1", "B": "two words", "Ü": "ö\n☃", "C": "a=b"}
    process = await vm.create_process(["/bin/cat", "/proc/self/environ"], env=given)
    done = await ended(process)
    assert dict(entry.split("=", 1) for entry in done.out.decode().rstrip("\0").split("\0")) == given


async def test_without_an_environment_a_program_is_still_found(vm: UtilityVM) -> None:
    process = await vm.create_process(["cat", "/proc/self/environ"], env={})
    assert await ended(process) == Done(0, b"")


async def test_the_default_environment_has_a_path_and_a_home(vm: UtilityVM) -> None:
    assert sorted((await run(vm, "env")).out.splitlines()) == [
        b"HOME=/root",
        b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


async def test_a_program_is_looked_for_in_the_path_that_was_given(vm: UtilityVM) -> None:
    await sh(vm, "mkdir -p /tmp/mine; printf '#!/bin/sh\\necho mine' > /tmp/mine/prog; chmod +x /tmp/mine/prog")
    assert await ended(await vm.create_process(["prog"], env={"PATH": "/nowhere:/tmp/mine"})) == Done(0, b"mine\n")
    with pytest.raises(GuestError) as caught:
        await vm.create_process(["ls"], env={"PATH": "/nowhere"})
    assert caught.value.result == FILE_NOT_FOUND


async def test_the_working_directory_is_the_one_that_was_given(vm: UtilityVM) -> None:
    assert (await run(vm, "pwd")).out == b"/\n"
    assert (await run(vm, "pwd", cwd="/proc/sys")).out == b"/proc/sys\n"


async def test_a_missing_working_directory_is_told_from_a_missing_program(vm: UtilityVM) -> None:
    with pytest.raises(GuestError, match="working directory /nowhere: no such file") as caught:
        await vm.create_process(["pwd"], cwd="/nowhere")
    assert caught.value.result == PATH_NOT_FOUND


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./relative"])
async def test_a_missing_program_is_the_guests_file_not_found(vm: UtilityVM, program: str) -> None:
    with pytest.raises(GuestError, match=program) as caught:
        await vm.create_process([program, "argument"])
    assert caught.value.result == FILE_NOT_FOUND


async def test_a_program_that_may_not_be_executed_is_the_guests_access_denied(vm: UtilityVM) -> None:
    await sh(vm, "echo text > /tmp/text")
    for program in ("/tmp/text", "/etc"):
        with pytest.raises(GuestError, match=program) as caught:
            await vm.create_process([program])
        assert caught.value.result == ACCESS_DENIED


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [("", 0, 0), ("nobody", 65534, 65534), ("1234", 1234, 0), ("1234:77", 1234, 77), ("nobody:root", 65534, 0), ("0:nogroup", 0, 65534)],
)
async def test_a_process_runs_as_the_user_and_group_it_was_given(vm: UtilityVM, user: str, uid: int, gid: int) -> None:
    done = await ended(await vm.create_process(["sh", "-c", "id -u; id -g; id -G"], user=user))
    assert done.out.decode().split() == [str(uid), str(gid), str(gid)]


@pytest.mark.parametrize("user", ["stranger", "nobody:strangers", ":", "-5"])
async def test_an_unknown_user_is_an_error_of_the_guest(vm: UtilityVM, user: str) -> None:
    with pytest.raises(GuestError):
        await vm.create_process(["true"], user=user)


@pytest.mark.parametrize("word", ["", " ", "two words", "a\nb", "ü☃𝄞", "'\"$`\\", "-n", "\x01\x7f", "x" * 60_000], ids=ascii)
async def test_an_argument_arrives_as_it_was_given(vm: UtilityVM, word: str) -> None:
    assert await run(vm, "printf", "[%s][%s]", word, "end") == Done(0, f"[{word}][end]".encode())


@pytest.mark.parametrize(
    ("argv", "says"),
    [(["echo", "x" * 100 * 1024], "at most 64512"), (["echo", "a\0b"], "zero byte"), ([], "argv is empty"), ([""], "name is empty")],
    ids=["too long", "zero byte", "no word", "empty word"],
)
async def test_what_no_guest_could_start_is_refused_before_it_is_sent(vm: UtilityVM, argv: list[str], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        await vm.create_process(argv)
    assert (await run(vm, "echo", "still here")).out == b"still here\n"


async def test_a_command_line_is_split_like_a_shells_and_nothing_in_it_is_expanded(vm: UtilityVM) -> None:
    line = r"""printf [%s] 'a  b' c\ d "e \"f\"" $HOME * x''y ; #no"""
    assert await vm.run(line) == Completed(0, b'[a  b][c d][e "f"][$HOME][*][xy][;][#no]', b"")
    with pytest.raises(GuestError, match='failed to parse command line string "echo \'open"'):
        await vm.run("echo 'open")


async def test_a_variable_may_be_empty(vm: UtilityVM) -> None:
    assert (await vm.run(["/usr/bin/env"], env={"A": "", "B": "b"})).stdout.split() == [b"A=", b"B=b"]


async def test_a_user_may_open_its_streams_by_name(vm: UtilityVM) -> None:
    done = await vm.run(
        ["sh", "-c", "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2; cat /proc/self/fd/0"], user="nobody", input=b"in"
    )
    assert done == Completed(0, b"out\nin", b"err\n")
    process = await vm.create_process(["sh", "-c", "echo $(id -un) > $(tty)"], user="nobody", console_size=(24, 80))
    assert await ended(process) == Done(0, b"nobody\r\n")


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_input_ends_the_program(vm: UtilityVM) -> None:
    process = await vm.create_process(["wc", "-c"], stdin=True)
    await process.stdin.write(b"12345")
    await process.stdin.write_eof()
    assert await ended(process) == Done(0, b"5\n")


async def test_megabytes_arrive_whole_in_both_directions(vm: UtilityVM) -> None:
    data = random.Random(4).randbytes(4 * MIB)  # noqa: S311 (content, not secrets)
    process = await vm.create_process(["tee", "/tmp/copy"], stdin=True)

    async def feed() -> None:
        await process.stdin.write(data)
        await process.stdin.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        done = await ended(process)
    assert done.code == 0
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(data).digest()
    assert (await sh(vm, "sha256sum < /tmp/copy; rm /tmp/copy")).out.split()[0].decode() == hashlib.sha256(data).hexdigest()


async def test_writing_to_a_program_that_closed_its_input_is_a_broken_pipe(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "exec <&-; echo closed; sleep 1000"], stdin=True)
    assert await line(process) == b"closed\n"
    with pytest.raises(BrokenPipeError):
        await _write_for_ever(process)
    assert await process.kill()
    assert (await ended(process)).code == 137


async def _write_for_ever(process: Process) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            await process.stdin.write(bytes(MIB))


async def test_writing_to_a_program_that_has_ended_is_a_broken_pipe(vm: UtilityVM) -> None:
    process = await vm.create_process(["true"], stdin=True)
    assert await ended(process) == Done(0, b"")
    with pytest.raises(BrokenPipeError):
        await process.stdin.write(b"x")


async def test_streams_that_were_not_asked_for_are_null(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "readlink /proc/$$/fd/0; readlink /proc/$$/fd/2; echo lost >&2; cat"], stderr=False)
    assert await ended(process) == Done(0, b"/dev/null\n/dev/null\n")
    with pytest.raises(BrokenPipeError):
        await process.stdin.write(b"x")


async def test_a_program_whose_output_nobody_reads_blocks_and_nothing_else_does(vm: UtilityVM) -> None:
    process = await vm.create_process(["dd", "if=/dev/zero", "bs=64k", "count=1000"])
    written = f"wchar() {{ sed -n 's/wchar: //p' /proc/{process.pid}/io; }}; "
    await until(vm, f"grep -q pipe_write /proc/{process.pid}/wchan || grep -q '^State:.S' /proc/{process.pid}/status")
    done = await sh(vm, written + "wchar; seq 1000 >/dev/null; wchar")
    first, second = (int(word) for word in done.out.split())
    assert 0 < first == second < 2 * MIB, "more was taken from the program than the buffers hold"
    assert (await run(vm, "seq", "100000")).out.endswith(b"\n100000\n")
    out = 0
    async with asyncio.timeout(LIMIT):
        while data := await process.stdout.read(MIB):
            out += len(data)
    assert out == 1000 << 16
    assert (await ended(process)).code == 0


async def test_a_program_whose_streams_are_closed_gets_a_broken_pipe(vm: UtilityVM) -> None:
    process = await vm.create_process(["yes"])
    assert await line(process) == b"y\n"
    await process.close()
    async with asyncio.timeout(LIMIT):
        assert await process.wait() in {128 + signal.SIGPIPE, 1}


async def test_a_grandchild_may_keep_the_output_after_the_programs_end(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "mkfifo /tmp/gate; (cat /tmp/gate; echo late) & echo early"])
    assert await line(process) == b"early\n"
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 0
    await sh(vm, "echo now > /tmp/gate; rm /tmp/gate")
    assert await ended(process) == Done(0, b"now\nlate\n")


async def test_a_program_that_does_not_read_holds_its_writer_up_and_nothing_else(vm: UtilityVM) -> None:
    process = await vm.create_process(["sleep", "1000"], stdin=True)
    sent = 0

    async def feed() -> None:
        nonlocal sent
        for _ in range(64):
            await process.stdin.write(bytes(MIB))
            sent += MIB

    feeding = asyncio.create_task(feed())  # noqa: TID251 (awaited below)
    before = await count(vm)
    assert (await run(vm, "seq", "100000")).out.endswith(b"\n100000\n")
    after = await count(vm)
    assert after.host_memory - before.host_memory < 2048
    assert await process.kill()
    with pytest.raises(BrokenPipeError):
        await feeding
    assert (await ended(process)).code == 137
    assert sent < 3 * MIB, "more was taken than the buffers hold"


# -- runs -------------------------------------------------------------------------------------------------------------


async def test_a_wait_has_a_deadline_that_leaves_the_process_alone(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "read line; exit 4"], stdin=True)
    with pytest.raises(DeadlineExceeded):
        await process.wait(timeout=0.05)
    await process.stdin.write(b"go\n")
    assert await process.wait(timeout=LIMIT) == 4
    await process.close()


async def test_a_run_beyond_its_time_is_killed_with_its_children_and_tells_what_was_said(vm: UtilityVM) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await vm.run(["sh", "-c", "echo so far; echo err >&2; sleep 1000 & sleep 1000"], timeout=1)
    assert (caught.value.stdout, caught.value.stderr) == (b"so far\n", b"err\n")
    await until(vm, "! pidof sleep")


async def test_a_run_that_says_too_much_is_killed_with_its_children_and_tells_the_beginning(vm: UtilityVM) -> None:
    with pytest.raises(OutputLimitExceeded) as caught:
        await vm.run(["sh", "-c", "sleep 1000 & yes"], limit=1000)
    assert caught.value.stdout == b"y\n" * 500
    await until(vm, "! pidof sleep yes")
    assert len((await vm.run(["head", "-c", "1000", "/dev/zero"], limit=1000)).stdout) == 1000


async def test_a_run_whose_caller_gives_up_leaves_no_process(vm: UtilityVM) -> None:
    chance, whole = random.Random(5), await _time_of_a_start(vm)  # noqa: S311 (moments, not secrets)
    for _ in range(20):
        running = asyncio.create_task(vm.run(["sh", "-c", "sleep 1000 & sleep 1000"], input=b"x"))  # noqa: TID251 (cancelled below)
        await asyncio.wait([running], timeout=chance.random() * whole * 3)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
    await until(vm, "! pidof sleep")


async def test_a_run_does_not_wait_for_what_it_leaves_in_the_background(vm: UtilityVM) -> None:
    clock = asyncio.get_running_loop().time
    begin = clock()
    assert await vm.run(["sh", "-c", "sleep 1000 & echo hi; exit 3"]) == Completed(3, b"hi\n", b"")
    assert clock() - begin < LIMIT / 2
    assert (await vm.run("pidof sleep")).exit_code == 0, "what it left was ended"
    assert (await vm.run("killall sleep")).exit_code == 0


# -- terminals --------------------------------------------------------------------------------------------------------


async def test_a_terminal_has_the_size_it_was_given_and_takes_errors_too(vm: UtilityVM) -> None:
    process = await vm.create_process(["sh", "-c", "tty; stty size; echo oh >&2"], console_size=(31, 97))
    terminal, size, error = (await ended(process)).out.decode().split("\r\n")[:3]
    assert terminal.startswith("/dev/pts/")
    assert (size, error) == ("31 97", "oh")


async def test_a_resize_is_seen_and_told(vm: UtilityVM) -> None:
    script = "trap 'stty size; kill $!; exit 3' WINCH; sleep 1000 & echo ready; wait"
    process = await vm.create_process(["sh", "-c", script], console_size=(24, 80))
    assert await line(process) == b"ready\r\n"
    await process.resize(height=50, width=132)
    assert await ended(process) == Done(3, b"50 132\r\n")
    await process.resize(height=1, width=1)


async def test_only_a_terminal_can_be_resized(vm: UtilityVM) -> None:
    process = await vm.create_process(["sleep", "1000"])
    with pytest.raises(GuestError, match="is not a tty and cannot be resized"):
        await process.resize(height=1, width=1)
    await process.kill()
    await ended(process)


async def test_what_is_typed_is_read_and_control_c_interrupts(vm: UtilityVM) -> None:
    process = await vm.create_process(["cat"], stdin=True, console_size=(24, 80))
    await process.stdin.write(b"hello\n")
    assert await line(process) == b"hello\r\n", "the terminal echoes"
    assert await line(process) == b"hello\r\n"
    await process.stdin.write(b"\x03")
    assert (await ended(process)).code == 128 + signal.SIGINT


async def test_control_d_is_the_end_of_what_is_typed(vm: UtilityVM) -> None:
    process = await vm.create_process(["wc", "-c"], stdin=True, console_size=(24, 80))
    await process.stdin.write(b"hello\n\x04")
    assert (await ended(process)).out.split() == [b"hello", b"6"]


# -- many -------------------------------------------------------------------------------------------------------------


async def test_two_hundred_in_a_row_have_their_own_output_and_code(vm: UtilityVM) -> None:
    for number in range(200):
        assert await sh(vm, f"echo {number}; echo e{number} >&2; exit {number}") == Done(number, b"%d\n" % number, b"e%d\n" % number)


async def test_twenty_at_once_have_their_own_output_and_code(vm: UtilityVM) -> None:
    async def one(number: int) -> Done:
        process = await vm.create_process(["sh", "-c", f"cat; seq {number} {number + 5000}; exit {number}"], stdin=True)
        await process.stdin.write(b"%d\n" % number * 5000)
        await process.stdin.write_eof()
        return await ended(process)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(number)) for number in range(20)]
    for number, task in enumerate(running):
        expected = b"%d\n" % number * 5000 + b"".join(b"%d\n" % n for n in range(number, number + 5001))
        assert task.result() == Done(number, expected)


async def test_large_requests_at_once_do_not_tear_each_other(vm: UtilityVM) -> None:
    words = [str(number) * 50_000 for number in range(10)]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(vm, "printf", word)) for word in words * 3]
    assert [task.result() for task in running] == [Done(0, word.encode()) for word in words * 3]


async def test_orphans_are_buried(vm: UtilityVM) -> None:
    for _ in range(5):
        await sh(vm, "for n in 1 2 3 4 5; do (sleep 0.01 &); done")
    await until(vm, "! grep -l '^State:.Z' /proc/[0-9]*/status && ! pidof sleep")
    assert (await run(vm, "pidof", "sleep")).code == 1


async def test_a_caller_that_gives_up_leaves_no_process(vm: UtilityVM) -> None:
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    chance = random.Random(seed)  # noqa: S311 (moments, not secrets)
    whole = await _time_of_a_start(vm)
    for _ in range(60):
        starting = asyncio.create_task(vm.create_process(["sleep", "1000"], stdin=True))  # noqa: TID251 (cancelled below)
        await asyncio.wait([starting], timeout=chance.random() * whole * 1.5)
        starting.cancel()
        await asyncio.wait([starting])
        if not starting.cancelled():
            await _put_away(starting.result())
    await until(vm, "! pidof sleep")
    assert (await run(vm, "echo", "still here")).out == b"still here\n"


async def test_hundreds_of_processes_leave_nothing(vm: UtilityVM) -> None:
    await short_processes(vm, range(60))
    await count(vm)
    before = await count(vm)
    await short_processes(vm, range(300))
    assert_nothing_left(before, await count(vm), host_memory=2048, guest_memory=4096)


async def test_many_megabytes_each_way_arrive_whole_and_leave_nothing(vm: UtilityVM) -> None:
    await through_cat(vm, 8 * MIB)
    await count(vm)
    before = await count(vm)
    sent, came = await through_cat(vm, 64 * MIB)
    assert sent == came
    assert_nothing_left(before, await count(vm), host_memory=4096, guest_memory=4096)


async def _time_of_a_start(vm: UtilityVM) -> float:
    clock = asyncio.get_running_loop().time
    begin = clock()
    process = await vm.create_process(["sleep", "1"], stdin=True)
    took = clock() - begin
    await _put_away(process)
    return took


async def _put_away(process: Process) -> None:
    await process.kill()
    await ended(process)
