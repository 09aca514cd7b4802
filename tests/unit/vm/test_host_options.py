"""Options on this host: by keyword and from files."""

import os
from pathlib import Path

import pytest

from utilityvm import HostError, InvalidOptions, NotFound, create_lcow, default_options_lcow, default_options_wcow, load_options_lcow


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
