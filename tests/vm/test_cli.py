"""`uvm` as a command: its exit codes, its streams, its ends, and one sentence instead of a traceback for every mistake."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.facts import Accel
from utilityvm.compute.qemu.service import QemuService
from utilityvm.kit.ids import new_guid
from utilityvm.kit.proc import run_tool

from .once import once
from .running import LIMIT, NOTHING, PIPE, UVM, Done, command, of_vm, outcome_of, told, uvm

SMALL = ("--memory", "256", "--cpus", "1")
numbers = count()


@pytest.fixture(scope="module")
def warm(boot_files: BootFiles) -> Iterator[tuple[str, ...]]:
    """Words by which a VM goes on from a template: for what comes after the boot, without waiting for one."""
    name = f"test-{new_guid()}"
    run_tool([*UVM, "template", "create", *SMALL, "--boot-files-path", boot_files.folder, name, "true"], within=LIMIT)
    yield ("--from", name)
    run_tool([*UVM, "template", "rm", name], within=LIMIT)


@asynccontextmanager
async def boot(
    *words: str, flags: Sequence[str] = (), start: Sequence[str] = SMALL, stdin: int = NOTHING, stdout: int = PIPE, stderr: int = PIPE
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run `uvm boot` with a command. Gives the process and the VM's id."""
    vm_id = f"cli-{os.getpid()}-{next(numbers)}"
    all_words = ("boot", *start, "--id", vm_id, *flags, "--", *words)
    async with command(vm_id, *all_words, stdin=stdin, stdout=stdout, stderr=stderr) as process:
        yield process, vm_id


async def outcome(*words: str, flags: Sequence[str] = (), start: Sequence[str] = SMALL, given: bytes | None = None) -> Done:
    """Run `uvm boot` to its end."""
    async with boot(*words, flags=flags, start=start, stdin=NOTHING if given is None else PIPE) as (process, _):
        return await outcome_of(process, given)


async def until_running(vm_id: str) -> None:
    """Wait for a second process that names the VM: the first is `uvm` itself."""
    while len(of_vm(vm_id)) < 2:
        await asyncio.sleep(0.005)


# -- programs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("sh", "-c", "exit 7"), Done(7, b"")),
        (("sh", "-c", "echo out; echo err >&2; kill -TERM $$"), Done(143, b"out\n", b"err\n")),
        (("no-such-program",), Done(127, b"", b"uvm: no-such-program: no such program in the guest\n")),
        (("/etc/passwd",), Done(126, b"", b"uvm: /etc/passwd: cannot be executed in the guest\n")),
    ],
)
async def test_the_exit_code_and_the_streams_are_the_programs(command: tuple[str, ...], expected: Done) -> None:
    assert await outcome(*command) == expected


async def test_a_missing_working_directory_is_not_told_as_a_missing_program(warm: Sequence[str]) -> None:
    assert await outcome("true", start=warm, flags=["-w", "/nowhere"]) == Done(127, b"", b"uvm: /nowhere: no such folder in the guest\n")


async def test_flags_give_the_command_its_variables_folder_and_user() -> None:
    flags = ["-e", "A=1 2", "--env", "UVM_ACCEL", "-e", "UVM_NOT_SET", "-w", "/tmp", "-u", "nobody:6"]
    environment = os.environ.get("UVM_ACCEL", "")
    done = await outcome("sh", "-c", 'echo "$A|${UVM_NOT_SET-unset}|$UVM_ACCEL|$PWD|$(id -u):$(id -g)"', flags=flags)
    assert done == Done(0, f"1 2|unset|{environment}|/tmp|65534:6\n".encode())


async def test_a_command_that_takes_too_long_is_ended_with_124(warm: Sequence[str]) -> None:
    done = await outcome("sh", "-c", "echo begun; sleep 1000", start=warm, flags=["--timeout", "1.5"])
    assert done == Done(124, b"begun\n", b"uvm: sh still ran after 1.5 s\n")
    assert await outcome("sh", "-c", "exit 4", start=warm, flags=["--timeout", "1000"]) == Done(4, b"")


async def test_a_vm_without_a_command_that_takes_too_long_is_ended_with_124() -> None:
    done = await outcome(flags=["--timeout", "0.5"])
    assert done.code == 124
    assert re.fullmatch(rb"vm (\S+) runs; Ctrl-C ends it\nuvm: vm \1 still ran after 0\.5 s\n", done.err)


@pytest.mark.parametrize("script", ["sleep 1000 & echo hi; exit 3", "yes & exit 3"])
async def test_what_the_command_leaves_in_the_background_does_not_keep_the_vm(warm: Sequence[str], script: str) -> None:
    async with boot("sh", "-c", script, start=warm) as (uvm, _):
        assert uvm.stdout is not None
        first = await uvm.stdout.read(3)
        rest = await uvm.stdout.read()
    assert uvm.returncode == 3
    assert (first, rest) == (b"hi\n", b"") if "hi" in script else len(rest) < 8 << 20


