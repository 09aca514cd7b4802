"""All pairs of state and event: what the table lists happens, everything else is refused and changes nothing."""

import pytest
from tests.unit.lives import moves_or_is_refused

from utilityvm.compute.life import LIFE, Do, State


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Do)
def test_each_pair_moves_or_is_refused(state: State, event: Do) -> None:
    moves_or_is_refused(LIFE, state, event, "vm x")


def test_only_start_can_be_refused_to_a_caller() -> None:
    """Ending comes before closing, so a caller who closes never meets a refusal."""
    assert {state for state in State if (state, Do.END) not in LIFE} == {State.STOPPED, State.CLOSED}
    assert {state for state in State if (state, Do.CLOSE) in LIFE} == {State.STOPPED, State.CLOSED}
