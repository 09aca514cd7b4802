"""Shares of the processors by control groups of version 2, on an emulated host that has no others. Two minutes."""

import os
import re
import sys
from pathlib import Path

import pytest

from .conftest import Record
from .host_with_iommu import run_on_it

WITHIN = 900.0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files can be all of another host's")
async def test_shares_hold_by_control_groups_of_version_2_for_root_and_for_a_user_who_has_a_part(record: Record, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("inside_cgroup2.py"))]
    said = await run_on_it(tmp_path, program, {"PATH": os.environ["PATH"], "HOME": "/root"}, WITHIN)
    assert "ALL OF IT HOLDS" in said, said[-4000:]
    record("cgroup2", {"told": re.findall(r"^(?:root|a user).*: .*(?<!\s)", said, re.MULTILINE)})
