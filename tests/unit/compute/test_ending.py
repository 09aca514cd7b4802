"""How a machine ended, from each thing that QEMU and its guest can leave behind."""

import pytest

from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.compute.qemu.ending import exit_status
from utilityvm.kit.errors import HostError

TERM = "qemu-system-x86_64: terminating on signal 15 from pid 7 (kill)"
PANIC = "Kernel panic - not syncing: Attempted to kill init!\nCPU: 0"


@pytest.mark.parametrize(
    ("code", "terminated", "reason", "said", "console", "status"),
    [
        (0, False, "guest-shutdown", "", "bye", ExitStatus(ExitHow.POWERED_OFF)),
        (0, True, "guest-shutdown", "", "bye", ExitStatus(ExitHow.POWERED_OFF)),
        (-9, True, "", "", "x", ExitStatus(ExitHow.TERMINATED)),
        (-9, False, "", "last words", "x", ExitStatus(ExitHow.KILLED, "last words", 9)),
        (-11, False, "", "", "x", ExitStatus(ExitHow.KILLED, "", 11)),
        (0, False, "host-signal", TERM, "x", ExitStatus(ExitHow.KILLED, TERM, 15)),
        (0, False, "host-signal", "", "x", ExitStatus(ExitHow.KILLED, "", 0)),
        (1, False, "", "-foo: invalid option", "x", ExitStatus(ExitHow.FAILED, "-foo: invalid option", 1)),
        (1, False, "", "", "x", ExitStatus(ExitHow.FAILED, "x", 1)),
        (0, False, "guest-reset", "", "going down", ExitStatus(ExitHow.RESET, "going down")),
        (0, False, "guest-reset", "", f"init: what?\n{PANIC}", ExitStatus(ExitHow.PANICKED, PANIC)),
        (0, False, "guest-panic", "", "x", ExitStatus(ExitHow.PANICKED, "x")),
        (0, False, "", "", "x", ExitStatus(ExitHow.FAILED, "QEMU ended without saying why")),
        (0, False, "host-qmp-quit", "", "x", ExitStatus(ExitHow.FAILED, "QEMU ended without saying why")),
    ],
)
def test_the_end_is_told_from_what_is_left(code: int, terminated: bool, reason: str, said: str, console: str, status: ExitStatus) -> None:
    assert exit_status(code, terminated=terminated, shutdown_reason=reason, said=said, console=console) == status


def test_last_words_are_bounded() -> None:
    status = exit_status(0, terminated=False, shutdown_reason="guest-reset", said="", console="\n".join(map(str, range(1000))))
    assert status.detail.splitlines() == [str(number) for number in range(980, 1000)]


@pytest.mark.parametrize("how", ExitHow)
def test_a_bad_end_is_an_error_with_the_last_words(how: ExitHow) -> None:
    error = ExitStatus(how, "last words", 9).error("vm x")
    if how in {ExitHow.POWERED_OFF, ExitHow.TERMINATED}:
        assert error is None
    else:
        assert isinstance(error, HostError)
        assert str(error).startswith("vm x: ")
        assert str(error).endswith(": last words")
        assert ("9" in str(error)) == (how in {ExitHow.KILLED, ExitHow.FAILED})
