"""`uvm options`: every option, as this host has it."""

import json
import os
import re

import pytest

from utilityvm import default_options_lcow
from utilityvm.cli.main import main
from utilityvm.options.declare import declared
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.wcow import OptionsWCOW


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["options", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_every_option_is_there_with_its_default_on_this_host_and_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = printed(capsys, "lcow").rstrip("\n").split("\n\n")
    defaults = default_options_lcow()
    assert [block.split(" = ")[0] for block in blocks] == list(OptionsLCOW.__struct_fields__)
    for block, option in zip(blocks, declared(OptionsLCOW).values(), strict=True):
        head, *text = block.splitlines()
        said, default = head.split(" = ", 1)[1], getattr(defaults, option.name)
        shown = tuple(option.words)[default] if option.words else list(default) if isinstance(default, tuple) else default
        assert said == "(none)" if default is None else json.loads(said) == shown
        words = " ".join(line.strip() for line in text)
        assert words.startswith(option.meaning)
        assert option.flag in words or option.kind not in {bool, int, str}
        assert max(map(len, text)) <= 100


def test_a_windows_guest_s_options_say_which_flag_is_given_more_than_once(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = printed(capsys, "wcow").rstrip("\n").split("\n\n")
    assert [block.split(" = ")[0] for block in blocks] == list(OptionsWCOW.__struct_fields__)
    layers = next(" ".join(block.split()) for block in blocks if block.startswith("layer_folders = []"))
    assert layers.endswith("Flag: --layer, --layer-folders DIR, once for each.")
    assert json.loads(printed(capsys, "wcow", "--json"))["properties"]["layer_folders"]["default"] == []


def test_the_defaults_are_a_toml_file_but_for_what_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    lines = [line for line in printed(capsys, "lcow").splitlines() if re.match(r"\w", line) and not line.endswith("(none)")]
    assert default_options_lcow(**tomllib.loads("\n".join(lines))) == default_options_lcow()


def test_the_schema_has_the_defaults_of_this_host(capsys: pytest.CaptureFixture[str]) -> None:
    members = json.loads(printed(capsys, "lcow", "--json"))["properties"]
    assert members["processor_count"]["default"] == min(2, len(os.sched_getaffinity(0)))
    assert members["boot_files_path"]["default"] == default_options_lcow().boot_files_path


@pytest.mark.parametrize("words", [[], ["nonsense"], ["lcow", "--nonsense"]])
def test_what_it_does_not_know_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["options", *words]) == 2
    assert capsys.readouterr().out == ""
