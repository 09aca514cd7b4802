"""Options on this host: by keyword and from files."""

import os
from pathlib import Path

import pytest

from utilityvm import (
    HostError,
    InvalidOptions,
    NotFound,
    OptionsLCOW,
    create_lcow,
    default_options_lcow,
    default_options_wcow,
    load_options_lcow,
    options_from_spec,
)


def test_a_file_and_keywords_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text('memory_size_in_mb = 256\nowner = "file"\npreferred_root_fs_type = "initrd"\n')
    options = load_options_lcow(file, owner="me")
    assert options == default_options_lcow(memory_size_in_mb=256, owner="me", preferred_root_fs_type=0)
    assert load_options_lcow(str(file)).owner == "file"


def test_the_folder_that_a_file_names_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").touch()
    (tmp_path / "vm.json").write_text(f'{{"boot_files_path": "{tmp_path}"}}')
    assert load_options_lcow(tmp_path / "vm.json").kernel_file == "vmlinux"
    assert load_options_lcow(tmp_path / "vm.json", boot_files_path="/nowhere").kernel_file == "kernel"


def test_a_keyword_s_mistakes_are_all_told_with_their_paths() -> None:
    with pytest.raises(InvalidOptions, match=r"^options: \$\.memory: .* did you mean memory_size_in_mb\? \(and 1 more\)$") as caught:
        default_options_lcow(memory=1, kernel_direct="no")
    assert [problem.path for problem in caught.value.problems] == ["$.memory", "$.kernel_direct"]


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.toml: no such options file$"):
        load_options_lcow(tmp_path / "absent.toml")
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="file/vm: no such options file$"):
        load_options_lcow(tmp_path / "file" / "vm")


def test_a_file_that_cannot_be_read_is_the_host_s_failure(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="the options file cannot be read: Is a directory$"):
        load_options_lcow(tmp_path)


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="^/dev/zero: is longer than 1048576 bytes"):
        load_options_lcow("/dev/zero")


def test_a_folder_whose_name_is_not_utf_8_is_looked_at(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    Path(folder).mkdir()
    (Path(folder) / "vmlinux").touch()
    assert default_options_lcow(boot_files_path=folder).kernel_file == "vmlinux"


@pytest.mark.parametrize(
    "given", [{"memory_size_in_mb": 256}, {}, "vm.toml", default_options_wcow()], ids=lambda given: type(given).__name__
)
async def test_what_are_no_options_of_a_linux_vm_is_refused_with_what_makes_them(given: object) -> None:
    with pytest.raises(InvalidOptions, match=f"^options are of the type {type(given).__name__}, not OptionsLCOW$") as caught:
        await create_lcow(given)  # type: ignore[arg-type]
    assert "default_options_lcow" in caught.value.hint


def lcow(annotations: dict[str, str], **more: object) -> dict[str, object]:
    return {"ociVersion": "1.0.2", "linux": {}, "annotations": annotations, **more}


VIRTUAL = "io.microsoft.virtualmachine."


def test_a_specification_says_its_vms_options_over_the_defaults_and_below_keywords() -> None:
    annotations = {f"{VIRTUAL}computetopology.memory.sizeinmb": "512", f"{VIRTUAL}computetopology.processor.count": "1", "foreign": "x"}
    options = options_from_spec(lcow(annotations, windows={"resources": {"cpu": {"count": 9, "maximum": 50_000}}}), owner="me")
    assert options == default_options_lcow(memory_size_in_mb=512, processor_count=1, processor_limit=50_000, owner="me")
    assert options_from_spec(lcow(annotations), memory_size_in_mb=256).memory_size_in_mb == 256


def test_the_folder_that_an_annotation_names_is_looked_at(tmp_path: Path) -> None:
    """The original keeps the names of the files that it has found in another folder."""
    (tmp_path / "vmlinux").touch()
    (tmp_path / "rootfs.vhd").touch()
    options = options_from_spec(lcow({f"{VIRTUAL}lcow.bootfilesrootpath": str(tmp_path)}))
    assert isinstance(options, OptionsLCOW)
    assert (options.kernel_file, options.root_fs_file) == ("vmlinux", "rootfs.vhd")
    options = options_from_spec(lcow({f"{VIRTUAL}lcow.bootfilesrootpath": "/nowhere"}))
    assert isinstance(options, OptionsLCOW)
    assert (options.kernel_file, options.root_fs_file) == ("kernel", "initrd.img")


def test_without_a_section_for_linux_the_guest_is_windows() -> None:
    annotations = {f"{VIRTUAL}computetopology.memory.sizeinmb": "2048", f"{VIRTUAL}disablecompartmentnamespace": "true"}
    wanted = {"ociVersion": "1.0.2", "annotations": annotations, "windows": {"hyperv": {}, "layerFolders": ["C:\\x"]}}
    assert options_from_spec(wanted) == default_options_wcow(memory_size_in_mb=2048, disable_compartment_namespace=True)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"ociVersion": "1.0.2"}, "^cannot create UVM opts spec is not LCOW or WCOW$"),
        ({"ociVersion": "1.0.2", "windows": {}}, "^cannot create UVM opts for non-isolated spec$"),
        (lcow({f"{VIRTUAL}cats": "1"}), "cats' is not known"),
        (lcow({f"{VIRTUAL}computetopology.processor.limit": "4294967296"}), r"\$.processor_limit"),
    ],
)
def test_a_specification_that_asks_for_no_vm_or_none_that_can_be_is_refused(spec: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        options_from_spec(spec)
