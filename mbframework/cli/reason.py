"""Why something could not be done, in one sentence."""

from __future__ import annotations

import errno
import os

_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM})


def reason(error: Exception) -> str:
    """The error in words: those of the system name the file first, and where it is a matter of permissions what to
    do about it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    text = f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    # Words of the library's own tell what to do already.
    if error.errno in _NOT_ALLOWED and error.strerror == os.strerror(error.errno):
        text += "; run this as the user who owns the buffer, or as root"
    return text
