"""What the model breaks on purpose is not worth a line each in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logger = logging.getLogger("mbframework")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)
