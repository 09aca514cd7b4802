"""What a VM's life is told as, over a fake machine with a fake guest."""

import asyncio
import json
import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest

from utilityvm.kit.errors import ProtocolError
from utilityvm.kit.trace import Recorder, listen
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire import gcs

from .fake import create, service

TOLD = {"Result": 0, "Version": 4, "Capabilities": {"RuntimeOsType": "Linux"}}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    listener = Recorder()
    stop = listen(listener)
    yield listener
    stop()


def answer(**boot_times: object) -> dict[int, bytes]:
    return {gcs.NEGOTIATE.word: json.dumps(TOLD | {"BootTimes": boot_times}).encode()}


async def started(answers: dict[int, bytes], *, external: bool = True) -> UtilityVM:
    of, _ = service(answers=answers)
    vm = await create(of, external_guest_connection=external)
    await vm.start()
    return vm


@pytest.mark.parametrize("external", [True, False])
async def test_the_guests_part_of_the_boot_is_told_as_spans_of_the_start(recorder: Recorder, external: bool) -> None:
    """A machine that starts as fast as this one has booted within the uncertainty: all moments are now."""
    async with await started(answer(StartedUs=10**9, PreparedUs=10**9, NowUs=10**9), external=external):
        spans = {span.name: span for span in recorder.spans}
    names = ["machine.start", "boot.kernel", "boot.init", "boot.agent", "bridge.negotiate"]
    assert all(spans[before].end == spans[after].start for before, after in pairwise(names))
    assert {spans[name].parent for name in names} == {spans["vm.start"]}
    assert all(spans[name].fields["vm"] == "fake" for name in names)


async def test_a_guest_with_a_strange_clock_is_not_believed_and_serves(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm")
    async with await started(answer(StartedUs=5, PreparedUs=0, NowUs=2**53 - 1)) as vm:
        process = await vm.create_process(["echo"])
        assert await process.wait() == 0
        await process.close()
    assert [span.name for span in recorder.spans if span.name.startswith("boot.")] == []
    assert [record for record in caplog.records if getattr(record, "event", "") == "boot.clock.strange"]


@pytest.mark.parametrize(
    "moments", [{"StartedUs": -1, "PreparedUs": 0, "NowUs": 0}, {"StartedUs": 2**53, "PreparedUs": 0, "NowUs": 0}, {"StartedUs": "x"}, {}]
)
async def test_moments_that_are_none_break_the_protocol(moments: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="bridge response unmarshal failed"):
        await started(answer(**moments))


async def test_broken_lines_of_the_log_cost_nothing_but_themselves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm.guest")
    lines = [b'{"msg":"first"}', b"\xff\x1b[2J", b"[" * 200_000, b'{"msg":"cut', b'{"msg":"last","time":"1970-01-01T00:00:00Z"}', b"no end"]
    of, _ = service(log=b"\n".join(lines))
    async with asyncio.timeout(20), await create(of) as vm:
        await vm.start()
        while not [record for record in caplog.records if record.getMessage().startswith("last")]:
            await asyncio.sleep(0)
    guests = [record for record in caplog.records if record.name == "utilityvm.guest"]
    assert [record.getMessage().split(" uvm-id")[0][:12] for record in guests] == [
        "first",
        "\ufffd\\x1b[2J",
        *["[[[[[[[[[[[["] * 4,
        '{"msg":"cut',
        "last",
        "no end",
    ]
    assert all(record.__dict__["vm_id"] == "fake" and record.created == record.__dict__["received"] for record in guests)
    assert guests[7].__dict__["vm_time"] == 0.0
