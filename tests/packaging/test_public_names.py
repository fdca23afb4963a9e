"""The public names: a change here is a change for every user."""

from __future__ import annotations

import inspect

import mbframework
from mbframework import errors

ERRORS = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}

NAMES = {
    "AsyncMessageBuffer",
    "AsyncRoutedBuffer",
    "Batch",
    "BufferStatus",
    "Config",
    "Context",
    "Health",
    "LaneStatus",
    "Message",
    "MessageBuffer",
    "Position",
    "Provider",
    "ProviderType",
    "RoutedBuffer",
    "Sidecar",
    "__version__",
    "hookimpl",
    "install_sigterm",
    "option",
    "read_status",
}


def test_names_are_exactly_these() -> None:
    assert set(mbframework.__all__) == NAMES | ERRORS
    assert len(mbframework.__all__) == len(set(mbframework.__all__))
    for name in mbframework.__all__:
        assert getattr(mbframework, name) is not None


def test_errors_form_the_tree_that_is_drawn() -> None:
    """The drawing at the top of errors.py names each class once, under its base."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (inspect.getdoc(errors) or "").partition("::\n")[2].splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()
        if not words or words[0] not in ERRORS:
            continue
        depth = (line.index(words[0]) - 4) // 4
        del path[depth:]
        drawn[words[0]] = path[-1] if path else ""
        path.append(words[0])
    assert set(drawn) == ERRORS
    for name, parent in drawn.items():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases[0] == parent or (not parent and bases == ["Exception"]), name
