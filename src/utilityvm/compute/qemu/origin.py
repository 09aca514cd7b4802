"""What a clone goes on from: its template's memory, which no clone can change, and the state of its devices."""

import asyncio
import hashlib
import os
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.kept import identity
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.savable import READS_ONLY_SINCE, difference, topology
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import Corrupt, HostError, Unsupported
from utilityvm.kit.files import copy_sparse, digest
from utilityvm.store.templates import FileRecord, MachineRecord, Opened, opened

if sys.platform != "win32":  # where no machine of ours runs
    import fcntl

KEPT: Final = 4
"""Templates whose memory a process keeps for its next clones; the one used longest ago goes."""

_HINT: Final = "make the template again on this host"


@final
class _Kept:
    """A memfd that has, once it is `whole`, a template's memory. Machines may map it before: QEMU looks at nothing until it is told to."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = os.memfd_create(f"uvm-template-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self._filling, self._whole = threading.Lock(), False

    def fill(self, source: int, fd: int) -> None:
        """Copy `source` to it and seal it, unless another has. `fd` is the caller's descriptor, since ours may be closed meanwhile."""
        with self._filling:
            if not self._whole:
                copy_sparse(source, fd)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
                self._whole = True


@final
class Origin:
    """Descriptors of a template's memory and state, a clone's own; `close` lets go of them. The memory is there when it is `whole`."""

    def __init__(self, template: Opened, kept: _Kept | None) -> None:
        self._name, self._kept = f"template {template.manifest.id}", kept
        self._fds = [os.dup(template.memory), os.dup(template.state)]
        if kept is not None:
            self._fds.append(os.dup(kept.fd))
        self.memory, self.state = self._fds[-1 if kept is not None else 0], self._fds[1]

    async def whole(self) -> None:
        """Copy the memory, if it is the first of its template in this process and QEMU cannot do without. A cancelled call is carried out.

        Raises:
            HostError: it cannot be copied; another may try again.
        """
        if self._kept is None:
            return
        try:
            await finish(asyncio.to_thread(self._kept.fill, self._fds[0], self.memory), within=None)
        except OSError as error:
            raise HostError(f"{self._name}: its memory cannot be copied: {error.strerror}") from error

    def close(self) -> None:
        """Let go of all. A second call does nothing."""
        while self._fds:
            os.close(self._fds.pop())
        self.memory = self.state = -1


@final
class Memories:
    """The memory of templates in this process, copied once for all clones that it makes of one, and sealed.

    It is copied while the first clone's QEMU starts. A QEMU that can open a file for reading alone has the template's own.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], _Kept] = OrderedDict()
        self._busy = threading.Lock()  # clones may be made in more than one event loop

    async def take(self, folder: Path, launch: Launch, facts: HostFacts) -> Origin:
        """Return what a machine that is started so goes on from. A cancelled call leaves nothing.

        Raises:
            NotFound, Corrupt, HostError: the template is not there, or not as it was written.
            Unsupported: it goes on from the template of another machine; the text says what differs.
        """
        taken: list[Origin] = []
        try:
            await finish(asyncio.to_thread(lambda: taken.append(self._take(folder, launch, facts))), within=None)
        except BaseException:
            for origin in taken:
                origin.close()
            raise
        return taken[0]

    def close(self) -> None:
        """Forget all of it; clones that run go on."""
        with self._busy:
            while self._kept:
                os.close(self._kept.popitem()[1].fd)

    def _take(self, folder: Path, launch: Launch, facts: HostFacts) -> Origin:
        with opened(folder, launch.template) as template:
            _compare(template.manifest.machine, launch, facts, f"template {launch.template}")
            _check(template)
            if facts.version >= READS_ONLY_SINCE:
                return Origin(template, None)
            try:
                with self._busy:
                    return Origin(template, self._of(template.memory, launch.template))
            except OSError as error:
                raise HostError(f"template {launch.template}: there is no memory for it: {error.strerror}") from error

    def _of(self, file: int, name: str) -> _Kept:
        about = os.fstat(file)
        key = (about.st_dev, about.st_ino, about.st_mtime_ns)
        if (kept := self._kept.get(key)) is None:
            kept = self._kept[key] = _Kept(name, about.st_size)
            if len(self._kept) > KEPT:
                os.close(self._kept.popitem(last=False)[1].fd)
        self._kept.move_to_end(key)
        return kept


def record_of(launch: Launch, facts: HostFacts) -> MachineRecord:
    """Return what a template of this machine goes with. Reads all of the files that it boots from.

    Raises:
        OSError: one of them cannot be read.
    """
    files = {str(fd): FileRecord(sha256=digest(Path(path)), identity=identity(Path(path))) for fd, path in launch.files.items()}
    return MachineRecord(
        qemu=_version(facts),
        accel=facts.accel.value,
        processor=_processor() if facts.accel is Accel.KVM else "",
        topology=topology(launch.argv),
        files=files,
        memory_bytes=launch.memory_bytes,
    )


def depends_on(facts: HostFacts) -> tuple[str, ...]:
    """Name what a machine's state depends on beside its document and the files that it boots from."""
    return (identity(Path(facts.qemu)), _version(facts), facts.accel.value, _processor() if facts.accel is Accel.KVM else "")


def _compare(theirs: MachineRecord, launch: Launch, facts: HostFacts, name: str) -> None:
    """Refuse a machine that cannot go on from the template: the first that differs says why."""
    ours = {"QEMU": _version(facts), "acceleration": facts.accel.value}
    of_template = {"QEMU": theirs.qemu, "acceleration": theirs.accel}
    for what, value in ours.items():
        if value != of_template[what]:
            raise Unsupported(f"{name}: was made with {what} {of_template[what]}, and here is {value}", hint=_HINT)
    if theirs.processor and theirs.processor != _processor():
        raise Unsupported(f"{name}: was made on another processor: {theirs.processor}", hint=_HINT)
    files = {str(fd): path for fd, path in launch.files.items()}
    for what, path in files.items():
        record = theirs.files.get(what)
        if record is None or (record.identity != identity(Path(path)) and record.sha256 != digest(Path(path))):
            raise Unsupported(f"{name}: was made with another {what} than {path}", hint=_HINT)
    if differs := difference(topology(launch.argv), theirs.topology):
        raise Unsupported(f"{name}: is of another machine: {differs}", hint="a clone has the options of its template")


def _check(template: Opened) -> None:
    name, record = f"template {template.manifest.id}", template.manifest.machine
    if (size := os.fstat(template.memory).st_size) != record.memory_bytes:
        raise Corrupt(f"{name}: its memory has {size} bytes, and should have {record.memory_bytes}")
    found = hashlib.sha256(os.pread(template.state, os.fstat(template.state).st_size, 0)).hexdigest()
    if found != template.manifest.state_sha256:
        raise Corrupt(f"{name}: the state of its devices is not as it was written")


def _version(facts: HostFacts) -> str:
    return ".".join(map(str, facts.version))


def _processor() -> str:
    """Name the host's processor with all that it can do: under KVM a guest sees it."""
    told = ""
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    wanted = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in told.splitlines()}
    return f"{wanted.get('model name', '')}, {hashlib.sha256(wanted.get('flags', '').encode()).hexdigest()[:16]}"
