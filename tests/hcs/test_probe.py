"""What `uvm doctor` says of a Windows host."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.hcs.harness import StandIn
from utilityvm.cli.doctor import Mark
from utilityvm.cli.doctor_windows import findings
from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.probe import WindowsFacts, is_administrator, look, told_of

GOOD = WindowsFacts(build=20348, elevated=True, worker=True, hvsockets=True, answer="{}")


def test_a_host_that_has_it_all_is_good() -> None:
    assert all(told.good and not told.hint for told in told_of(GOOD))


@pytest.mark.parametrize(
    ("facts", "subject", "hint"),
    [
        (replace(GOOD, build=17134), "windows", "17763"),
        (replace(GOOD, build=17763), "kernel boot", "kernel_direct=False"),
        (replace(GOOD, worker=False), "hyper-v", "turn on the Windows features"),
        (replace(GOOD, refusal="vmcompute.dll: cannot be loaded", hint="turn it on"), "hcs", "turn it on"),
        (replace(GOOD, elevated=False), "rights", "as an administrator"),
        (replace(GOOD, hvsockets=False), "hvsockets", "3.12"),
    ],
)
def test_what_is_missing_is_told_with_what_to_do(facts: WindowsFacts, subject: str, hint: str) -> None:
    told = next(told for told in told_of(facts) if told.subject == subject)
    assert not told.good
    assert hint in told.hint


def test_the_service_is_asked_and_the_worker_looked_for(hcs: StandIn, tmp_path: Path) -> None:
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "vmwp.exe").touch()
    found = look(20348, {"SYSTEMROOT": str(tmp_path)}, hcs=Hcs(hcs.abi), elevated=True)
    assert (found.worker, found.answer) == (True, '{"Properties":[{"LogicalProcessorCount":8}]}')
    hcs.script("HcsGetServiceProperties", 0x80070005)
    refused = look(20348, {"SYSTEMROOT": "/nowhere"}, hcs=Hcs(hcs.abi))
    assert (refused.worker, refused.elevated, "Hyper-V Administrators" in refused.hint) == (False, False, True)
    assert not is_administrator()


def test_where_there_is_no_windows_the_service_is_what_is_missing() -> None:
    assert any("vmcompute.dll" in finding.text and finding.mark is Mark.FAIL for finding in findings(20348))
