"""What a VM had been given when it was saved: the records of its disks, persistent memory and shares, and of its containers."""

from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct, structs

from utilityvm.kit.errors import HostError, NotFound, Unsupported
from utilityvm.kit.files import digest, identity
from utilityvm.wire.oci import OciProcess


class FileRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the host: its content, and by what to know it without reading all of it."""

    sha256: str
    identity: str


class DiskRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A SCSI disk at `controller`:`lun`, called `host_path`, mounted at `guest_path` with `options`.

    One that the guest writes to is in files of the template, `content`, the lowest first: each but the last has what those above it have
    not. One that it only reads is the host's own `file`.
    """

    controller: int
    lun: int
    host_path: str
    guest_path: str = ""
    read_only: bool
    options: tuple[str, ...] = ()
    references: int = 1
    content: tuple[str, ...] = ()
    file: FileRecord | None = None


class PmemRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image `host_path` in a slot of persistent memory, mounted at `guest_path`. Of one that is only reserved there are 0 `references`.

    `address` is where the guest has it in its memory; `file` is the host's.
    """

    slot: int
    host_path: str
    guest_path: str = ""
    references: int = 1
    address: int = 0
    file: FileRecord | None = None


class ShareRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of the host that the guest has at `guest_path`; of `allowed_names`, when that is not None, and nothing else of it."""

    name: str
    host_path: str
    guest_path: str
    read_only: bool
    allowed_names: tuple[str, ...] | None = None


class ContainerRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A container: its first `process`, as far as it is known, and what it has in the guest: the union `root` of the images that are
    mounted at `layers`, and the disk that is mounted at `scratch`; empty when it has none.
    """

    id: str
    process: OciProcess | None = None
    layers: tuple[str, ...] = ()
    root: str = ""
    scratch: str = ""


class Devices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `mount_points` and `share_names` are how many of either have been given out."""

    disks: tuple[DiskRecord, ...] = ()
    pmem: tuple[PmemRecord, ...] = ()
    shares: tuple[ShareRecord, ...] = ()
    containers: tuple[ContainerRecord, ...] = ()
    mount_points: int = 0
    share_names: int = 0


R = TypeVar("R", DiskRecord, PmemRecord)

_HINT: Final = "pull or import the image that it belongs to again, or make the template again"


def find(record: R, elsewhere: Path, *, moved: bool = False) -> R:
    """Return the record of a file that is shared, as it is here: where it was, or by its own name in `elsewhere`.

    A file that has not changed since by its times is not read, unless the record has `moved` from another host.

    Raises:
        NotFound: it is gone.
        Unsupported: it is another one now.
        HostError: it cannot be read.
    """
    wanted, path, there = record.file or FileRecord(sha256="", identity=""), Path(record.host_path), False
    for place in dict.fromkeys((path, elsewhere / path.name)):
        try:
            if not place.is_file():
                continue
            there, here = True, FileRecord(sha256=wanted.sha256, identity=identity(place))
            if (here == wanted and not moved) or wanted.sha256 == digest(place):
                return structs.replace(record, host_path=str(place), file=here)
        except OSError as error:
            raise HostError(f"{place}, which it reads, cannot be read: {error.strerror}") from error
    if there:
        raise Unsupported(f"{path}, which it reads, is not what it was", hint=_HINT)
    raise NotFound(f"{path}, which it reads, is gone, and {elsewhere} has it not", hint=_HINT)
