"""The text of an options file, TOML or JSON, taken apart: names and values as they stand there, nothing judged but the syntax."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NoReturn

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.options.values import MAX_PROBLEMS, path_of

MAX_BYTES: Final = 1 << 20
"""Most bytes of an options file; what is longer is something else."""

_AT: Final = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", re.DOTALL)


class OptionsFile(msgspec.Struct, frozen=True):
    """What an options file says; `name` is the file's, for messages."""

    name: str
    values: Mapping[str, object]


def parse(content: bytes, name: str) -> OptionsFile:
    """Take an options file apart: JSON when its name ends with ``.json`` or its first mark is ``{``, else TOML.

    Raises:
        InvalidOptions: longer than `MAX_BYTES`, not UTF-8, not TOML or JSON (with line and column, counted from 1), names given
            twice or impossible numbers (with their paths), or not a table of options.
    """
    if len(content) > MAX_BYTES:
        _refuse(name, "size", f"is longer than {MAX_BYTES} bytes, which no options file is")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        _refuse(name, "syntax", f"line {line}: not UTF-8: byte 0x{content[error.start]:02x}")
    try:
        values = _json(text) if name.endswith(".json") or text.lstrip().startswith("{") else _toml(text)
        wrong = list(islice(_wrong(values, "$"), MAX_PROBLEMS))
    except _SyntaxProblem as error:
        _refuse(name, "syntax", str(error))
    except RecursionError:
        _refuse(name, "syntax", "is nested too deeply")
    except ValueError:  # Python's limit on the digits of a number
        _refuse(name, "syntax", "has a number that is too long")
    if wrong:
        raise InvalidOptions(f"{name}: {wrong[0].path}: {wrong[0].message}", problems=wrong)
    if not isinstance(values, dict):
        _refuse(name, "type", "must be one JSON object, with an option's name before each value")
    return OptionsFile(name, values)


class _SyntaxProblem(Exception):
    """What is wrong with a text, and where."""


def _toml(text: str) -> object:
    import tomllib  # noqa: PLC0415  # 4 ms that a boot without such a file does without

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT.fullmatch(str(error))
        if found is None:
            raise _SyntaxProblem(f"not TOML: {error}") from error
        if found["line"] is None:
            lines = text.split("\n")
            raise _SyntaxProblem(f"line {len(lines)}, column {len(lines[-1]) + 1}: not TOML: {found['what']}") from error
        raise _SyntaxProblem(f"line {found['line']}, column {found['column']}: not TOML: {found['what']}") from error


def _json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_constant, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise _SyntaxProblem(f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from error


class _Wrong(msgspec.Struct, frozen=True):
    """Stands for a value that JSON does not have: where it is, the parser does not tell."""

    why: str


def _wrong(value: object, path: str) -> Iterator[Problem]:
    if isinstance(value, _Wrong):
        yield Problem(path, "syntax", f"not JSON: {value.why}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _wrong(inner, path_of(path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _wrong(inner, f"{path}[{number}]")


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Python takes the last of two members with one name, and would ignore the first."""
    members: dict[str, object] = {}
    for name, value in pairs:
        members[name] = _Wrong("given twice") if name in members else value
    return members


def _no_constant(word: str) -> _Wrong:
    return _Wrong(f"{word} is not a number of JSON")


def _whole(digits: str) -> int | _Wrong:
    try:
        return int(digits)
    except ValueError:  # Python's limit
        return _Wrong(f"a number of {len(digits)} digits")


def _refuse(name: str, rule: str, message: str) -> NoReturn:
    raise InvalidOptions(f"{name}: {message}", problems=[Problem("$", rule, message)])
