from enum import StrEnum

import pytest

from utilityvm.kit.errors import StateError
from utilityvm.kit.lifecycle import Life


class Light(StrEnum):
    RED = "red"
    GREEN = "green"
    BROKEN = "broken"


class Do(StrEnum):
    SWITCH = "switch"
    BREAK = "break"


TABLE = {
    (Light.RED, Do.SWITCH): Light.GREEN,
    (Light.GREEN, Do.SWITCH): Light.RED,
    (Light.RED, Do.BREAK): Light.BROKEN,
    (Light.GREEN, Do.BREAK): Light.BROKEN,
}


@pytest.mark.parametrize("state", Light)
@pytest.mark.parametrize("event", Do)
def test_what_the_table_lists_happens_and_all_else_is_refused_and_changes_nothing(state: Light, event: Do) -> None:
    life = Life("light 3", TABLE, state)
    listed = TABLE.get((state, event))
    if listed is not None:
        assert life.step(event) is listed
        assert life.state is listed
        return
    with pytest.raises(StateError) as caught:
        life.step(event)
    assert life.state is state
    error = caught.value
    assert (error.subject, error.state, error.event) == ("light 3", state.value, event.value)
    assert error.message == f"light 3: cannot {event.value} while {state.value}"
