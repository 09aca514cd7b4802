"""What it costs to import the package and to ask for the version: nothing but their own modules."""

import sys

import pytest

from utilityvm.kit.proc import run_tool

LOADED = "import __future__, importlib, sys; before = set(sys.modules); {}; print('loaded', *sorted(set(sys.modules) - before))"


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import utilityvm", ["utilityvm"]),
        ("from utilityvm.cli.main import main; main(['--version'])", ["utilityvm", "utilityvm.cli", "utilityvm.cli.main"]),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(statement: str, loaded: list[str]) -> None:
    last = run_tool([sys.executable, "-c", LOADED.format(statement)], within=30).splitlines()[-1]
    assert last.split() == ["loaded", *loaded]
