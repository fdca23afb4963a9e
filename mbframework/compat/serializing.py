"""What turns a program's keys and values into bytes, in any of the shapes that kafka-python takes.

Promise: the shape is found out once, when the producer is made, by looking at the signature: an error that a serializer
raises is its own and reaches the caller as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from mbframework.errors import ConfigurationError

#: (topic, headers, data) → bytes or None.
Serialize: TypeAlias = Callable[[str, "list[tuple[str, bytes]]", Any], Any]


def serialize_with(serializer: object, option: str) -> Serialize:
    """How to call a serializer: an object with ``serialize(topic, headers, data)`` or ``serialize(topic, data)``, a
    function of the data, or None.

    :raises ConfigurationError: it is none of these.
    """
    if serializer is None:
        return lambda _topic, _headers, data: data
    method: Any = getattr(serializer, "serialize", None)
    if callable(method):
        if _takes(method, 3):
            return lambda topic, headers, data: method(topic, headers, data)
        return lambda topic, _headers, data: method(topic, data)
    if callable(serializer):
        function: Any = serializer
        return lambda _topic, _headers, data: function(data)
    raise ConfigurationError(
        f"{option}: {type(serializer).__name__}; expected a function of the data, or an object with "
        "serialize(topic, headers, data)",
        option=option,
    )


def _takes(method: Callable[..., object], count: int) -> bool:
    try:
        inspect.signature(method).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        # Of a method in C there may be no signature; that of the present interface is taken.
        return True
    return True