async def test_a_reader_that_pauses_at_the_end_gets_everything(warm: Sequence[str]) -> None:
    reading, writing = os.pipe()
    async with boot("seq", "60000", start=warm, stdout=writing) as (uvm, vm_id):
        os.close(writing)
        begin = await asyncio.to_thread(os.read, reading, 2)
        await asyncio.sleep(2.5)  # longer than silence is borne after the end: the program has long ended, and we did not read
        assert of_vm(vm_id), "the VM went before its output was read"
        with os.fdopen(reading, "rb") as rest:
            whole = begin + await asyncio.to_thread(rest.read)
        await uvm.wait()
    assert uvm.returncode == 0
    assert whole == b"".join(b"%d\n" % number for number in range(1, 60_001))


async def test_with_i_what_is_piped_in_reaches_the_program(warm: Sequence[str]) -> None:
    data = bytes(range(256)) * 4096
    assert await outcome("cat", start=warm, flags=["-i"], given=data) == Done(0, data)


async def test_without_i_what_is_piped_in_is_left_to_others(warm: Sequence[str]) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"not yours")
    os.close(writing)
    async with boot("cat", start=warm, stdin=reading) as (uvm, _):
        out, _ = await uvm.communicate()
    assert (uvm.returncode, out) == (0, b"")
    assert os.read(reading, 100) == b"not yours"
    os.close(reading)


async def test_a_slow_reader_gets_everything(warm: Sequence[str]) -> None:
    async with boot("sh", "-c", "seq 300000; echo end >&2", start=warm) as (uvm, _):
        assert uvm.stdout is not None
        assert uvm.stderr is not None
        whole = b""
        while data := await uvm.stdout.read(50_000):
            whole += data
            await asyncio.sleep(0)
        assert told(await uvm.stderr.read()) == b"end\n"
    assert uvm.returncode == 0
    assert whole == b"".join(b"%d\n" % number for number in range(1, 300_001))


async def test_a_reader_that_leaves_ends_it(warm: Sequence[str]) -> None:
    reading, writing = os.pipe()
    async with boot("yes", start=warm, stdout=writing) as (uvm, _):
        os.close(writing)
        assert (await asyncio.to_thread(os.read, reading, 2)) == b"y\n"
        os.close(reading)
        _, err = await uvm.communicate()
    assert (uvm.returncode, told(err)) == (125, b"")


async def test_a_full_disk_is_told(warm: Sequence[str]) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with boot("echo", "hi", start=warm, stdout=full) as (uvm, _):
        _, err = await uvm.communicate()
    os.close(full)
    assert (uvm.returncode, told(err)) == (125, b"uvm: standard output cannot be written: No space left on device\n")


async def test_closed_standard_streams_cost_only_what_would_have_gone_there() -> None:
    vm_id = f"cli-{os.getpid()}-closed"
    script = 'exec "$@" <&- >&-'
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, "sh", *UVM, "boot", *SMALL, "--id", vm_id, "-i", "--", "sh", "-c", "cat; echo lost; exit 5", stderr=PIPE
    )
    async with asyncio.timeout(LIMIT):
        _, err = await process.communicate()
    assert (process.returncode, told(err)) == (5, b"")
    assert of_vm(vm_id) == []


