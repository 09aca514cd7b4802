"""`uvm document`: the document that a driver would be given, and nothing else happens."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from utilityvm.cli.main import main
from utilityvm.kit.proc import run_tool
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.plan.lcow import plan_lcow
from utilityvm.plan.wcow import locate, plan_wcow
from utilityvm.schema import json as schema_json
from utilityvm.schema.document import ComputeSystem
from utilityvm.vm.host_options import default_options_lcow, default_options_wcow

FOLDER = "/nowhere"  # the files that a document names need not be there


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["document", "lcow", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def planned(options: OptionsLCOW, platform: Platform = Platform.QEMU, *, emulated: bool = False) -> str:
    flavour = PathFlavour.POSIX if platform is Platform.QEMU else PathFlavour.WINDOWS
    separator = "/" if platform is Platform.QEMU else "\\"
    files = {options.boot_files_path + separator + name for name in (options.kernel_file, options.root_fs_file)}
    facts = Facts(
        platform=platform,
        path_flavour=flavour,
        processors=Counted(logical_processors=8),
        files_present=frozenset(files),
        emulated=emulated,
    )
    return schema_json.encode(plan_lcow(options, facts, vm_id="v", warn=lambda _: None).document)


def test_the_compact_document_is_the_plans_to_the_byte(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UVM_ACCEL", raising=False)
    words = ["--boot-files-path", FOLDER, "--host-processors", "8", "--cpus", "5", "--kernel-boot-options", "a <b> & \u2028"]
    options = default_options_lcow(boot_files_path=FOLDER, processor_count=5, kernel_boot_options="a <b> & \u2028")
    assert printed(capsys, *words, "--compact") == planned(options) + "\n"
    indented = printed(capsys, *words)
    assert json.loads(indented) == json.loads(planned(options))
    assert indented.startswith('{\n  "Owner": ')


def test_emulation_is_asked_for_by_flag_or_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--boot-files-path", FOLDER, "--host-processors", "8", "--compact"]
    expected = planned(default_options_lcow(boot_files_path=FOLDER), emulated=True) + "\n"
    assert printed(capsys, *words, "--accel", "tcg") == expected
    monkeypatch.setenv("UVM_ACCEL", "tcg")
    assert printed(capsys, *words) == expected
    assert printed(capsys, *words, "--accel", "kvm") == planned(default_options_lcow(boot_files_path=FOLDER)) + "\n"
    monkeypatch.setenv("UVM_ACCEL", "warp")
    assert main(["document", "lcow"]) == 2
    assert capsys.readouterr() == ("", "uvm: UVM_ACCEL=warp: must be kvm or tcg\n")


def test_the_document_for_hyper_v_has_windows_paths(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVM_ACCEL", "tcg")  # says nothing there
    said = printed(capsys, "--platform", "hyperv", "--host-processors", "8", "--owner", "me", "--compact")
    folder = "C:\\Program Files\\Linux Containers"
    line = "/bin/gcs -v4 -log-format json -loglevel warning"
    assert said == planned(OptionsLCOW(owner="me", boot_files_path=folder, exec_command_line=line), Platform.HYPERV) + "\n"


def test_what_hyper_v_does_not_have_is_refused_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["document", "lcow", "--platform", "hyperv", "--accel", "tcg"]) == 2
    assert capsys.readouterr() == ("", "uvm: --accel is for --platform qemu: on hyperv nothing depends on it\n")


LAYERS = ["--layer", r"C:\l\top", "--layer", r"C:\l\base", "--layer-folders", r"C:\s"]


def test_a_windows_guest_s_document_is_printed_on_any_host(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*LAYERS, "--owner", "o", "--host-processors", "8", "--cpus", "16", "--memory", "512"]
    assert main(["document", "wcow", *words, "--compact"]) == 0
    layers = [r"C:\l\top", r"C:\l\base", r"C:\s"]
    options = default_options_wcow(owner="o", processor_count=16, memory_size_in_mb=512, layer_folders=layers)
    facts = Facts(
        platform=Platform.HYPERV,
        path_flavour=PathFlavour.WINDOWS,
        processors=Counted(logical_processors=8),
        files_present=frozenset({r"C:\l\base\UtilityVM"}),
    )
    plan = plan_wcow(options, locate(options, facts), facts, vm_id="v", warn=lambda _: None)
    assert capsys.readouterr().out == schema_json.encode(plan.document) + "\n"


def test_the_page_s_example_of_a_clone_becomes_a_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "reference" / "options-wcow.md").read_text()
    (tmp_path / "vm.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    assert main(["document", "wcow", "--options", str(tmp_path / "vm.toml")]) == 0
    machine = json.loads(capsys.readouterr().out)["VirtualMachine"]
    assert machine["RestoreState"] == {"TemplateSystemId": "template"}
    assert machine["Devices"]["Scsi"]["0"]["Attachments"]["0"]["Path"] == "C:\\scratch\\one\\sandbox.vhdx"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "at least 2 LayerFolders must be supplied"),
        ([*LAYERS, "--is-clone"], 2, "template config can not be nil when creating clone"),
        ([*LAYERS, "--platform", "qemu"], 2, "invalid choice: 'qemu'"),
    ],
)
def test_what_no_windows_guest_s_document_can_say_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main(["document", "wcow", *words]) == code
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True)


def test_the_schema_of_documents_is_that_of_the_structs(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "--schema")) == schema_json.json_schema(ComputeSystem)


@pytest.mark.parametrize("platform", ["qemu", "hyperv"])
def test_a_file_s_options_are_in_it_and_flags_win(capsys: pytest.CaptureFixture[str], tmp_path: Path, platform: str) -> None:
    (tmp_path / "vm.json").write_text('{"memory_size_in_mb": 300, "owner": "file", "enable_graphics_console": true}')
    document = json.loads(printed(capsys, "--platform", platform, "--options", str(tmp_path / "vm.json"), "--owner", "flag"))
    assert document["Owner"] == "flag"
    assert document["VirtualMachine"]["ComputeTopology"]["Memory"]["SizeInMB"] == 300
    assert "VideoMonitor" in document["VirtualMachine"]["Devices"]


def test_options_that_no_document_can_say_are_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["document", "lcow", "--fully-physically-backed"]) == 6
    assert capsys.readouterr() == ("", "uvm: fully_physically_backed: this version cannot do that for a Linux guest\n")


def test_a_clones_document_names_its_template(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    template = {"uvm_id": "t", "create_options": msgspec.to_builtins(default_options_lcow())}
    (tmp_path / "vm.json").write_text(json.dumps({"template_config": template}))
    assert main(["document", "lcow", "--is-clone", "--options", str(tmp_path / "vm.json")]) == 0
    assert json.loads(capsys.readouterr().out)["VirtualMachine"]["RestoreState"] == {"TemplateSystemId": "t"}


def test_a_number_that_is_adjusted_is_told(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["document", "lcow", "--memory", "301"]) == 0
    assert '"SizeInMB": 302' in capsys.readouterr().out
    assert [record.getMessage().split()[0] for record in caplog.records] == ["plan.adjusted"]


def test_it_needs_neither_qemu_nor_kvm_nor_root(tmp_path: Path) -> None:
    """As nobody, with no program to be found, in a folder that cannot be written."""
    code = "import os, sys\nif os.geteuid() == 0: os.setuid(65534)\nfrom utilityvm.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    environment = {"PATH": "/nowhere", "HOME": "/nonexistent", "XDG_STATE_HOME": "/nonexistent/state", "UVM_QEMU": "/nonexistent/qemu"}
    said = run_tool([sys.executable, "-c", code, "document", "lcow"], within=30, cwd=tmp_path, env=environment)
    assert (
        json.loads(said)["VirtualMachine"]["Chipset"]["LinuxKernelDirect"]["KernelFilePath"] == "/nonexistent/state/utilityvm/boot/kernel"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_document_is_utf_8_on_a_terminal_that_is_not() -> None:
    code = "import sys\nfrom utilityvm.cli.main import main\nsys.exit(main(['document', 'lcow', '--compact', '--owner', 'J\\xfcrgen']))"
    said = run_tool([sys.executable, "-c", code], within=30, env={"PYTHONIOENCODING": "latin-1"})
    assert said.startswith('{"Owner":"Jürgen",')
