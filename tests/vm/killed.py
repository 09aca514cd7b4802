"""Owners of VMs that are killed at a step of their work."""

import asyncio
import signal
import sys
from typing import Final

from .running import LIMIT, of_vm

_STEPS: Final = """
import asyncio, os, signal, sys

step = sys.argv.pop()

def kill(where):
    if where == step:
        os.kill(os.getpid(), signal.SIGKILL)

def around(module, function):
    real = getattr(module, function)
    def call(*words, **more):
        kill(f"before {function}")
        result = real(*words, **more)
        kill(f"after {function}")
        return result
    setattr(module, function, call)
"""


async def killed_at(step: str, program: str, name: str, *words: str) -> None:
    """Let a program own the VM `name`, its first argument before `words`, until it kills itself at `step`, which it must come to; wait
    until nothing of the VM is there.

    The program calls `kill` with each step that it has come to, or lets a function be the steps before and after it by `around`.
    """
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _STEPS + program, name, *words, step)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == -signal.SIGKILL
        while of_vm(name):
            await asyncio.sleep(0.01)
