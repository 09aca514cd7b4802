"""The package's three lists of its public names say the same."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import utilityvm

TREE = ast.parse(Path(utilityvm.__file__).read_text())


def imports() -> dict[str, str]:
    """Return where type checkers are told that each name comes from."""
    (block,) = [node for node in TREE.body if isinstance(node, ast.If)]
    return {alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_lazy_table_is_what_type_checkers_are_told() -> None:
    assert {name: f"utilityvm.{home}" for name, home in utilityvm._HOME.items()} == imports()


def test_all_names_are_public_and_listed_once() -> None:
    assert set(utilityvm.__all__) == set(utilityvm._HOME)
    assert len(utilityvm.__all__) == len(set(utilityvm.__all__))
    assert set(dir(utilityvm)) == {*utilityvm.__all__, "__version__"}


@pytest.mark.parametrize("name", utilityvm.__all__)
def test_each_name_is_the_thing_itself_at_its_home(name: str) -> None:
    assert getattr(utilityvm, name) is getattr(import_module(f"utilityvm.{utilityvm._HOME[name]}"), name)


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="^module 'utilityvm' has no attribute 'nonsense'$"):
        utilityvm.nonsense  # noqa: B018 (the access is the test)
