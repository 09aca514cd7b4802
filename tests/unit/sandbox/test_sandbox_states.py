"""All pairs of state and event of a sandbox."""

import pytest

from tests.unit.lives import moves_or_is_refused
from utilityvm.sandbox.life import LIFE, Do, SandboxState


@pytest.mark.parametrize("state", SandboxState)
@pytest.mark.parametrize("event", Do)
def test_each_pair_moves_or_is_refused(state: SandboxState, event: Do) -> None:
    moves_or_is_refused(LIFE, state, event, "sandbox x")
