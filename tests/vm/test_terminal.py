"""`uvm boot` and `uvm run` with -i -t at a terminal that the tests drive: what is typed and seen, and that the terminal is given back."""

import asyncio
import fcntl
import os
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from utilityvm.cli.terminal import raw_mode

from .once import once
from .running import LIMIT, of_vm, qemu_of

UVM = (sys.executable, "-m", "utilityvm", "boot", "--memory", "256", "--cpus", "1")
PROMPT = "uvm-guest# "
RUN = (sys.executable, "-m", "utilityvm", "run", "--memory-size-in-mb", "256", "--processor-count", "1")
SHELL = ("-i", "-t", "-e", f"PS1={PROMPT}", "--", "sh")
numbers = count()

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("boot_files")]


class Screen:
    """Our end of a pseudo terminal with a program at the other."""

    def __init__(self, master: int, slave: int) -> None:
        self._master, self._slave = master, slave
        self._changed = asyncio.Event()
        self.seen, self.term = "", "vt102"
        os.set_blocking(master, False)
        self.before = termios.tcgetattr(slave)
        self.pause(reading=True)

    def pause(self, *, reading: bool) -> None:
        loop = asyncio.get_running_loop()
        if reading:
            loop.add_reader(self._master, self._read)
        else:
            loop.remove_reader(self._master)

    def _read(self) -> None:
        try:
            self.seen += os.read(self._master, 65_536).decode(errors="replace")
        except OSError:
            self.pause(reading=False)
        self._changed.set()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something that comes with output is true."""
        try:
            async with asyncio.timeout(LIMIT):
                while not true():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail(f"not seen in {LIMIT:g} s; seen: {self.seen!r}")

    async def see(self, text: str) -> str:
        """Wait for `text`; return all up to it and forget that."""
        await self.until(lambda: text in self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    async def command(self, text: str) -> str:
        """Type a line at the guest's prompt and return what it printed."""
        self.type(text + "\r")
        await self.see(text + "\r\n")
        return (await self.see(PROMPT)).replace("\r\n", "\n")

    async def see_size(self, size: str) -> None:
        """Wait at the guest's prompt until its terminal has this height and width."""
        self.type(f"while [ \"$(stty size)\" != '{size}' ]; do :; done; stty size\r")
        await self.see(f"\r\n{size}\r\n")  # the line before may be drawn more than once
        await self.see(PROMPT)

    @property
    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def resize(self, height: int, width: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))

    def foreground(self) -> int:
        """The process group whose terminal it is."""
        return int.from_bytes(fcntl.ioctl(self._master, termios.TIOCGPGRP, bytes(4)), sys.byteorder)


@asynccontextmanager
async def at_terminal(*words: str, size: tuple[int, int] = (31, 97)) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    """Run a program that has a terminal of its own, which must be as it was at the end."""
    master, slave = os.openpty()
    screen = Screen(master, slave)
    screen.resize(*size)
    env = {**os.environ, "TERM": "vt102"}
    process = await asyncio.create_subprocess_exec("setsid", "--ctty", *words, stdin=slave, stdout=slave, stderr=slave, env=env)
    try:
        yield process, screen
        async with asyncio.timeout(LIMIT):
            await process.wait()
        assert screen.mode == screen.before, "the terminal was not given back"
        assert "Traceback" not in screen.seen, screen.seen
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        screen.pause(reading=False)
        os.close(master)
        os.close(slave)


@asynccontextmanager
async def boot(flags: Sequence[str] = SHELL) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen, str]]:
    """Run `uvm boot` at a terminal, as a rule with a shell whose first prompt has been seen. Nothing of its VM is left at the end."""
    vm_id = f"tty-{os.getpid()}-{next(numbers)}"
    async with at_terminal(*UVM, "--id", vm_id, *flags) as (uvm, screen):
        if flags is SHELL:
            await screen.see(PROMPT)
        yield uvm, screen, vm_id
    async with asyncio.timeout(LIMIT):
        while of_vm(vm_id):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def run(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen, str]]:
    """Run `uvm run` of a container's program at a terminal. Nothing of its VM is left at the end."""
    name = f"tty-{os.getpid()}-{next(numbers)}"
    async with at_terminal(*RUN, "--name", name, "-i", "-t", "-e", f"PS1={PROMPT}", "busybox", *words) as (uvm, screen):
        yield uvm, screen, name
    async with asyncio.timeout(LIMIT):
        while of_vm(name):
            await asyncio.sleep(0.01)


