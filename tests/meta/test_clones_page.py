"""The page about what clones share, and the tests that show it, say the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_row_of_the_page_has_its_test_and_each_test_its_row() -> None:
    rows = re.findall(r"`(test_\w+)` \|$", (ROOT / "docs" / "explanation" / "clones.md").read_text(), re.MULTILINE)
    tests = re.findall(r"^async def (test_\w+)", (ROOT / "tests" / "vm" / "test_clone_identity.py").read_text(), re.MULTILINE)
    assert len(tests) > 1
    assert sorted(rows) == sorted(tests)
