"""Measurements that anyone can repeat: ``mb bench NAME``.

Promises
--------
- Nothing here passes or fails. A benchmark prints figures, their spread, the machine and the Python that made them.
- A figure is a ratio to something that everybody has and that was measured in the same run, in interleaved rounds; what
  is demanded of it (:mod:`mbframework.bench.budget`) stands beside it, met or missed and by how much.
- What cannot be measured here is a row that says why, and what to install; it ends no run.
- The library does not import this package, and client libraries are imported by what measures them only.

A benchmark is a module with ``Settings``, a dataclass whose fields are its options, and ``run(settings, directory)``,
which returns a :class:`mbframework.bench.report.Report` and leaves nothing in the directory.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

#: The benchmarks by name: the module that holds each, and what it measures. In the order of a whole run.
BENCHMARKS = {
    "write": ("writing", "the cost of write() and write_many(), in C and in plain Python"),
    "peers": ("peers", "write() beside other queues on disk, each with what survives a kill -9"),
    "kafka": ("kafka", "from a backlog on disk into a real Kafka broker, and other clients' pace"),
    "baselines": ("baselines", "whether those other clients are used at their best"),
    "acknowledged": ("acknowledged", "from write() to the acknowledgement, at a steady pace, beside the bare client"),
    "latency": ("latency", "single calls of write() while a real Kafka broker is killed, out of reach and frozen"),
    "read": ("reading", "the cost of reading a backlog from disk, in C and in plain Python"),
    "catchup": ("catchup", "from a backlog to a provider that only takes it; max_rate"),
    "open": ("opening", "opening a buffer that holds 10 GB of backlog"),
    "memory": ("memory", "5 GB into a buffer of 1 GB while the provider is away: accounts, order, memory, disk"),
    "check": ("checking", "mb verify, and what mb peek reads"),
    "providers": ("providers", "each provider through the whole buffer, beside its bare client"),
}


def module_of(name: str) -> ModuleType:
    """The module of a benchmark: its ``Settings`` and ``run``."""
    return import_module(f"{__name__}.{BENCHMARKS[name][0]}")
