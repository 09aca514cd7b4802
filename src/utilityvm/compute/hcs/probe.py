"""What a Windows host gives for VMs: facts first, then what they mean, which is pure."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from utilityvm.compute.hcs.calls import Hcs, windows
from utilityvm.kit.errors import UtilityVMError
from utilityvm.options.builds import KERNEL_DIRECT

OLDEST: Final = 17763
"""The oldest build whose host service has the second schema: Windows Server 2019, Windows 10 1809."""


class WindowsFacts(msgspec.Struct, frozen=True):
    """A Windows host.

    Its build; whether this process has an administrator's rights, Hyper-V its worker, Python hvsockets; and the service's answer, or
    why there is none.
    """

    build: int
    elevated: bool
    worker: bool
    hvsockets: bool
    answer: str = ""
    refusal: str = ""
    hint: str = ""


class Told(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    subject: str
    text: str
    good: bool = True
    hint: str = ""
    needed: bool = True
    """Whether no VM boots without it."""


def look(build: int, environ: Mapping[str, str] = os.environ, *, hcs: Hcs | None = None, elevated: bool | None = None) -> WindowsFacts:
    """Look at this host; its `build` is Windows' own to tell. `hcs` and `elevated` are looked for where they are not given."""
    worker = Path(environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "vmwp.exe").exists()
    answer = refusal = hint = ""
    try:
        calls = hcs or Hcs(windows())
        answer = calls.service_properties('{"PropertyTypes":["ProcessorTopology"]}')
    except UtilityVMError as error:
        refusal, hint = error.message, error.hint
    rights = is_administrator() if elevated is None else elevated
    return WindowsFacts(build, rights, worker, hasattr(socket, "AF_HYPERV"), answer, refusal, hint)


def is_administrator() -> bool:
    """Whether this process has an administrator's rights; no other place can be opened for a look by them alone."""
    if sys.platform != "win32":
        return False
    try:
        os.listdir(Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "config"))  # noqa: PTH208 (its right is what is asked)
    except OSError:
        return False
    return True


def told_of(facts: WindowsFacts) -> list[Told]:
    """Return what the facts mean for utility VMs, in the order in which to mend them."""
    service = Told("hcs", facts.refusal or "the host service answers", good=not facts.refusal, hint=facts.hint)
    return [
        _either("windows", facts.build >= OLDEST, f"build {facts.build}", f"build {facts.build} is too old", f"{OLDEST} is the oldest"),
        replace(
            _either(
                "kernel boot",
                facts.build >= KERNEL_DIRECT,
                "Linux kernels are booted directly",
                f"build {facts.build} boots Linux kernels by UEFI only",
                "use kernel_direct=False",
            ),
            needed=False,
        ),
        _either("hyper-v", facts.worker, "on", "off: its vmwp.exe is missing", "turn on the Windows features Hyper-V and Containers"),
        service,
        _either("rights", facts.elevated, "administrator", "not an administrator", "open the terminal as an administrator"),
        _either("hvsockets", facts.hvsockets, "this Python has them", "this Python has no AF_HYPERV", "use Python 3.12 or newer"),
    ]


def _either(subject: str, good: bool, yes: str, no: str, hint: str) -> Told:
    return Told(subject, yes if good else no, good=good, hint="" if good else hint)
