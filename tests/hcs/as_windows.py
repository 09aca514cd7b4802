"""Runs `uvm` with the words of its command line in an interpreter that is as Windows' is, as far as that can be played: its platform's
name and version, and none of the modules and names that Unix alone has. Its libraries cannot be loaded."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty")
NAMES: dict[Any, tuple[str, ...]] = {
    os: ("fchmod", "fork", "getegid", "geteuid", "getgid", "getuid", "memfd_create", "mkfifo", "pidfd_open", "sched_getaffinity", "setsid"),
    signal: ("SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGTSTP", "SIGUSR1", "SIGWINCH", "pthread_sigmask"),
    socket: ("AF_VSOCK", "CMSG_LEN", "SCM_RIGHTS"),
}


def library(name: str, **_how: object) -> object:
    raise OSError(f"the module {name} could not be found")


def load() -> None:
    """Load the package's door and its command line."""
    package = import_module("utilityvm")
    for public in package.__all__:
        getattr(package, public)
    for name in ("utilityvm.sync", "utilityvm.cli.main", "utilityvm.cli.doctor", "utilityvm.cli.document", "utilityvm.cli.options"):
        import_module(name)


def play() -> None:
    load()  # and with it the standard library, which is Unix's
    for name in [name for name in sys.modules if name.partition(".")[0] == "utilityvm"]:
        del sys.modules[name]
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in NAMES.items():
        for name in names:
            delattr(module, name)
    sys.platform = "win32"
    sys.getwindowsversion = lambda: SimpleNamespace(build=20348)  # type: ignore[attr-defined]
    ctypes.WinDLL = library  # type: ignore[attr-defined]
    ctypes.WINFUNCTYPE = ctypes.CFUNCTYPE  # type: ignore[attr-defined]


if __name__ == "__main__":
    play()
    load()
    package = import_module("utilityvm")
    if sys.argv[1:] == ["create_wcow"]:
        asyncio.run(package.create_wcow(package.OptionsWCOW(layer_folders=("a", "b"))))
    sys.exit(import_module("utilityvm.cli.main").main(sys.argv[1:]))
