"""Each folder is a decision: options and facts, and the document that is made of them. `UVM_BLESS=1 make golden` writes them anew."""

import os
import tomllib
from pathlib import Path

import msgspec
import pytest

from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.rules import verify_bounds
from utilityvm.plan.facts import Facts
from utilityvm.plan.lcow import plan_lcow
from utilityvm.schema import json

CASES = sorted(file.parent for file in Path(__file__).parent.glob("*/options.toml"))
BLESS = os.environ.get("UVM_BLESS") == "1"


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_document_of_these_options_and_facts_is_this(case: Path) -> None:
    options = msgspec.convert(tomllib.loads((case / "options.toml").read_text()), OptionsLCOW)
    facts = msgspec.json.decode((case / "facts.json").read_bytes(), type=Facts)
    verify_bounds(options)
    plan = plan_lcow(options, facts, vm_id=options.id, warn=lambda adjusted: pytest.fail(adjusted.message))
    text = msgspec.json.format(json.encode(plan.document), indent=2) + "\n"
    if BLESS:
        (case / "document.json").write_text(text)
    assert text == (case / "document.json").read_text()
