"""OpenTelemetry's trace context in the headers of messages, with opentelemetry-api.

::

    buffer.write("orders", value, headers=with_trace())

    with tracer.start_as_current_span("handle", context=trace_of(headers)):
        ...

Promises: the context that is current when the message is written travels with it, over disk, restarts and any provider
that keeps headers; the propagator is the one that the program has set (W3C ``traceparent``, ``tracestate`` and
``baggage``, unless told otherwise). Without a current span headers stay as they were. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mbframework.errors import MessageError
from mbframework.intake import Data, Headers

try:
    from opentelemetry import propagate
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import Getter, Setter
except ModuleNotFoundError as error:
    raise ImportError(
        "trace context in headers needs opentelemetry-api, not installed here; run: pip install 'mbframework[otel]'",
        name=error.name,
    ) from error

_Pairs = list[tuple[str, Data]]


class _Write(Setter[_Pairs]):
    def set(self, carrier: _Pairs, key: str, value: str) -> None:
        # What was there is of an earlier hop.
        carrier[:] = [pair for pair in carrier if pair[0].lower() != key.lower()]
        carrier.append((key, value.encode()))


class _Read(Getter[Mapping[str, list[str]]]):
    def get(self, carrier: Mapping[str, list[str]], key: str) -> list[str] | None:
        return carrier.get(key.lower())

    def keys(self, carrier: Mapping[str, list[str]]) -> list[str]:
        return list(carrier)


def with_trace(headers: Headers | None = None, context: Context | None = None) -> _Pairs:
    """The headers, and those of the trace: for ``write()``, or kafka-python's ``send()``.

    :param context: another one than the current.

    :raises MessageError: the headers are not pairs.
    """
    given = headers.items() if isinstance(headers, Mapping) else headers or ()
    try:
        pairs: _Pairs = [(name, value) for name, value in given]
    except (TypeError, ValueError):
        raise MessageError("headers are not pairs; expected (str, bytes or None)") from None
    propagate.inject(pairs, context=context, setter=_Write())
    return pairs


def trace_of(headers: Iterable[tuple[str, bytes | str | None]] | None) -> Context:
    """The context that came with a message, for the consumer's spans; an empty one where none did. Never raises for
    what the headers hold."""
    found: dict[str, list[str]] = {}
    for name, value in headers or ():
        if value is not None:
            text = value if isinstance(value, str) else value.decode(errors="replace")
            found.setdefault(name.lower(), []).append(text)
    return propagate.extract(found, context=Context(), getter=_Read())
