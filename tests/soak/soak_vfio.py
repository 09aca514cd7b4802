"""A device of the host through VFIO, all the way: on an emulated host with an IOMMU, where VMs are emulated once more. Ten minutes."""

import os
import re
import sys
from pathlib import Path

import pytest

from .conftest import Record
from .host_with_iommu import BUSY, ON_DISK, SPARE, run_on_it

WITHIN = 3600.0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files can be all of another host's")
async def test_a_device_of_the_host_comes_to_a_guest_and_writes_into_its_memory(record: Record, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("inside_vfio.py")), SPARE, BUSY, ON_DISK.decode()]
    said = await run_on_it(tmp_path, program, {"PATH": os.environ["PATH"], "HOME": "/root", "UVM_ACCEL": "tcg"}, WITHIN)
    assert "ALL OF IT HOLDS" in said, said[-4000:]
    record("vfio", {"told": re.findall(r"^\[\d+ s\] .*(?<!\s)", said, re.MULTILINE)})
