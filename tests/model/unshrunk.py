"""A plugin of pytest (``-p tests.model.unshrunk``): of Hypothesis the first counterexample, the same every time."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "unshrunk", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None, print_blob=False
)
settings.load_profile("unshrunk")
