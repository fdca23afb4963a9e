"""Imports its client library, pytest, at once."""

from __future__ import annotations

import kit_reference
import pytest

from mbframework.plugins import ProviderType, hookimpl

CLIENT = pytest.__version__


@hookimpl
def mbframework_provider() -> ProviderType:
    return ProviderType(
        api=1, name="eager", options=kit_reference.Options, factory=kit_reference.make, requires=("pytest>=8",),
        summary="imports early",
    )  # fmt: skip
