import pickle
from inspect import isclass

from utilityvm.kit import errors
from utilityvm.kit.errors import EXIT_CODES, HostError, InvalidOptions, Kind, Problem, UtilityVMError

CLASSES = [value for value in vars(errors).values() if isclass(value) and issubclass(value, UtilityVMError)]


def test_every_kind_has_an_exit_code_and_none_is_a_success_or_a_signal() -> None:
    assert set(EXIT_CODES) == set(Kind)
    assert all(1 < code < 125 for code in EXIT_CODES.values())


def test_every_kind_has_a_class_and_every_class_a_kind() -> None:
    assert {cls.kind for cls in CLASSES if cls is not UtilityVMError} == set(Kind)


def test_a_class_of_its_own_kind_derives_from_the_root_and_others_from_their_kinds_class() -> None:
    first: dict[Kind, type[UtilityVMError]] = {}
    for cls in CLASSES[1:]:
        base = first.setdefault(cls.kind, cls)
        assert cls.__bases__ == ((UtilityVMError,) if cls is base else (base,))


def test_an_error_has_a_message_and_a_hint() -> None:
    error = HostError("what happened", hint="what to do")
    assert (str(error), error.message, error.hint) == ("what happened", "what happened", "what to do")
    assert HostError("x").hint == ""


def test_all_problems_are_kept_in_order() -> None:
    problems = [Problem("$.b", "rule", "first"), Problem("$.a", "rule", "second")]
    assert InvalidOptions("first", problems=problems).problems == tuple(problems)


def test_what_may_succeed_later_says_so() -> None:
    assert {cls.__name__ for cls in CLASSES if cls.retryable} == {"Exhausted", "ConnectionLost", "Unknown", "DeadlineExceeded"}


def test_a_simple_error_survives_being_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(HostError("what happened", hint="what to do")))  # noqa: S301 (our own bytes)
    assert (type(error), error.message, error.hint) == (HostError, "what happened", "what to do")
