"""The waterfall and its JSON, from spans that are given."""

import argparse
import json
from pathlib import Path

import pytest

from utilityvm.cli.timeline import as_json, told, waterfall
from utilityvm.kit.errors import HostError
from utilityvm.kit.trace import Span, span

MS = 1_000_000
BEGIN = 5 * MS


def at(name: str, start: float, end: float, error: str = "", **fields: str | int) -> Span:
    return Span(name, None, fields, BEGIN + int(start * MS), BEGIN + int(end * MS), error)


BOOT = [
    at("host.probe", 0, 10, vm="v7"),
    at("vm.create", 0, 20, vm="v7"),
    at("vm.plan", 10, 10.5),
    at("machine.create", 10.5, 20),
    at("machine.start", 20, 100),
    at("bridge.negotiate", 880, 900),
    at("boot.kernel", 100, 800, within=1234),
    at("boot.init", 800, 850, within=1234),
    at("boot.agent", 850, 880, within=1234),
    at("vm.start", 20, 900),
    at("process.start", 900, 950),
    at("process.start", 970, 975),
    at("process.run", 950, 960),
    at("vm.close", 975, 1000),
]


def test_a_boot_is_a_waterfall_of_its_stretches_in_their_order() -> None:
    assert waterfall(BOOT, BEGIN) == "\n".join(  # noqa: FLY002 (one line a row)
        [
            "timeline of 1000.0 ms",
            "                        at ms  took ms",
            "probe                     0.0     10.0  =",
            "plan                     10.0      0.5  =",
            "create                   10.5      9.5  =",
            "QEMU exec                20.0     80.0   ====",
            "kernel                  100.0    700.0       ===================================",
            "init                    800.0     50.0                                          ===",
            "agent                   850.0     30.0                                            ==",
            "negotiated              880.0     20.0                                              =",
            "first process started   900.0     50.0                                               ===",
            "first process ended     950.0     10.0                                                 =",
            "close                   975.0     25.0                                                  ==",
            "kernel, init and agent are by the guest's clock, to within 1.2 ms",
        ]
    )


def test_what_the_guest_has_not_told_is_not_guessed() -> None:
    text = waterfall([span for span in BOOT if not span.name.startswith("boot.")], BEGIN)
    assert "\nkernel  " not in text
    assert text.endswith("\nkernel, init and agent are not shown: the guest has not told of its boot")


CLONE = [
    at("template.clone", 500, 700),
    at("host.probe", 500, 510),
    at("machine.start", 510, 600),
    at("bridge.negotiate", 660, 700),
    at("vm.close", 900, 1000),
]


def test_a_run_that_goes_on_from_a_template_has_no_boot_and_says_why() -> None:
    lines = waterfall(CLONE, BEGIN + 500 * MS).splitlines()
    assert [line.split("  ")[0] for line in lines[2:-1]] == ["clone", "probe", "QEMU exec", "negotiated", "close"]
    assert lines[-1] == "there is no kernel, init and agent: the VM goes on from the template of its boot, which --no-template does without"


def test_a_run_that_makes_its_template_shows_that_boot_and_its_own_end() -> None:
    making = [at("template.make", 0, 480), at("machine.start", 0, 10), at("vm.save", 400, 450), at("vm.close", 450, 480)]
    lines = waterfall([*making, *CLONE], BEGIN).splitlines()
    assert [line[:24].split("  ")[0] for line in lines[2:-1]] == [
        "template made",
        "QEMU exec",
        "saved",
        "clone",
        "probe",
        "negotiated",
        "close",
    ]
    assert "900.0    100.0" in lines[-2]


def test_a_clone_that_failed_is_shown_with_the_boot_that_came_after_it() -> None:
    failed = at("template.clone", 0, 10, "HostError")
    lines = waterfall([failed, *[at(one.name, 10, 20, within=1) for one in BOOT]], BEGIN).splitlines()
    assert lines[2].endswith("HostError")
    assert lines[-1].startswith("kernel, init and agent are by the guest's clock")


def test_a_failed_stretch_says_by_what() -> None:
    text = waterfall([at("machine.start", 0, 10, error="HostError")], BEGIN)
    assert text.splitlines()[2].endswith("= HostError")


@pytest.mark.parametrize("spans", [[], [at("vm.start", 0, 10)]])
def test_a_run_that_began_nothing_says_so(spans: list[Span]) -> None:
    assert waterfall(spans, BEGIN) == "timeline: nothing was begun"


def test_a_run_that_took_no_time_is_drawn_all_the_same() -> None:
    assert waterfall([at("host.probe", 0, 0)], BEGIN).startswith("timeline of 0.0 ms\n")


def test_the_json_has_every_span_with_its_fields() -> None:
    spans = json.loads(as_json(BOOT, BEGIN))
    assert [span["name"] for span in spans] == [span.name for span in sorted(BOOT, key=lambda span: span.start)]
    assert spans[0] == {"name": "host.probe", "start_us": 0, "us": 10_000, "fields": {"vm": "v7"}}
    assert json.loads(as_json([at("vm.start", 1, 2, error="HostError")], BEGIN))[0]["error"] == "HostError"


def wanted(*, timeline: bool = False, file: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(timeline=timeline, timeline_json=file)


def test_it_is_told_at_the_end_also_of_a_failure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^x$"), told(wanted(timeline=True, file=str(tmp_path / "f"))), span("machine.start"):
        raise ValueError("x")
    out, err = capsys.readouterr()
    assert (out, "QEMU exec" in err, "ValueError" in err) == ("", True, True)
    assert json.loads((tmp_path / "f").read_text())[0]["error"] == "ValueError"


def test_nothing_is_told_that_was_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with told(wanted()), span("machine.start") as this:
        pass
    assert capsys.readouterr() == ("", "")
    assert this.events == []


def test_a_file_that_cannot_be_written_is_an_error_with_the_flags_name(tmp_path: Path) -> None:
    with (
        pytest.raises(HostError, match="^--timeline-json: .*nowhere/f cannot be written: No such file"),
        told(wanted(file=str(tmp_path / "nowhere" / "f"))),
    ):
        raise AssertionError("it is found out only after the run")
    with pytest.raises(HostError, match="^--timeline-json: /dev/full cannot be written: No space left"), told(wanted(file="/dev/full")):
        pass
