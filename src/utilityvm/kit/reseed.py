"""Lets a Python program that runs in a template have random numbers of its own in each clone.

This file needs nothing but Python: copy it into the guest, and call `install` there once the program has imported what it needs.
"""

import atexit
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

HOOKS = "/etc/utilityvm/after-clone.d"
"""The folder whose programs the guest's agent runs in a clone before anybody can use it."""

_ENTROPY = 64  # bytes

_SCRIPT = """#!/bin/sh
# Tells process {pid} to reseed, and waits until it has. A process that has its number, and not our pipe, is another.
test /proc/{pid}/fd/{fd} -ef {pipe} || exit 0
kill -{signal} {pid} && read -r done <{pipe}
"""


def reseed() -> None:
    """Let the generators of this process begin anew, from the kernel's random numbers: `random`, and, if they were imported, `uuid`, `ssl`
    and `numpy.random`. What asks the kernel each time (`secrets`, `os.urandom`, `uuid.uuid4`) needs nothing.
    """
    random.seed()
    if (uuid := sys.modules.get("uuid")) is not None:
        # uuid1 is made by a library that keeps a number and an address of its own; Python's own way takes them from `random` and the host.
        vars(uuid).update(_generate_time_safe=None, _node=None, _last_timestamp=None)
    if (ssl := sys.modules.get("ssl")) is not None:
        ssl.RAND_add(os.urandom(_ENTROPY), _ENTROPY)
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed(int.from_bytes(os.urandom(4), "little"))


def install(then: Callable[[], None] = lambda: None, *, number: int = signal.SIGUSR1, hooks: str = HOOKS) -> None:
    """From now on `reseed` in each clone of the VM, and call `then` after it, before anybody can use the clone.

    The signal `number` tells this process, in the main thread, from which this is called, and `then` is called in its handler: it
    must not print, for the program may be printing. A hook in the folder `hooks` sends it and waits.
    A program that does not come to it in 5 s (it is in a long call of C) fails the clone's start. The hook goes with the process.

    Raises:
        OSError: the hook cannot be written.
        ValueError: this is not the main thread.
    """
    pid = os.getpid()
    folder = Path(hooks)
    folder.mkdir(parents=True, exist_ok=True)
    hook, pipe = folder / f"python-{pid}", Path(tempfile.mkdtemp(prefix="utilityvm-reseed-"), "pipe")
    os.mkfifo(pipe, 0o600)
    fd = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)  # for both ways: writing waits for no reader, and is not lost before there is one

    def told(_number: int, _frame: FrameType | None) -> None:
        reseed()
        then()
        os.write(fd, b"done\n")

    def forget() -> None:
        if os.getpid() == pid:  # not in what it has forked
            hook.unlink(missing_ok=True)
            shutil.rmtree(pipe.parent, ignore_errors=True)

    signal.signal(number, told)
    atexit.register(forget)
    hook.write_text(_SCRIPT.format(pid=pid, fd=fd, pipe=pipe, signal=int(number)))
    hook.chmod(0o755)
