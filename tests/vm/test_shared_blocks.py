"""Disks of clones where the host's file system can share blocks, which that of the other tests cannot."""

import os
from pathlib import Path

import pytest

from utilityvm.compute.qemu.inherited import Inherited
from utilityvm.store.devices import Devices, DiskRecord

from .disks import mounted, xfs


def test_where_the_file_system_can_a_clones_disk_shares_the_blocks_of_its_templates(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("file systems are mounted by root")
    with mounted(xfs(tmp_path / "xfs.img"), tmp_path / "mnt") as folder:
        (folder / "disk").write_bytes(os.urandom(16 << 20))
        record = DiskRecord(controller=0, lun=0, host_path="t:scsi0-0", read_only=False, content=("scsi0-0-0.raw",))
        with (folder / "disk").open("rb") as file:
            os.fsync(file.fileno())
            free = os.statvfs(folder).f_bfree
            inherited = Inherited("template t", Devices(disks=(record,)), {"scsi0-0-0.raw": file.fileno()}, folder / "s", folder)
            ((_, plugged, _),) = inherited._there
            assert plugged.below == ()
            assert os.pread(plugged.fd, 16 << 20, 0) == (folder / "disk").read_bytes()
            assert free - os.statvfs(folder).f_bfree < 256
            os.pwrite(plugged.fd, b"of a clone", 0)
            assert os.pread(file.fileno(), 10, 0) != b"of a clone"
            inherited.close()
