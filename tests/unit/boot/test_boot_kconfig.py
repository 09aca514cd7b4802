"""The configuration of our kernel: how it is read, what it asks for, and that a line which is not granted is found."""

import pytest

from tests.unit.boot.needs import NEVER, needed
from utilityvm.boot.kconfig import LATER, options, unmet, with_later_names
from utilityvm.boot.source import our_config

ASKED = """
# why
CONFIG_SMP=y
CONFIG_NR_CPUS=256
CONFIG_NAME="-x"
# CONFIG_VT is not set
"""


def test_options_are_read_with_their_values() -> None:
    assert options(ASKED) == {"CONFIG_SMP": "y", "CONFIG_NR_CPUS": "256", "CONFIG_NAME": '"-x"', "CONFIG_VT": "n"}


@pytest.mark.parametrize("line", ["SMP=y", "CONFIG_SMP", "CONFIG_SMP=", " CONFIG_SMP=y"])
def test_a_line_that_is_no_option_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 2: not an option"):
        options(f"# first\n{line}\n")


def test_an_option_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2: CONFIG_SMP stands there twice"):
        options("CONFIG_SMP=y\n# CONFIG_SMP is not set\n")


def test_what_is_granted_as_asked_is_no_problem() -> None:
    assert list(unmet(ASKED, ASKED + "CONFIG_MORE=y\n")) == []
    assert list(unmet("# CONFIG_VT is not set\n", "CONFIG_OTHER=y\n")) == []


def test_each_line_that_is_not_granted_is_named() -> None:
    granted = ASKED.replace("CONFIG_SMP=y", "# CONFIG_SMP is not set").replace("256", "64").replace("# CONFIG_VT is not set", "CONFIG_VT=y")
    assert list(unmet(ASKED, granted)) == [
        "CONFIG_SMP: asked for y, is n",
        "CONFIG_NR_CPUS: asked for 256, is 64",
        "CONFIG_VT: asked for n, is y",
    ]


def test_an_option_by_its_later_name_is_granted_too() -> None:
    asked = "CONFIG_RETPOLINE=y\nCONFIG_RANDOM_TRUST_CPU=y\n"
    assert with_later_names(asked) == f"{asked}\nCONFIG_MITIGATION_RETPOLINE=y\n"
    assert list(unmet(asked, "CONFIG_MITIGATION_RETPOLINE=y\n")) == []
    assert list(unmet(asked, "# CONFIG_RETPOLINE is not set\n")) == ["CONFIG_RETPOLINE: asked for y, is n"]
    assert list(unmet(asked, "# CONFIG_MITIGATION_RETPOLINE is not set\n# CONFIG_RANDOM_TRUST_CPU is not set\n")) == [
        "CONFIG_RETPOLINE: asked for y, is n",
        "CONFIG_RANDOM_TRUST_CPU: asked for y, is n",
    ]


def test_only_what_we_ask_for_has_a_later_name() -> None:
    assert LATER.keys() <= options(our_config()).keys()


def test_our_configuration_has_one_module() -> None:
    assert [name for name, value in options(our_config()).items() if value == "m"] == ["CONFIG_SCSI_VIRTIO"]


GRANTED_UNASKED = {
    "CONFIG_CGROUP_WRITEBACK",
    "CONFIG_MEMFD_CREATE",
    "CONFIG_PARAVIRT_CLOCK",
    "CONFIG_STRICT_KERNEL_RWX",
}
"""Follow from what is asked for; `tests/vm` looks into the kernel that came out."""


@pytest.mark.parametrize("option", sorted(needed().keys() - GRANTED_UNASKED))
def test_our_configuration_asks_for_what_is_needed(option: str) -> None:
    assert options(our_config()).get(option) == needed()[option].value, needed()[option].reason


def test_our_configuration_asks_for_nothing_that_must_not_be() -> None:
    unwanted = {f"CONFIG_{option}" for need in NEVER for option in need.options.split()}
    assert not unwanted & {name for name, value in options(our_config()).items() if value == "y"}
