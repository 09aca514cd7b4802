import re

import pytest

from utilityvm.kit.errors import InvalidOptions
from utilityvm.kit.ids import is_guid, new_guid, parse_vm_id


@pytest.mark.parametrize("text", ["a", "7", "a_b.c-D", "x" * 128, new_guid()])
def test_what_may_become_part_of_a_name_outside_is_an_id(text: str) -> None:
    assert parse_vm_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a/b", "..", ".a", "-a", "_a", "a b", "a\n", "ä", "a\0"])
def test_anything_else_is_refused_with_its_path(text: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse_vm_id(text)
    assert [problem.path for problem in caught.value.problems] == ["$.id"]


def test_guids_are_random_lower_case_and_bare() -> None:
    first, second = new_guid(), new_guid()
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first)
    assert is_guid(first)
    assert not any(is_guid(text) for text in ("", "x", first.upper(), f"{{{first}}}", f"{first}0", first.replace("-", "")))
