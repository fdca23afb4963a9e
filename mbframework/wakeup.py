"""How one thread wakes another.

Promises: a call that comes while nobody waits is kept for the next wait; several count as one. :meth:`Wakeup.set`
never waits and runs no Python code that could be interrupted half-way, so a signal handler may call it in the
middle of another call of it, where :class:`threading.Event` would wait for itself for ever.

``set`` from any thread; ``wait`` and ``clear`` from one.
"""

from __future__ import annotations

import threading


class Wakeup:
    """See the module."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        #: Held while there is nothing to wake for.
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        """Wake who waits, or the next who does."""
        try:
            self._gate.release()
        except RuntimeError:
            # It stands open already.
            return

    def wait(self, timeout: float) -> bool:
        """Wait for at most ``timeout`` seconds; whether somebody called. That call is used up."""
        return self._gate.acquire(timeout=max(0.0, timeout))

    def clear(self) -> None:
        """Forget a call."""
        self._gate.acquire(blocking=False)


class Broadcast:
    """Wakes everybody who waits. A waiter takes its :meth:`gate` while it holds the lock under which its condition
    changes, lets go of that lock, and waits at the gate: unlike :class:`threading.Condition` this takes and gives back
    no lock of the caller's, and so leaves none in doubt when an interrupt ends the wait.
    """

    __slots__ = ("_gates",)

    def __init__(self) -> None:
        self._gates: list[Wakeup] = []

    def gate(self) -> Wakeup:
        """What the next :meth:`notify_all` opens."""
        gate = Wakeup()
        self._gates.append(gate)
        return gate

    def notify_all(self) -> None:
        """Open every gate that was taken so far."""
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.set()

    def leave(self, gate: Wakeup) -> None:
        """Give a gate back that did not open."""
        if gate in self._gates:
            self._gates.remove(gate)
