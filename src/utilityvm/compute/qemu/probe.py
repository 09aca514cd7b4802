"""Facts about QEMU and this host, found by asking and by running, never by looking at a device node alone.

Answers that cost time are kept in the cache folder: QEMU's version for as long as the program's file stays as it is, the
verdict on KVM and the layers of the jail for a host boot.
"""

import asyncio
import os
import re
import shutil
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from utilityvm.compute.qemu.console import SerialConsole
from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.jail import FIRST_UID, Jail, enclosure, for_kvm
from utilityvm.compute.qemu.jail_probe import probe_jail
from utilityvm.compute.qemu.kept import Kept, boot_id
from utilityvm.compute.qemu.lower import FIRMWARE, SANDBOX
from utilityvm.compute.qemu.reads import offer
from utilityvm.kit.aio import finish
from utilityvm.kit.child import Child
from utilityvm.kit.errors import HostError, InvalidOptions, Problem, Unsupported
from utilityvm.kit.files import identity

PROGRAM: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"
OLDEST: Final = (7, 2, 0)

KVM_TRIAL: Final = 3.0
"""Seconds in which a guest kernel must have booted under KVM. Half a second is enough where it works; emulation needs two."""

_TCG_ADDRESS_BITS: Final = 40
_VERSION_TRIAL: Final = 10.0
_CLEANUP: Final = 5.0
_KVM: Final = Path("/dev/kvm")
_NO_JAIL: Final = Jail()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What will execute the guest's instructions, and why."""

    accel: Accel
    reason: str


async def probe(cache: Path, kernel: Path, environ: Mapping[str, str] = os.environ, *, anew: bool = False) -> HostFacts:
    """Find what a machine that boots `kernel` will run on; at most a little over `KVM_TRIAL` seconds, once per host boot.

    `cache` is a folder, made when missing. The environment may name QEMU (`UVM_QEMU`) and decide on acceleration
    (`UVM_ACCEL`: ``kvm`` or ``tcg``). `anew` passes over what was kept of KVM and the jail, which a busy moment may have spoilt.

    Raises:
        Unsupported: QEMU is missing or too old.
        InvalidOptions: `UVM_ACCEL` has another value.
        HostError: QEMU cannot be asked.
    """
    forced = _forced(environ)
    qemu = find_qemu(environ)
    version = await qemu_version(qemu, cache)
    if version < OLDEST:
        raise Unsupported(f"{qemu}: is version {'.'.join(map(str, version))}, the oldest that works is {OLDEST[0]}.{OLDEST[1]}")
    jail = await probe_jail(qemu, cache, anew=anew)
    with_kvm = _reaching_kvm(jail)
    verdict = forced or await kvm_verdict(qemu, kernel, cache, jail=with_kvm, anew=anew)
    return HostFacts(
        qemu=str(qemu),
        version=version,
        accel=verdict.accel,
        reason=verdict.reason,
        processors=len(os.sched_getaffinity(0)),
        address_bits=_TCG_ADDRESS_BITS if verdict.accel is Accel.TCG else _host_address_bits(),
        jail=with_kvm if verdict.accel is Accel.KVM else jail,
    )


def find_qemu(environ: Mapping[str, str]) -> Path:
    """Return QEMU's program: `UVM_QEMU`, or the one on the `PATH`.

    Raises:
        Unsupported: there is none.
    """
    name = environ.get("UVM_QEMU") or PROGRAM
    if (found := shutil.which(name, path=environ.get("PATH"))) is None:
        said = " (from UVM_QEMU)" if environ.get("UVM_QEMU") else ""
        raise Unsupported(f"{name}{said}: no such program", hint=f"install the package {PACKAGE}, or let UVM_QEMU name QEMU's program")
    return Path(found).resolve()