async def code_of(process: asyncio.subprocess.Process) -> int:
    """Wait for a program's end."""
    async with asyncio.timeout(LIMIT):
        return await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["boot", "run"])
async def shell(request: pytest.FixtureRequest) -> AsyncIterator[Screen]:
    """A shell in a guest, or in a container there, at its prompt, where each test leaves it."""
    async with boot() if request.param == "boot" else run("sh") as (uvm, screen, _):
        if request.param == "run":
            await screen.see(PROMPT)
            screen.term = "xterm"  # as docker's
        yield screen
        assert await screen.command("echo $((6 * 7))") == "42\n"
        screen.type("exit 7\r")
        assert await code_of(uvm) == 7


# -- what a program finds -----------------------------------------------------------------------------------------------


async def test_a_shell_has_our_size_and_kind_of_terminal(shell: Screen) -> None:
    assert shell.mode == raw_mode(shell.before)
    assert await shell.command("stty size; echo $TERM; tty") == f"31 97\n{shell.term}\n/dev/pts/0\n"
    shell.resize(50, 132)
    await shell.see_size("50 132")


async def test_a_resize_reaches_a_program_as_a_signal(shell: Screen) -> None:
    shell.type("sh -c 'trap \"stty size; exit\" WINCH; echo rea''dy; while :; do sleep 0.1; done'\r")
    await shell.see("ready\r\n")
    shell.resize(40, 100)
    await shell.see("40 100\r\n")
    await shell.see(PROMPT)


async def test_control_c_ends_the_program_and_not_the_shell_and_not_us(shell: Screen) -> None:
    shell.type("sh -c \"echo so''on; exec sleep 1000\"; echo ne''ver\r")  # only what runs can be interrupted
    await shell.see("soon\r\n")
    shell.type("\x03")
    assert "never" not in await shell.see(PROMPT)
    assert await shell.command("echo $?") == "130\n"


async def test_jobs_are_stopped_listed_continued_and_ended(shell: Screen) -> None:
    await shell.command("echo 'trap \"echo forth\" CONT; while :; do sleep 1; done' > /tmp/job")
    assert await shell.command("sh /tmp/job &") == ""
    assert "Running" in await shell.command("jobs")
    shell.type("fg\r")
    await shell.see("forth\r\n")  # it has the terminal
    shell.type("\x1a")
    await shell.see("Stopped")
    await shell.see(PROMPT)
    assert re.search(r"\[1\]\+ +Stopped +sh /tmp/job", await shell.command("jobs"))
    await shell.command("bg")
    assert "Running" in await shell.command("jobs")
    shell.type("fg\r")
    await shell.see("forth\r\n")
    shell.type("\x03")
    await shell.see(PROMPT)
    assert await shell.command("jobs; pidof sleep") == ""


async def test_an_editor_that_fills_the_screen_writes_a_file(shell: Screen) -> None:
    shell.type("vi /tmp/note\r")
    await shell.see("- /tmp/note")  # in the last line, with all the screen drawn
    shell.resize(20, 60)
    shell.type("ifirst line\rsecond")
    await shell.see("I /tmp/note [Modified] 2/2")  # I: what is typed goes into the text
    shell.type("\x1b")
    await shell.see("- /tmp/note [Modified] 2/2")
    shell.type(":wq\r")
    await shell.see(PROMPT)
    assert await shell.command("cat /tmp/note") == "first line\nsecond\n"


async def test_without_i_the_terminal_stays_as_it_is_and_control_c_is_for_us() -> None:
    async with boot(["-t", "--", "sh", "-c", "stty size; echo ready; sleep 1000"]) as (uvm, screen, _):
        await screen.see("31 97\r")
        await screen.see("ready\r")
        assert screen.mode == screen.before
        screen.type("\x03")
        assert await code_of(uvm) == 130


# -- ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, *once(signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)])
async def test_a_signal_gives_the_terminal_back(number: signal.Signals) -> None:
    async with boot() as (uvm, screen, _):
        assert screen.mode != screen.before
        uvm.send_signal(number)
        assert await code_of(uvm) == 128 + number


