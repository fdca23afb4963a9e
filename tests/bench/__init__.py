"""Measurements that anyone can repeat: ``python -m tests.bench NAME [--json]``.

Promises: nothing here passes or fails. A benchmark prints figures, their spread, the machine and the Python that made
them; what is demanded of a figure stands beside it, and what it is compared with was measured in the same run.
"""
