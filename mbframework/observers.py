"""Observers: the caller's hooks, told what happened without ever slowing it down.

An observer is a pluggy plugin, a module or an object, that implements any of
the hooks in :mod:`mbframework.plugins.hookspecs` except the provider's. It is
active only when it is passed as an object, or named: then it is the entry point
of that name in the group ``mbframework.observers``.

- :meth:`ObserverHub.emit` never waits for an observer: it appends to a bounded
  queue, and counts in ``dropped`` what finds it full.
- One daemon thread for each hub calls the hooks, in the order of the events. It
  starts with the first event that somebody wants.
- Each implementation is called by itself: one that raises is logged, the first
  time with its traceback, and stops neither the others nor the lane.
- After ``fork()`` the child calls :meth:`ObserverHub.after_fork`; the events in
  the queue stay the parent's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Lock, Thread, current_thread
from typing import Any, NamedTuple

import pluggy

from mbframework.errors import BrokenPlugin
from mbframework.plugins import hookspecs
from mbframework.plugins.registry import find, import_plugin, register

OBSERVERS = "mbframework.observers"

#: Events that may wait for the observers' thread.
QUEUE_LIMIT = 4096

_log = logging.getLogger("mbframework.observers")


class _Implementation(NamedTuple):
    """One observer's function for one hook, and the arguments that it names."""

    observer: str
    hook: str
    function: Callable[..., object]
    arguments: tuple[str, ...]


class _Event(NamedTuple):
    implementations: tuple[_Implementation, ...]
    arguments: dict[str, Any]


class ObserverHub:
    """The observers of one buffer. Any thread may call its methods.

    :raises UnknownProvider: no entry point has the name that was given.
    :raises BrokenPlugin: an observer cannot be imported, implements no hook, or a hook that does not exist.
    """

    def __init__(self, observers: Sequence[str | object] = (), *, limit: int = QUEUE_LIMIT) -> None:
        manager = pluggy.PluginManager("mbframework")
        manager.add_hookspecs(hookspecs)
        for observer in observers:
            if isinstance(observer, str):
                _register(manager, import_plugin(find(OBSERVERS, observer)), observer)
            else:
                _register(manager, observer, getattr(observer, "__name__", type(observer).__name__))
        self._hooks = _hooks(manager)
        self._limit = limit
        self._failed: set[tuple[str, str]] = set()
        self._closed = False
        self.after_fork()

    @property
    def dropped(self) -> int:
        """Events that no observer was told, because the queue was full or the hub closed."""
        return self._dropped

    def emit(self, hook_name: str, **arguments: Any) -> None:
        """Tell the observers. Returns at once; ``arguments`` are exactly those of the hook.

        :raises TypeError: no such hook, or other arguments: a mistake of the caller.
        """
        if hook_name not in self._hooks:
            raise TypeError(f"there is no hook {hook_name!r}; there are {', '.join(self._hooks)}")
        names, implementations = self._hooks[hook_name]
        if arguments.keys() != names:
            raise TypeError(f"hook {hook_name!r} takes {sorted(names)}, not {sorted(arguments)}")
        if not implementations:
            return
        if self._closed or self._queue.qsize() >= self._limit or not self._running():
            with self._lock:
                self._dropped += 1
            return
        self._queue.put(_Event(implementations, arguments))

    def close(self, timeout: float) -> bool:
        """Tell what is in the queue, for at most ``timeout`` seconds, then drop the rest. May be called twice.

        False where an observer has not returned by then; its thread is left behind.
        """
        thread = self._thread
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        if thread is None or thread is current_thread():
            return True
        thread.join(timeout)
        self._abandoned.set()
        if thread.is_alive():
            _log.warning("an observer did not return within %.1f s; events after that one are dropped", timeout)
        return not thread.is_alive()

    def after_fork(self) -> None:
        """In the child: forget the parent's thread, queue and count. A closed hub stays closed."""
        self._lock = Lock()
        self._queue: SimpleQueue[_Event | None] = SimpleQueue()
        self._abandoned = Event()
        self._thread: Thread | None = None
        self._dropped = 0

    def _running(self) -> bool:
        """Whether the thread runs, which it does from the first event on."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = Thread(target=self._run, name="mbframework-observers", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError:
                        # The interpreter is shutting down, or there are too many threads.
                        return False
                    self._thread = thread
        return True

    def _run(self) -> None:
        queue, abandoned = self._queue, self._abandoned
        while (event := queue.get()) is not None:
            if abandoned.is_set():
                with self._lock:
                    self._dropped += 1
                continue
            for implementation in event.implementations:
                self._call(implementation, event.arguments)

    def _call(self, implementation: _Implementation, arguments: dict[str, Any]) -> None:
        try:
            implementation.function(*[arguments[name] for name in implementation.arguments])
        except BaseException:  # noqa: BLE001 - the observer's code must stop neither the others nor us
            key = (implementation.observer, implementation.hook)
            if key in self._failed:
                _log.debug("observer %r failed again in %s", *key, exc_info=True)
            else:
                self._failed.add(key)
                _log.exception("observer %r failed in %s; further failures there are logged as debug", *key)


def _register(manager: pluggy.PluginManager, observer: object, name: str) -> None:
    if manager.is_registered(observer):
        return
    # Pluggy wants unique names; two objects of one class are two observers.
    while manager.has_plugin(name):
        name += "'"
    register(manager, observer, name)
    callers = manager.get_hookcallers(observer) or []
    implementations = [i for caller in callers for i in caller.get_hookimpls() if i.plugin is observer]
    if not implementations:
        raise BrokenPlugin(
            f"observer {name!r} implements no hook; mark its functions with mbframework.plugins.hookimpl", plugin=name
        )
    if any(i.wrapper or i.hookwrapper for i in implementations):
        raise BrokenPlugin(f"observer {name!r} wraps a hook; observers implement hooks as plain functions", plugin=name)


def _hooks(manager: pluggy.PluginManager) -> dict[str, tuple[frozenset[str], tuple[_Implementation, ...]]]:
    """For each hook the names of its arguments and the functions to call, first registered first."""
    hooks: dict[str, tuple[frozenset[str], tuple[_Implementation, ...]]] = {}
    for name, caller in vars(manager.hook).items():
        if isinstance(caller, pluggy.HookCaller) and caller.spec is not None and name != "mbframework_provider":
            hooks[name] = (
                frozenset(caller.spec.argnames),
                tuple(
                    _Implementation(impl.plugin_name, name, impl.function, tuple(impl.argnames))
                    for impl in caller.get_hookimpls()
                ),
            )
    return hooks
