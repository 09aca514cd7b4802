"""Which layers of the jail this host gives, found by running QEMU in them; and what QEMU reads, so that the jail need show no more."""

import asyncio
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from utilityvm.compute.qemu.jail import ALWAYS, FIRST_UID, STEPS, Jail, Layer, enclosure
from utilityvm.compute.qemu.kept import Kept, boot_id
from utilityvm.kit.aio import finish
from utilityvm.kit.child import Child
from utilityvm.kit.enclosure import OPEN, Enclosure
from utilityvm.kit.errors import HostError
from utilityvm.kit.files import identity

_TRIAL: Final = 10.0
_CLEANUP: Final = 5.0
_LIBRARIES: Final = Path("/etc/ld.so.cache")  # of the loader; written anew when libraries change
_SETTINGS: Final = ("user/max_user_namespaces", "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns")


async def probe_jail(qemu: Path, cache: Path, *, anew: bool = False) -> Jail:
    """Find the layers that hold the program `qemu` on this host; a fifth of a second, once per host boot, user, QEMU and bwrap.

    Raises:
        HostError: a trial does not end, so that it says nothing.
    """
    root = os.geteuid() == 0
    memory = Kept(cache / "jail.json", Jail)
    key = f"{boot_id()} {os.geteuid()} {identity(qemu)} {identity(_bwrap())} {identity(_LIBRARIES)}"
    key += f" {' '.join(map(_setting, _SETTINGS))}"
    if anew or (known := memory.get(key)) is None:
        known = await _try(qemu, await files_of(qemu), root=root)
        memory.put(key, known)
    return known


async def _try(qemu: Path, files: tuple[str, ...], *, root: bool) -> Jail:
    """Try all layers at once; if the host refuses, add one step after the other and keep those with which QEMU runs."""
    steps = [step for step in STEPS if root or step != (Layer.OWN_USER,)]
    whole = Jail(layers=(*(layer for step in steps for layer in step), *ALWAYS), files=files)
    if not await _refusal(qemu, whole, root=root):
        return whole
    held: list[Layer] = []
    lacks: dict[Layer, str] = {}
    for step in steps:
        if step[0] is not Layer.OWN_USER and Layer.USER in lacks:
            refusal = "needs the user namespace"
        else:
            refusal = await _refusal(qemu, Jail(layers=(*held, *step, *ALWAYS), files=files), root=root)
        if refusal:
            lacks |= dict.fromkeys(step, refusal)
        else:
            held += step
    return Jail(layers=(*held, *ALWAYS), lacks=lacks, files=files)


async def _refusal(qemu: Path, jail: Jail, *, root: bool) -> str:
    """Run QEMU in the jail; return why it did not, ``""`` when it did."""
    code, said = await _run([str(qemu), "--version"], enclosure(jail, FIRST_UID, root=root))
    if code == 0 and "QEMU" in said:
        return ""
    return "; ".join(said.splitlines()[-2:]) or f"QEMU ended with {code} and said nothing"


async def files_of(qemu: Path) -> tuple[str, ...]:
    """Return the files and folders that the program `qemu` reads before its guest runs: itself, its libraries, modules and firmware."""
    _, linked = await _run(["ldd", str(qemu)], OPEN)
    _, firmware = await _run([str(qemu), "-L", "help"], OPEN)
    return _there(qemu, re.findall(r"(?:=> |^\s*)(/\S+)", linked, re.MULTILINE), re.findall(r"^(/\S+)$", firmware, re.MULTILINE))


def _there(qemu: Path, libraries: Sequence[str], firmware: Sequence[str]) -> tuple[str, ...]:
    """Add what no program lists: the loader's cache, and modules, which lie in a folder beside the libraries."""
    places = {Path(library).resolve().parent for library in libraries} | {qemu.parent.parent / "lib"}
    modules = sorted(str(place / "qemu") for place in places if any((place / "qemu").glob("*.so")))
    folders = [os.path.normpath(folder) for folder in firmware]
    return tuple(file for file in (str(_LIBRARIES), *libraries, *modules, *folders, str(qemu)) if Path(file).exists())


async def _run(argv: Sequence[str], around: Enclosure) -> tuple[int, str]:
    child = Child(argv, enclosure=around)
    try:
        async with asyncio.timeout(_TRIAL):
            code = await child.wait()
    except TimeoutError as error:
        raise HostError(f"{shlex.join(argv)}: no end in {_TRIAL:g} s") from error
    finally:
        child.kill()
        try:
            await finish(child.wait(), within=_CLEANUP)
        except TimeoutError as error:
            raise HostError(f"{argv[0]} (process {child.pid}) was killed and is still there after {_CLEANUP:g} s") from error
    return code, child.output.text(1000)


def _bwrap() -> Path:
    return Path(shutil.which("bwrap") or "bwrap")


def _setting(name: str) -> str:
    """Return what a sysctl says of user namespaces, which may change while the host runs."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return "-"
