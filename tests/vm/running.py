"""Short ways to run a program in a VM and to wait for something to become true in it, and to run `uvm` as a command."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from utilityvm import Process, UtilityVM

LIMIT = 60.0
"""Seconds in which anything that ends at all has ended, on a slow host without KVM too."""

UVM = (sys.executable, "-m", "utilityvm")
NOTHING, PIPE = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE


class Done(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    out: bytes
    err: bytes = b""


async def ended(process: Process) -> Done:
    """Read all that a process says, and wait for its end."""
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        out, err = group.create_task(process.stdout.read()), group.create_task(process.stderr.read())
        code = group.create_task(process.wait())
    await process.close()
    return Done(code.result(), out.result(), err.result())


async def run(vm: UtilityVM, *argv: str, cwd: str = "/", user: str = "") -> Done:
    """Run a program to its end."""
    return await ended(await vm.create_process(argv, cwd=cwd, user=user))


async def sh(vm: UtilityVM, script: str) -> Done:
    """Run a shell's script to its end."""
    return await run(vm, "sh", "-c", script)


async def line(process: Process) -> bytes:
    """Read one line of a process's output."""
    said = b""
    async with asyncio.timeout(LIMIT):
        while not said.endswith(b"\n"):
            byte = await process.stdout.read(1)
            assert byte, f"the output ended after {said!r}"
            said += byte
    return said


async def until(vm: UtilityVM, script: str) -> None:
    """Run `script` in the VM again and again until it succeeds."""
    last = Done(0, b"")
    try:
        async with asyncio.timeout(LIMIT):
            while (last := await sh(vm, script)).code != 0:
                pass
    except TimeoutError:
        pytest.fail(f"did not come true in {LIMIT:g} s: {script}: {last}")


def of_vm(vm_id: str) -> list[int]:
    """Return the processes of this host that have the VM's id among their words: its QEMU, and what becomes it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if vm_id.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@asynccontextmanager
async def command(
    vm_id: str, *words: str, stdin: int = NOTHING, stdout: int = PIPE, stderr: int = PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `uvm` with words that give its VM this id, and see that nothing of the VM is left at the end."""
    process = await asyncio.create_subprocess_exec(*UVM, *words, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        async with asyncio.timeout(LIMIT):
            yield process
            await process.wait()
            while of_vm(vm_id):
                await asyncio.sleep(0.01)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def uvm(*words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Done:
    """Run `uvm` with any words, to its end; `env` is added to the environment."""
    process = await asyncio.create_subprocess_exec(
        *UVM, *words, stdin=NOTHING, stdout=PIPE, stderr=PIPE, env={**os.environ, **(env or {})}, cwd=cwd
    )
    async with asyncio.timeout(LIMIT):
        return await outcome_of(process)


async def outcome_of(process: asyncio.subprocess.Process, given: bytes | None = None) -> Done:
    """Give a command its input and read all that it says; what it says when it falls back to emulation is left out."""
    out, err = await process.communicate(given)
    assert process.returncode is not None
    return Done(process.returncode, out, told(err))


def told(err: bytes) -> bytes:
    """Return what a command said on its standard error, but for the fall back to emulation."""
    assert b"Traceback" not in err, err.decode()
    return re.sub(rb"(?m)^uvm: warning: software emulation.*\n", b"", err)


def qemu_of(vm_id: str) -> int:
    """Return the VM's QEMU."""
    (pid,) = [pid for pid in of_vm(vm_id) if b"qemu" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]]
    return pid


def below(pid: int) -> list[int]:
    """Return the processes below `pid`, the deepest last: what QEMU is put into, and QEMU."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    found: list[int] = []
    with suppress(OSError):
        for child in map(int, listing.read_text().split()):
            found += [child, *below(child)]
    return found
