"""Makes the synchronous twin of an asynchronous class or function: the same names, each awaited in the loop thread.

What a call returns is wrapped in turn, and what is passed to one is taken out of its twin. `tools/sync_stubs.py` writes down for type
checkers what is made here.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from utilityvm.sync.loop import LoopThread, loop_thread

_twins: Final[dict[type, Callable[[Any, LoopThread], object]]] = {}
_made: Final = set[type]()
_HIDDEN: Final = ("_inner", "_loop")


def twin(kind: type, *, called: bool = False) -> type:
    """Make the twin of `kind`, by which what calls return is wrapped from then on. A protocol must be checkable at run time.

    Attributes of its objects are those that the class annotates. A twin that is a context is closed at the process's end at last.
    `called` says that the caller makes its objects, by calling the class.
    """
    context = hasattr(kind, "__aenter__")

    def begin(self: Any, inner: Any, loop: LoopThread) -> None:  # noqa: ANN401 (a twin and what it wraps)
        self._inner, self._loop = inner, loop

    @wraps(vars(kind).get("__init__", object.__init__))
    def make(self: Any, *args: object, **keywords: object) -> None:  # noqa: ANN401 (a twin)
        loop = loop_thread()
        begin(self, loop.call(lambda: kind(*map(unwrap, args), **_unwrapped(keywords))), loop)
        if context:
            loop.keep(self._inner)

    def enter(self: Any) -> object:  # noqa: ANN401 (a twin)
        self._loop.run(self._inner.__aenter__)
        return self

    def leave(self: Any, *_: object) -> None:  # noqa: ANN401 (a twin)
        self.close()

    members: dict[str, object] = {
        "__doc__": kind.__doc__,
        "__module__": "utilityvm.sync",
        "__slots__": _HIDDEN,
        "__init__": make if called else begin,
    }
    members |= {name: _member(name, member) for name, member in vars(kind).items() if not name.startswith("_")}
    members |= {name: _attribute(name, None) for name in inspect.get_annotations(kind) if name not in members}
    if context:
        members |= {"__enter__": enter, "__exit__": leave}
    made = type(kind.__name__, (), members)
    _made.add(made)

    def adopt(inner: Any, loop: LoopThread) -> object:  # noqa: ANN401 (what a call has made)
        new: object = object.__new__(made)
        begin(new, inner, loop)
        return new

    _twins[kind] = adopt if called else made
    return made


def synchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the coroutine function `function` as one that is called without await."""

    @wraps(function)
    def call(*args: object, **keywords: object) -> object:
        loop = loop_thread()
        return wrap(loop.run(lambda: function(*map(unwrap, args), **_unwrapped(keywords))), loop)

    return call


def wrap(value: Any, loop: LoopThread, *, owned: bool = False) -> object:  # noqa: ANN401 (what a call has made, or anything else)
    """Return the twin of `value`, or `value` itself when its class has none; of a tuple those of its elements.

    A context is closed at the process's end at last, unless it is `owned` by something that closes it.
    """
    if type(value) is tuple:
        return tuple(wrap(element, loop, owned=owned) for element in value)
    made = next((made for kind, made in _twins.items() if isinstance(value, kind)), None)
    if made is None:
        return value
    if not owned and hasattr(value, "__aenter__"):
        loop.keep(value)
    return made(value, loop)


def unwrap(value: Any) -> Any:  # noqa: ANN401 (a twin, or anything else)
    """Return what `value` is the twin of, or `value` itself."""
    return value._inner if type(value) in _made else value  # noqa: SLF001 (of our own making)


def _unwrapped(keywords: dict[str, object]) -> dict[str, object]:
    return {name: unwrap(value) for name, value in keywords.items()}


def _member(name: str, member: object) -> object:
    if isinstance(member, property):
        return _attribute(name, member.__doc__)
    if not inspect.isfunction(member):
        return member
    awaited = inspect.iscoroutinefunction(member)

    @wraps(member)
    def method(self: Any, *args: object, **keywords: object) -> object:  # noqa: ANN401 (a twin)
        passed, named = [unwrap(value) for value in args], _unwrapped(keywords)

        def begin() -> Any:  # noqa: ANN401 (whatever the method returns)
            return getattr(self._inner, name)(*passed, **named)

        result = self._loop.run(begin) if awaited else self._loop.call(begin)
        for ended in {"close": [self._inner], "release": [*passed, *named.values()]}.get(name, ()):
            self._loop.drop(ended)
        return wrap(result, self._loop)

    return method


def _attribute(name: str, doc: str | None) -> property:
    def read(self: Any) -> object:  # noqa: ANN401 (a twin)
        return wrap(self._loop.call(lambda: getattr(self._inner, name)), self._loop, owned=True)  # whose attribute it is, closes it

    return property(read, doc=doc)
