"""Settings with which a benchmark takes seconds: what it finds says that it runs, and nothing else."""

from __future__ import annotations

from typing import Any

QUICK: dict[str, dict[str, Any]] = {
    "write": {"rounds": 1, "messages": 2000},
    "peers": {"rounds": 1, "messages": 100, "seconds": 0.05, "kills": 1, "after": 20},
    "kafka": {"rounds": 1, "messages": 1000},
    "baselines": {"rounds": 1, "messages": 1000},
    "acknowledged": {"rounds": 1, "seconds": 0.2},
    "latency": {"rounds": 1, "seconds": 8, "rate": 200},
    "read": {"rounds": 1, "messages": 2000},
    "catchup": {"rounds": 1, "messages": 2000, "seconds": 0.3},
    "open": {"backlog": "2MB", "repeat": 1},
    "memory": {"bytes": "30MB", "total_size": "10MB"},
    "check": {"backlog": "4MB", "rounds": 1},
    "providers": {"rounds": 1, "messages": 200},
}