async def test_a_vm_that_ends_before_the_command_is_a_failure_of_ours_with_the_reason() -> None:
    done = await outcome("poweroff", "-f")
    assert (done.code, done.out) == (125, b"")
    assert done.err.endswith(b": ended (powered_off) before the command did\n")
    done = await outcome("sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
    assert (done.code, done.out) == (125, b"")
    assert b"the guest's kernel panicked: Kernel panic - not syncing: sysrq triggered crash" in done.err


async def test_without_a_command_it_lasts_as_long_as_the_vm() -> None:
    async with boot() as (uvm, vm_id):
        assert uvm.stderr is not None
        async for said in uvm.stderr:
            if said == f"vm {vm_id} runs; Ctrl-C ends it\n".encode():
                break
        uvm.send_signal(signal.SIGINT)
        assert told(await uvm.stderr.read()) == b""
    assert uvm.returncode == 130


# -- signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, *once(signal.SIGTERM, signal.SIGHUP)])
@pytest.mark.parametrize("moment", ["during the boot", "during the command"])
async def test_a_signal_ends_it_in_order(warm: Sequence[str], number: signal.Signals, moment: str) -> None:
    async with boot("sh", "-c", "echo ready; sleep 1000", start=SMALL if moment == "during the boot" else warm) as (uvm, vm_id):
        assert uvm.stdout is not None
        if moment == "during the boot":
            await until_running(vm_id)
        else:
            assert await uvm.stdout.readline() == b"ready\n"
        uvm.send_signal(number)
        async with asyncio.timeout(10):
            out, err = await uvm.communicate()
    assert (uvm.returncode, out, told(err)) == (128 + number, b"", b"")


async def test_when_it_is_killed_nothing_is_left() -> None:
    async with boot("sleep", "1000") as (uvm, vm_id):
        await until_running(vm_id)
        uvm.kill()
        await uvm.communicate()
        async with asyncio.timeout(2):
            while of_vm(vm_id):
                await asyncio.sleep(0.01)


# -- mistakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["boot", "--no-such-option"], 125, b"unrecognized arguments: --no-such-option"),
        (["boot", "--memory", "much"], 125, b"argument --memory/--memory-size-in-mb: 'much' is not a whole number of MiB"),
        (["boot", "--memory", "-5"], 125, b"memory_size_in_mb must be between 1 and"),
        (["boot", "--id", "a/b"], 125, b"id 'a/b' cannot name a VM"),
        (["boot", "--processor-limit", "5"], 125, b"Processor.Limit: 5: less than a thousandth of a processor"),
        (["boot", "--enable-graphics-console"], 125, b"graphics"),
        (["boot", "--is-template"], 125, b"is_template: the VM ends with its command and nobody saves it"),
        (["boot", "--forkable"], 125, b"forkable: the VM ends with its command and nobody forks it"),
        (
            ["boot", "--boot-files-path", "/nowhere"],
            125,
            b"uvm: kernel: '/nowhere/kernel' not found\nuvm: hint: build the boot files: uvm boot-files",
        ),
        (["boot", "--console-pipe", "relative"], 125, b"is the absolute path of a socket"),
        (["boot", "--", os.fsdecode(b"\xff")], 125, b"is not UTF-8"),
        (["boot", "-e", "=1", "--", "ls"], 125, b"'' cannot name an environment variable: it is empty"),
        (["boot", "-w", "/tmp"], 125, b"-w without a command: there is nothing to apply it to"),
        (["boot", "--timeout", "never", "--", "ls"], 125, b"argument --timeout: 'never' is not a positive number of seconds"),
        (["doctor", "really"], 2, b"unrecognized arguments: really"),
        (["boot-files", "show", "--out", "/nowhere"], 3, b"/nowhere/manifest.json: no such boot file"),
        (["nonsense"], 2, b"invalid choice: 'nonsense'"),
        ([], 2, b"the following arguments are required: VERB"),
    ],
)
async def test_a_mistake_is_answered_in_words(boot_files: BootFiles, words: list[str], code: int, says: bytes) -> None:
    assert boot_files.folder.is_dir()
    done = await uvm(*words)
    assert (done.code, done.out) == (code, b"")
    assert says in done.err


async def test_kvm_can_be_required(boot_files: BootFiles) -> None:
    facts = await QemuService().probe(boot_files.vmlinux)
    if facts.accel is Accel.KVM:
        pytest.skip("KVM works here")
    done = await uvm("boot", "--require-kvm")
    assert (done.code, done.out) == (125, b"")
    assert facts.reason.encode() in done.err


async def test_emulation_can_be_asked_for_and_nonsense_cannot(boot_files: BootFiles) -> None:
    assert boot_files.folder.is_dir()
    assert (await uvm("boot", "--require-kvm", env={"UVM_ACCEL": "tcg"})).code == 125
    done = await uvm("boot", env={"UVM_ACCEL": "magic"})
    assert done.code == 125
    assert b"UVM_ACCEL" in done.err


# -- other verbs --------------------------------------------------------------------------------------------------------


async def test_doctor_says_what_was_found(boot_files: BootFiles) -> None:
    done = await uvm("doctor")
    assert done.code == 0, done
    assert done.err == b""
    for words in (b"ok    boot files   " + bytes(boot_files.folder), b"ok    qemu         ", b"  acceleration ", b"ok    jail         "):
        assert words in done.out


async def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    done = await uvm("doctor", env={"UVM_QEMU": str(tmp_path / "no-qemu")})
    assert done.code == 6
    assert b"FAIL  qemu         " in done.out
    assert b"no-qemu" in done.out


async def test_the_version_is_told_without_loading_what_is_not_needed() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-X", "importtime", *UVM[1:], "--version", stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode == 0
    assert re.fullmatch(rb"uvm \d+\.\d+\.\d+\n", out)
    loaded = {line.rpartition(b"|")[2].strip().decode() for line in err.splitlines()}
    assert "utilityvm" in loaded
    assert not loaded & {"asyncio", "msgspec", "argparse", "logging", "socket", "platformdirs", "rich"}