async def test_a_vm_that_is_killed_gives_the_terminal_back_and_says_why() -> None:
    async with boot() as (uvm, screen, vm_id):
        os.kill(qemu_of(vm_id), signal.SIGKILL)
        assert await code_of(uvm) == 125
        await screen.see(f"uvm: vm {vm_id}")


async def test_a_mistake_after_the_boot_gives_the_terminal_back() -> None:
    async with boot(["-i", "-t", "--", "no-such-program"]) as (uvm, screen, _):
        await screen.see("uvm: no-such-program: no such program in the guest\r\n")
        assert await code_of(uvm) == 127


async def test_a_container_whose_program_is_not_there_gives_the_terminal_back() -> None:
    async with run("no-such-program") as (uvm, screen, _):
        await screen.see("uvm: no-such-program: no such program in image busybox:latest\r\n")
        assert await code_of(uvm) == 127


async def test_a_container_that_is_killed_gives_the_terminal_back() -> None:
    async with run("sh", "-c", "echo ready; exec sleep 1000") as (uvm, screen, name):
        await screen.see("ready\r\n")
        assert screen.mode != screen.before
        os.kill(qemu_of(name), signal.SIGKILL)
        assert await code_of(uvm) == 125


async def test_a_terminal_that_nobody_reads_does_not_hold_up_the_end() -> None:
    async with boot() as (uvm, screen, _):
        screen.pause(reading=False)
        screen.type("yes\r")
        async with asyncio.timeout(LIMIT):
            while fcntl.ioctl(screen._master, termios.FIONREAD, bytes(4)) < struct.pack("i", 4000):
                await asyncio.sleep(0.05)
        uvm.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await uvm.wait() == 143


async def test_the_escape_ends_a_program_that_hears_nothing() -> None:
    async with boot() as (uvm, screen, _):
        await screen.command("trap '' INT QUIT TSTP HUP TERM; stty -isig -echo; echo deaf")
        screen.type("sleep 1000\r")
        screen.type("\x1d\x1d\x1d")
        await screen.see("uvm: ended by Ctrl-], pressed three times\r\n")
        assert await code_of(uvm) == 137


async def test_a_stop_from_elsewhere_gives_the_shell_its_terminal_and_fg_takes_it_again() -> None:
    vm_id = f"tty-{os.getpid()}-stop"
    async with at_terminal("bash", "--norc", "--noprofile", "--noediting", "-i") as (shell, screen):
        screen.type("PS1='host''$ '\n")
        await screen.see("host$ ")
        idle = screen.mode
        screen.type(" ".join([*UVM, "--id", vm_id, "-it", "-e", f"PS1='{PROMPT[:5]}''{PROMPT[5:]}'", "--", "sh"]) + "\n")
        await screen.see(PROMPT)
        raw = screen.mode
        assert raw == raw_mode(idle)
        uvm = screen.foreground()
        os.kill(uvm, signal.SIGTSTP)
        await screen.see("Stopped")
        await screen.see("host$ ")
        assert screen.mode == idle
        screen.resize(45, 99)
        screen.type("fg\n")
        await screen.until(lambda: screen.foreground() == uvm)
        async with asyncio.timeout(LIMIT):
            while screen.mode != raw:
                await asyncio.sleep(0.01)
        await screen.see_size("45 99")
        screen.type("exit 3\r")
        await screen.see("host$ ")
        assert screen.mode == idle
        screen.type("exit $?\n")
        assert await code_of(shell) == 3
    assert of_vm(vm_id) == []


# -- no terminal --------------------------------------------------------------------------------------------------------


async def test_i_and_t_without_a_terminal_are_refused_before_anything_boots() -> None:
    pipe = asyncio.subprocess.PIPE
    uvm = await asyncio.create_subprocess_exec(*UVM, "-it", "--", "sh", stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    out, err = await uvm.communicate()
    assert (uvm.returncode, out) == (125, b"")
    assert err.startswith(b"uvm: -i with -t needs a terminal on standard input, and there is none\nuvm: hint: leave out -t")


async def test_t_alone_needs_no_terminal_of_ours() -> None:
    pipe = asyncio.subprocess.PIPE
    command = (*UVM, "-t", "--", "sh", "-c", "tty; stty size; echo err >&2")
    uvm = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    out, err = await uvm.communicate()
    assert (uvm.returncode, out) == (0, b"/dev/pts/0\r\n24 80\r\nerr\r\n")
    assert b"err" not in err.replace(b"error", b"")
