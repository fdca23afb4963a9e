"""Secrets: which names mean one, where they may be kept, and how they stay out of texts.

Wherever an option flagged ``secret`` is given, in a URL or a mapping, its value
may be ``env:NAME`` (read from the environment) or ``file:/path`` (read from a
file; one newline at its end is dropped). Any other value is the secret itself.
A secret that happens to begin with ``env:`` or ``file:`` must be kept in one of
these two places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import quote

from mbframework.errors import ConfigurationError

#: What is shown in place of a secret.
MASK = "***"

_NAME = re.compile(r"pass|pwd|secret|token|cred|auth|key|sign|\bsig\b|private|cookie|session|sas", re.IGNORECASE)
#: Shorter ones are not scrubbed: it would make a text unreadable and hide nothing.
_SHORTEST = 4


def looks_secret(name: str) -> bool:
    """Whether an option of that name probably holds a secret. Errs towards yes."""
    return _NAME.search(name) is not None


def read_secret(provider: str, name: str, value: object) -> object:
    """What ``env:NAME`` or ``file:/path`` stands for; any other value as it is.

    :raises ConfigurationError: the variable is not set or the file cannot be read.
    """
    if not isinstance(value, str):
        return value
    how, colon, place = value.partition(":")
    if how + colon == "env:":
        if place not in os.environ:
            raise ConfigurationError(
                f"provider {provider!r}: option {name!r} is to come from the environment variable {place!r},"
                " which is not set",
                option=name,
            )
        return os.environ[place]
    # "file://" begins the URL of a provider, such as one that another stands in front of.
    if how + colon == "file:" and not place.startswith("//"):
        try:
            with open(place, encoding="utf-8", newline="") as file:
                return file.read().removesuffix("\n").removesuffix("\r")
        except (OSError, ValueError) as error:
            # A decoding error quotes what is in the file: only the operating system's words are told.
            why = error.strerror if isinstance(error, OSError) else "expected a path to UTF-8 text"
            raise ConfigurationError(
                f"provider {provider!r}: option {name!r} is to come from the file {place!r}: {why}", option=name
            ) from None
    return value


def scrub(text: str, secrets: Iterable[str]) -> str:
    """``text`` with each of the secrets masked, as it is and percent-encoded; those under four characters stay."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK).replace(quote(secret, safe=""), MASK)
    return text
