"""A limit of how fast something goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.network.bucket import LEAST, Bucket


@given(st.integers(LEAST, 1 << 30), st.lists(st.integers(1, 1 << 20), min_size=1, max_size=50))
def test_in_the_long_run_no_more_goes_than_is_earned(rate: int, sizes: list[int]) -> None:
    one, now = Bucket(rate), 100.0
    for size in sizes:
        one.spend(size, now)
        now += one.wait(now)
    burst = max(rate / 10, 1 << 17)
    assert sum(sizes) <= rate * (now - 100.0) + burst + max(sizes) * 1e-6 + 1


def test_what_was_spent_too_much_is_waited_for_and_a_pause_earns_a_burst_and_no_more() -> None:
    one = Bucket(1 << 20)
    assert one.wait(5.0) == 0
    one.spend(1 << 17, 5.0)
    assert one.wait(5.0) == 0
    one.spend(1 << 19, 5.0)
    assert one.wait(5.0) == pytest.approx(0.5)
    assert one.wait(5.5) == 0
    one.spend(1 << 17, 1000.0)
    assert one.wait(1000.0) == 0
    one.spend(1, 1000.0)
    assert one.wait(1000.0) > 0
