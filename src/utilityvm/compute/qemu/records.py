"""What a machine's state goes with: a record of the machine that was saved, and whether another can go on from it."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.savable import difference, topology
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.files import digest, identity
from utilityvm.store.devices import FileRecord
from utilityvm.store.templates import MachineRecord

NONE_KNOWN: Final[Mapping[str, str]] = MappingProxyType({})
"""No digests of files."""

_HINT: Final = "make it again on this host"


def record_of(
    launch: Launch, facts: HostFacts, known: Mapping[str, str] = NONE_KNOWN, *, memory_in_state: bool = False, kept: bool = True
) -> MachineRecord:
    """Return what the state of this machine goes with. Reads the files that it boots from, but for those whose digests are `known`, by
    their identities; none if it is not `kept` longer than they are.

    Raises:
        OSError: one of them cannot be read.
    """

    def record(path: Path) -> FileRecord:
        name = identity(path)
        return FileRecord(sha256=(known.get(name) or digest(path)) if kept else "", identity=name)

    files = {str(fd): record(Path(path)) for fd, path in launch.files.items()}
    return MachineRecord(
        qemu=_version(facts),
        accel=facts.accel.value,
        processor=_processor() if facts.accel is Accel.KVM else "",
        topology=topology(launch.argv),
        files=files,
        memory_bytes=launch.memory_bytes,
        memory_in_state=memory_in_state,
    )


def depends_on(facts: HostFacts) -> tuple[str, ...]:
    """Name what a machine's state depends on beside its document and the files that it boots from."""
    return (identity(Path(facts.qemu)), _version(facts), facts.accel.value, _processor() if facts.accel is Accel.KVM else "")


def compare(theirs: MachineRecord, launch: Launch, facts: HostFacts, name: str) -> None:
    """Refuse a machine that cannot go on from the one of the record, which is called `name`: the first that differs says why.

    Raises:
        Unsupported: it cannot.
        OSError: a file that it boots from cannot be read.
    """
    ours = {"QEMU": _version(facts), "acceleration": facts.accel.value}
    recorded = {"QEMU": theirs.qemu, "acceleration": theirs.accel}
    for what, value in ours.items():
        if value != recorded[what]:
            raise Unsupported(f"{name}: was made with {what} {recorded[what]}, and here is {value}", hint=_HINT)
    if theirs.processor and theirs.processor != _processor():
        raise Unsupported(f"{name}: was made on another processor: {theirs.processor}", hint=_HINT)
    files = {str(fd): path for fd, path in launch.files.items()}
    for what, path in files.items():
        record = theirs.files.get(what)
        if record is None or (record.identity != identity(Path(path)) and record.sha256 != digest(Path(path))):
            raise Unsupported(f"{name}: was made with another {what} than {path}", hint=_HINT)
    if differs := difference(topology(launch.argv), theirs.topology):
        raise Unsupported(f"{name}: is of another machine: {differs}", hint="a clone has the options of its template")


def _version(facts: HostFacts) -> str:
    return ".".join(map(str, facts.version))


def _processor() -> str:
    """Name the host's processor with all that it can do: under KVM a guest sees it."""
    told = ""
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    wanted = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in told.splitlines()}
    return f"{wanted.get('model name', '')}, {hashlib.sha256(wanted.get('flags', '').encode()).hexdigest()[:16]}"
