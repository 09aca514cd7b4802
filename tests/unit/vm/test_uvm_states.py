"""All pairs of state and event of a VM."""

import pytest
from tests.unit.lives import moves_or_is_refused

from utilityvm.vm.life import LIFE, Do, State


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Do)
def test_each_pair_moves_or_is_refused(state: State, event: Do) -> None:
    moves_or_is_refused(LIFE, state, event, "vm x")


def test_closing_and_the_machines_end_are_never_refused() -> None:
    for state in State:
        assert LIFE[state, Do.CLOSE] is State.CLOSED
        assert LIFE[state, Do.EXIT] is (State.CLOSED if state is State.CLOSED else State.STOPPED)


def test_a_vm_starts_once_and_runs_processes_only_while_it_runs() -> None:
    assert [state for state in State if (state, Do.START) in LIFE] == [State.CREATED]
    assert [state for state in State if (state, Do.USE) in LIFE] == [State.RUNNING]
    assert {target for pair, target in LIFE.items() if pair[0] in {State.STOPPED, State.CLOSED}} == {State.STOPPED, State.CLOSED}
