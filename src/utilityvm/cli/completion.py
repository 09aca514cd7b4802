"""`uvm completion`: a script that lets a shell complete the command line of `uvm`."""

import argparse

_SHELLS = {"bash": "source <(uvm completion bash)", "zsh": "source <(uvm completion zsh)", "fish": "uvm completion fish | source"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    uses = ". ".join(f"In {shell}: {line}" for shell, line in _SHELLS.items())
    parser.description = f"Print a script that completes the verbs, flags and choices of uvm in a shell. {uses}."
    parser.add_argument("shell", choices=[*_SHELLS], help="the shell that is to complete")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from utilityvm.cli.describe import describe
    from utilityvm.cli.main import whole_parser
    from utilityvm.cli.shells import SHELLS

    print(SHELLS[args.shell](describe(whole_parser())), end="")
    return 0
