"""The same work for each name of a command line."""

from collections.abc import Callable, Iterable


def do_each(names: Iterable[str], work: Callable[[str], str]) -> int:
    """Do `work` for each name, and print what it returns; a failure keeps none of the others from being done.

    Raises:
        UtilityVMError: the last failure; those before it were told.
    """
    from utilityvm.cli.main import complain
    from utilityvm.kit.errors import UtilityVMError

    failure = None
    for name in names:
        try:
            done = work(name)
        except UtilityVMError as error:
            if failure:
                complain(failure)
            failure = error
        else:
            print(done)
    if failure:
        raise failure
    return 0
