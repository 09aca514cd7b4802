"""The guest agent's program: it is a part of every VM's memory."""

from pathlib import Path

import pytest

LARGEST = 2_621_440
"""Most bytes of the program: 2.5 MiB."""

AGENT = Path(__file__).parents[2] / "build" / "agent"


@pytest.mark.skipif(not AGENT.exists(), reason="the agent is not built: make agent")
def test_the_agent_is_small() -> None:
    assert 0 < AGENT.stat().st_size <= LARGEST


def test_the_agent_needs_nothing_but_the_standard_library() -> None:
    module = (AGENT.parents[1] / "agent" / "go.mod").read_text()
    assert "require" not in module
    assert not (AGENT.parents[1] / "agent" / "go.sum").exists()