async def qemu_version(qemu: Path, cache: Path) -> tuple[int, int, int]:
    """Return the version that the program `qemu` says it has.

    Raises:
        HostError: it does not say.
    """
    memory = Kept(cache / "qemu-version.json", tuple[int, int, int])
    key = identity(qemu)
    if (known := memory.get(key)) is not None:
        return known
    child = Child([str(qemu), "--version"])
    try:
        async with asyncio.timeout(_VERSION_TRIAL):
            await child.wait()
    except TimeoutError as error:
        raise HostError(f"{qemu} --version: no answer in {_VERSION_TRIAL:g} s") from error
    finally:
        await _end(child)
    if (found := re.search(rb"version (\d+)\.(\d+)\.(\d+)", child.output.data)) is None:
        raise HostError(f"{qemu} --version: ended with {child.code} and said no version: {child.output.text(3)}")
    version = (int(found[1]), int(found[2]), int(found[3]))
    memory.put(key, version)
    return version


async def kvm_verdict(qemu: Path, kernel: Path, cache: Path, device: Path = _KVM, *, jail: Jail = _NO_JAIL, anew: bool = False) -> Verdict:
    """Say whether KVM works, by booting `kernel` under it in `jail`. That `device` opens is not enough: on some hosts no guest gets far.

    Raises:
        HostError: QEMU could not be started at all.
    """
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Verdict(accel=Accel.TCG, reason=f"{device}: {error.strerror}")
    memory = Kept(cache / "kvm-verdict.json", Verdict)
    key = f"{boot_id()} {identity(qemu)} {identity(kernel)} {' '.join(jail.layers)}"
    if anew or (known := memory.get(key)) is None:
        known = await _try_kvm(qemu, kernel, jail)
        memory.put(key, known)
    return known


async def _try_kvm(qemu: Path, kernel: Path, jail: Jail) -> Verdict:
    """Boot without a root file system: a kernel that works finds none, panics and resets itself, and QEMU ends."""
    ours, theirs = socket.socketpair()
    console = SerialConsole()
    with ours, theirs, ExitStack() as held:
        machine = ("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256M", "-nodefaults", "-no-user-config", "-display", "none")
        serial = ("-chardev", f"socket,id=console,fd={theirs.fileno()}", "-serial", "chardev:console")
        offered = offer([str(kernel)], jail, held)
        boot = ("-no-reboot", "-bios", FIRMWARE, "-kernel", offered.names[0], "-append", "console=ttyS0 panic=-1 quiet")
        around = enclosure(jail, FIRST_UID, root=os.geteuid() == 0, files=offered.shown, devices=(str(_KVM),))
        words = [str(qemu), "-sandbox", SANDBOX, *machine, *serial, *boot]
        child = Child(words, pass_fds=[theirs.fileno(), *offered.fds], enclosure=around)
        console.open(ours)
        try:
            async with asyncio.timeout(KVM_TRIAL):
                await child.wait()
        except TimeoutError:
            return Verdict(accel=Accel.TCG, reason=f"KVM is there but does not work: a guest kernel did not boot in {KVM_TRIAL:g} s")
        finally:
            await _end(child)
            console.close()
    if child.code == 0 and "Kernel panic" in console.tail(100):
        return Verdict(accel=Accel.KVM, reason="a guest kernel booted under KVM")
    said = "; ".join((child.output.text(3) or console.tail(3) or f"it ended with {child.code}").splitlines())
    return Verdict(accel=Accel.TCG, reason=f"KVM is there but does not work: {said}")


async def _end(child: Child) -> None:
    child.kill()
    try:
        await finish(child.wait(), within=_CLEANUP)
    except TimeoutError as error:
        raise HostError(f"QEMU (process {child.pid}) was killed while it was tried out and is still there after {_CLEANUP:g} s") from error


def _reaching_kvm(jail: Jail) -> Jail:
    try:
        found = _KVM.stat()
    except OSError:
        return jail  # the verdict says why it is not there
    return for_kvm(jail, mode=found.st_mode, gid=found.st_gid)


def _forced(environ: Mapping[str, str]) -> Verdict | None:
    wanted = environ.get("UVM_ACCEL", "")
    if not wanted:
        return None
    if wanted not in set(Accel):
        message = f"UVM_ACCEL={wanted}: must be kvm or tcg"
        raise InvalidOptions(message, problems=[Problem("$UVM_ACCEL", "accel", message)])
    return Verdict(accel=Accel(wanted), reason=f"UVM_ACCEL={wanted}")


def _host_address_bits() -> int:
    found = re.search(r"^address sizes\s*: (\d+) bits physical", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return int(found[1]) if found else _TCG_ADDRESS_BITS
