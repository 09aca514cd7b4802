"""A template on disk without a VM: what its files say is for tests to decide."""

import hashlib
import os
from pathlib import Path
from typing import Final

from msgspec import structs

from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store.devices import FileRecord
from utilityvm.store.templates import Draft, MachineRecord, Manifest

SIZE: Final = 64 << 20
STATE: Final = b"the state of its devices" * 99
MACHINE: Final = MachineRecord(
    qemu="7.2.0", accel="tcg", processor="", topology=("-smp 1",), files={"kernel": FileRecord(sha256="0", identity="1")}, memory_bytes=SIZE
)


def manifest(boot_files: Path, *, name: str = "warm", **changed: object) -> Manifest:
    """The manifest of a template, but for what is changed in it."""
    options = OptionsLCOW(id=name, is_template=True, boot_files_path=str(boot_files), memory_size_in_mb=64, processor_count=1)
    whole = Manifest(id=name, created=1.5, options=options, machine=MACHINE, state_sha256=hashlib.sha256(STATE).hexdigest())
    return structs.replace(whole, **changed)


def keep(folder: Path, boot_files: Path, name: str = "warm") -> Path:
    """Make a template whose memory has data at its begin, in its middle, and none at its end. Return `folder`."""
    with Draft(folder, name) as draft:
        os.ftruncate(draft.memory, SIZE)
        for at in (0, 4096, 20 << 20, (20 << 20) + 8192):
            os.pwrite(draft.memory, bytes([at % 251 + 1]) * 4096, at)
        os.pwrite(draft.state, STATE, 0)
        draft.keep(manifest(boot_files, name=name))
    return folder
