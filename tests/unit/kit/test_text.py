from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.text import LONGEST, printable


@given(st.text())
def test_whatever_is_said_is_one_line_that_steers_no_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()  # no half of a surrogate pair
    assert printable(shown) == shown


@given(st.text(), st.integers(1, 30))
def test_a_limit_is_kept(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert shown == printable(text) or shown.endswith("…")


def test_what_is_printable_stays_as_it_is_and_the_rest_can_be_recognised() -> None:
    assert printable("größe: 5 µs → ok") == "größe: 5 µs → ok"
    assert printable("a\nb\x1b[2J\u202e\ud800") == "a\\nb\\x1b[2J\\u202e\\ud800"
    assert printable("x" * LONGEST, LONGEST) == "x" * LONGEST
