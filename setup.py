"""What pyproject.toml cannot say: a wheel carries the guest agent, a static program that Go compiles."""

import shutil
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.errors import ExecError

AGENT = "utilityvm/boot/agent"
NEED_GO = "go: command not found: the guest agent is a Go program; install Go 1.19 or newer (the package golang-go) and try again"


class BuildAgent(Command):
    """Compile the guest agent into the package. An editable installation has it from `make agent`."""

    description = "compile the guest agent"
    user_options: list[tuple[str, str, str]] = []

    def initialize_options(self) -> None:
        """Set defaults."""
        self.build_lib = ""
        self.editable_mode = False

    def finalize_options(self) -> None:
        """Build where the package is built."""
        self.build_lib = self.build_lib or self.get_finalized_command("build").build_lib

    def run(self) -> None:
        """Compile."""
        if self.editable_mode:
            return
        if shutil.which("go") is None:
            raise ExecError(NEED_GO)
        self.spawn(["sh", "agent/build.sh", str(Path(self.build_lib, AGENT).absolute())])

    def get_source_files(self) -> list[str]:
        """Return what a source distribution must have for this command."""
        return [str(path) for path in sorted(Path("agent").rglob("*")) if path.is_file()]

    def get_outputs(self) -> list[str]:
        """Return what this command makes."""
        return [] if self.editable_mode else [str(Path(self.build_lib, AGENT))]

    def get_output_mapping(self) -> dict[str, str]:
        """Return which outputs are copies of a source file: none."""
        return {}


class Build(build):
    """Build the package and the agent, in a folder that has nothing of an earlier build: what was removed since must not be packed."""

    sub_commands = [*build.sub_commands, ("build_agent", None)]

    def initialize_options(self) -> None:
        """Keep clear of the checkout's own build folder."""
        super().initialize_options()
        self.build_base = "build/setuptools"

    def run(self) -> None:
        """Build anew."""
        shutil.rmtree(Path(self.build_lib, "utilityvm"), ignore_errors=True)
        super().run()


class Wheel(bdist_wheel):
    """A wheel for every Python 3 on this platform: it has a program, but no extension module."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its binary interface, and the platform."""
        return "py3", "none", super().get_tag()[2]


class Platform(Distribution):
    """A distribution whose files depend on the platform."""

    def has_ext_modules(self) -> bool:
        """Say so in the only way that setuptools knows."""
        return True


setup(distclass=Platform, cmdclass={"build": Build, "build_agent": BuildAgent, "bdist_wheel": Wheel})
