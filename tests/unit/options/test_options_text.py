"""Options files: syntax, and where it is wrong."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import InvalidOptions
from utilityvm.options.text import MAX_BYTES, parse


def test_toml_and_json_say_the_same() -> None:
    toml = parse(b'memory_size_in_mb = 256\nforward_stdout = true\n[template_config]\nuvm_id = "t"\n', "vm.toml")
    json = parse(b'{"memory_size_in_mb": 256, "forward_stdout": true, "template_config": {"uvm_id": "t"}}', "vm.json")
    assert toml.values == json.values == {"memory_size_in_mb": 256, "forward_stdout": True, "template_config": {"uvm_id": "t"}}
    assert toml.name == "vm.toml"


@pytest.mark.parametrize("name", ["/dev/fd/3", "vm", "vm.conf"])
def test_without_a_telling_name_the_first_mark_decides(name: str) -> None:
    assert parse(b' {"owner": "me"}', name).values == {"owner": "me"}
    assert parse(b'owner = "me"', name).values == {"owner": "me"}


def test_an_empty_toml_file_and_a_byte_order_mark_are_good() -> None:
    assert parse(b"", "vm.toml").values == {}
    assert parse(b'\xef\xbb\xbf{"owner": "me"}', "vm.json").values == {"owner": "me"}


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"a = 1\nb : 2\n", "vm.toml", "line 2, column 3: not TOML: Expected '=' after a key"),
        (b"a = 1\na = 2\n", "vm.toml", "line 2, column 6: not TOML: Cannot overwrite a value"),
        (b'a = 1\nb = "', "vm.toml", "line 2, column 6: not TOML: Unterminated string"),
        (b'{\n "a": }', "vm.json", "line 2, column 7: not JSON: Expecting value"),
        (b"", "vm.json", "line 1, column 1: not JSON: Expecting value"),
        (b"[1]", "vm.json", "must be one JSON object, with an option's name before each value"),
        (b"a = 1\nb = \xff", "vm.toml", "line 2: not UTF-8: byte 0xff"),
        (b'{"a": ' * 100_000, "vm.json", "is nested too deeply"),
        (b"a = " + b"[" * 100_000, "vm.toml", "is nested too deeply"),
        (b"a = 1" + b"0" * 5000, "vm.toml", "has a number that is too long"),
        (b"#" * (MAX_BYTES + 1), "vm.toml", "is longer than 1048576 bytes, which no options file is"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_what_is_wrong_is_told_with_its_place(content: bytes, name: str, said: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse(content, name)
    assert caught.value.message.startswith(f"{name}: {said}")
    (problem,) = caught.value.problems
    assert problem.path == "$"
    assert f"{name}: {problem.message}" == caught.value.message


def test_what_no_json_has_is_told_with_its_paths_all_at_once() -> None:
    content = b'{"a": {"b": 1, "b": 2}, "c": [0, NaN], "a b": 1' + b"0" * 5000 + b"}"
    with pytest.raises(InvalidOptions) as caught:
        parse(content, "vm.json")
    assert [(problem.path, problem.message) for problem in caught.value.problems] == [
        ("$.a.b", "not JSON: given twice"),
        ("$.c[1]", "not JSON: NaN is not a number of JSON"),
        ("$['a b']", "not JSON: a number of 5001 digits"),
    ]
    assert caught.value.message == "vm.json: $.a.b: not JSON: given twice"


def test_a_complaint_about_toml_without_a_place_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places are read from the words of Python's parser, which another Python may choose otherwise."""

    def complain(_: str) -> object:
        raise tomllib.TOMLDecodeError("other words")

    monkeypatch.setattr(tomllib, "loads", complain)
    with pytest.raises(InvalidOptions, match=r"^vm\.toml: not TOML: other words$"):
        parse(b"a : 1", "vm.toml")


def test_a_file_of_the_greatest_size_is_taken() -> None:
    assert parse(b"#" * MAX_BYTES, "vm.toml").values == {}


@given(
    st.binary(max_size=200) | st.text(alphabet="{}[]\"\\=,.: \n1aeE-+tTzZ#'", max_size=60).map(str.encode),
    st.sampled_from(["a.toml", "a.json", "a"]),
)
def test_anything_is_taken_apart_or_refused(content: bytes, name: str) -> None:
    try:
        parse(content, name)
    except InvalidOptions as error:
        assert error.problems  # noqa: PT017 (either end is good)
