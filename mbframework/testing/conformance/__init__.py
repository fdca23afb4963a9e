"""The contract of a provider as tests: subclass :class:`ProviderContract`, and pytest tells which rules are kept.

::

    # tests/test_conformance.py
    pytest_plugins = ["mbframework.testing.conformance"]

    class TestLines(ProviderContract):
        @pytest.fixture(autouse=True)
        def destination(self):                 # empty for every test: a new topic, table, file
            with LineServer() as self.server:
                yield

        def url(self):                         # required (or make())
            return f"lines://127.0.0.1:{self.server.port}?token=letmein"

        def arrived(self):                     # required: all that can be read there now, in order
            return [Arrived(value, topic) for topic, value in self.server.lines]

        def kept(self, message):               # what the destination makes of a message
            return Arrived(message.value, message.topic)

        def take_down(self): ...               # optional, as is the rest; the rules that need what is not
        def bring_up(self): ...                # supplied are skipped, and the reason names it

What an author may supply is on :class:`~mbframework.testing.conformance.hooks.Hooks`, with its meaning:

========================================  ===========================================================================
``url()`` or ``make()``, ``arrived()``    required: the provider, and what arrived
``kept(message)``                         what a reader finds of a message; default: all of it
``take_down()``, ``bring_up()``           outages
``freeze()``, ``thaw()``                  a destination that takes connections and answers nothing
``make_rejected(message)``                a message that the destination will never take
``fail_after(count)``                     the next send fails in its middle, until ``bring_up()``
``unusable_url()``                        credentials that are refused, or the like
``topics``, ``partitions``                names and numbers that exist at the destination
``keeps_position``, ``in_process``        what kind of destination it is
========================================  ===========================================================================

The rules, one test each, are in the other modules of this package. They call the provider from one thread, as a lane
does, and need nothing beyond ``mbframework[testing]``. Seconds everywhere; timestamps are nanoseconds.

PYTEST_DONT_REWRITE: a test module imports this package before it names it as a plugin, and every assertion has words.
"""

from mbframework.testing.conformance.contract import ProviderContract
from mbframework.testing.conformance.hooks import Arrived
from mbframework.testing.conformance.summary import pytest_collection_modifyitems, pytest_terminal_summary

__all__ = ["Arrived", "ProviderContract", "pytest_collection_modifyitems", "pytest_terminal_summary"]
