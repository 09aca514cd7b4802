"""Annotations of an OCI specification, and the options that they are."""

from typing import Any

import pytest

from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.options.annotations import (
    ANNOTATIONS,
    NAMESPACE,
    NOT_CARRIED_OUT,
    OF_CONTAINERS,
    Guests,
    Value,
    check_annotations,
    options_said,
)
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.wcow import OptionsWCOW

LCOW = f"{NAMESPACE}lcow."
TEXTS: dict[Value, tuple[str, Any]] = {
    Value.NUMBER: ("7", 7),
    Value.NUMBER_OR_NONE: ("7", 7),
    Value.TRUTH: ("TrUe", True),
    Value.TEXT: ("x y", "x y"),
    Value.ROOT: ("vhd", 1),
}


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda one: one.name)
def test_each_annotation_says_its_option(annotation: Any) -> None:  # noqa: ANN401
    text, value = TEXTS[annotation.value]
    windows = annotation.guests is Guests.WINDOWS
    assert hasattr(OptionsWCOW if windows else OptionsLCOW, annotation.option)
    assert options_said({annotation.name: text}, {}, windows=windows)[annotation.option] == value


def test_an_option_is_said_by_one_annotation_and_none_is_said_twice() -> None:
    assert len({one.option for one in ANNOTATIONS}) == len(ANNOTATIONS)
    names = [one.name for one in ANNOTATIONS] + [*OF_CONTAINERS, *NOT_CARRIED_OUT]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("annotations", "implied"),
    [
        ({f"{LCOW}kerneldirectboot": "false"}, {"kernel_direct": False, "kernel_file": "kernel"}),
        ({f"{LCOW}kerneldirectboot": "true"}, {"kernel_direct": True}),
        ({f"{LCOW}preferredrootfstype": "vhd"}, {"preferred_root_fs_type": 1, "root_fs_file": "rootfs.vhd"}),
        ({f"{LCOW}preferredrootfstype": "initrd"}, {"preferred_root_fs_type": 0, "root_fs_file": "initrd.img"}),
        (
            {f"{NAMESPACE}fullyphysicallybacked": "true", f"{LCOW}preferredrootfstype": "vhd"},
            {
                "fully_physically_backed": True,
                "allow_overcommit": False,
                "preferred_root_fs_type": 0,
                "root_fs_file": "initrd.img",
                "vpmem_device_count": 0,
            },
        ),
        ({f"{NAMESPACE}fullyphysicallybacked": "false"}, {"fully_physically_backed": False}),
        ({f"{NAMESPACE}computetopology.processor.count": "0"}, {}),
        ({f"{NAMESPACE}devices.virtualpmem.maximumcount": "0"}, {"vpmem_device_count": 0}),
    ],
)
def test_what_an_annotation_implies_is_said_as_well(annotations: dict[str, str], implied: dict[str, object]) -> None:
    assert options_said(annotations, {}, windows=False) == implied


def test_a_windows_guest_has_no_root_that_could_be_implied() -> None:
    said = options_said({f"{NAMESPACE}fullyphysicallybacked": "true"}, {}, windows=True)
    assert said == {"fully_physically_backed": True, "allow_overcommit": False}


def test_an_annotation_wins_over_the_section_of_resources_which_wins_over_nothing() -> None:
    resources: dict[str, Any] = {
        "memory": {"limit": (512 << 20) + 1},
        "cpu": {"count": 3, "maximum": 4, "shares": True},
        "storage": {"iops": 5, "bps": 0},
        "cats": 1,
    }
    said = options_said({f"{NAMESPACE}computetopology.processor.count": "9"}, resources, windows=True)
    assert said == {"memory_size_in_mb": 512, "processor_count": 9, "processor_limit": 4, "storage_qos_iops_maximum": 5}


def test_an_unknown_one_in_the_originals_namespace_is_a_mistake_and_a_foreign_one_is_not_looked_at() -> None:
    with pytest.raises(InvalidOptions, match=r"lcow.privilegd' is not known; did you mean io.microsoft.virtualmachine.lcow.privileged\?"):
        options_said({f"{LCOW}privilegd": "true"}, {}, windows=False)
    with pytest.raises(InvalidOptions, match="'io.microsoft.virtualmachine.0123456789' is not known$"):
        options_said({f"{NAMESPACE}0123456789": ""}, {}, windows=False)
    assert options_said({"com.example.cats": "7", "io.kubernetes.cri.image-name": "x"}, {}, windows=False) == {}


@pytest.mark.parametrize("name", NOT_CARRIED_OUT)
def test_what_is_not_carried_out_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(Unsupported, match=f"^annotation {name} is not carried out$"):
        options_said({name: "true"}, {}, windows=False)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (f"{NAMESPACE}computetopology.processor.count", " 7", "' 7' is not a number; 0 says nothing"),
        (f"{NAMESPACE}computetopology.processor.count", "-7", "is not a number"),
        (f"{NAMESPACE}computetopology.processor.count", "\u0667", "is not a number"),
        (f"{NAMESPACE}computetopology.processor.count", "9" * 21, "is not a number"),
        (f"{LCOW}vpcienabled", "yes", "'yes' is not true or false, in any case of letters"),
        (f"{LCOW}preferredrootfstype", "INITRD", "is not initrd or vhd"),
        (f"{NAMESPACE}disablecompartmentnamespace", "true", "is for guests of Windows"),
    ],
)
def test_a_text_that_makes_no_sense_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        options_said({name: text}, {}, windows=False)


def test_all_mistakes_are_told_together() -> None:
    with pytest.raises(InvalidOptions) as caught:
        options_said({f"{NAMESPACE}a": "", f"{LCOW}vpcienabled": "", f"{LCOW}hcl-enabled": ""}, {}, windows=False)
    assert [problem.rule for problem in caught.value.problems] == ["unknown", "value", "not carried out"]


def test_what_is_only_for_linux_guests_is_refused_for_windows() -> None:
    with pytest.raises(InvalidOptions, match="is for guests of Linux"):
        options_said({f"{LCOW}vpcienabled": "true"}, {}, windows=True)


def test_a_containers_annotations_must_be_as_its_vm_is() -> None:
    same = {f"{NAMESPACE}computetopology.memory.sizeinmb": "512", "foreign": "x", f"{LCOW}privileged": "true"}
    check_annotations(same, OptionsLCOW(memory_size_in_mb=512))
    with pytest.raises(InvalidOptions, match="sizeinmb says 512, and the VM has memory_size_in_mb 1024: it was made before its container"):
        check_annotations(same, OptionsLCOW())
    with pytest.raises(InvalidOptions, match="is for guests of Linux"):
        check_annotations({f"{LCOW}vpcienabled": "true"}, OptionsWCOW())
