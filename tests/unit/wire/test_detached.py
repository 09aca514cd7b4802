"""What an agent tells of what runs in a clone."""

import pytest

from utilityvm.wire.detached import ContainerPlace, Place


@pytest.mark.parametrize("place", Place)
def test_the_program_of_a_container_runs_also_while_it_stands_still(place: Place) -> None:
    assert ContainerPlace(state=place, process_id=1).runs is (place in {Place.RUNNING, Place.PAUSED})
