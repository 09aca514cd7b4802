"""The page about what clones share, and the tests that show it, say the same."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> Iterator[tuple[str, str]]:
    """Yield the file that each table of the page names, and the test in each of its rows."""
    file = ""
    for line in (ROOT / "docs" / "explanation" / "clones.md").read_text().splitlines():
        if found := re.search(r"shown by, in `(tests/\S+\.py)` \|$", line):
            file = found[1]
        elif found := re.search(r"`(test_\w+)` \|$", line):
            yield file, found[1]


def named(file: str) -> list[str]:
    return re.findall(r"^async def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE)


def test_each_row_of_the_page_has_its_test_and_each_test_its_row() -> None:
    identity = "tests/vm/test_clone_identity.py"
    assert sorted(test for file, test in rows() if file == identity) == sorted(named(identity)) != []
    assert [(file, test) for file, test in rows() if test not in named(file)] == []
