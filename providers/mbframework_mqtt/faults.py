"""An MQTT broker's refusals as ours: is it tried again, or must a person act? Pure functions.

Numbers are the reason codes of MQTT 5.
"""

from __future__ import annotations

import ssl

from mbframework.errors import ProviderUnusable, SendFailed

#: Nobody was subscribed; the message was taken, and thrown away.
UNHEARD = 16
#: What is wrong with the message itself.
REJECTED = {144: "its topic", 149: "its size", 153: "its payload"}

#: Only a person can change these: what helps.
_BLOCKED = {
    132: "the broker does not speak MQTT 5; give one that does",
    133: "the broker does not take this client_id; give another",
    134: "check user name and password",
    135: "check user name and password, and the right to publish to the topic",
    138: "this client is banned; ask who runs the broker",
    140: "the broker asks for another way to authenticate",
    146: "the broker refused it, and with qos=2 the client is not told why: check the right to publish to the topic,"
    " or set qos=1 to see the reason",
    154: "the broker keeps no messages; set retain=false",
    155: "the broker does not have this quality of service; set qos=1",
    156: "the broker sends us elsewhere; give the other broker's address",
    157: "the broker sends us elsewhere; give the other broker's address",
}
_RETRIED = {
    142: "another client has connected with our client_id: is a copy of the buffer's directory in use, or do several"
    " lanes share one client_id?",
    151: "a quota of the broker is used up",
}


class Broken(Exception):
    """The connection is of no use any more, or was not made; ``code`` is the broker's reason, or 0."""

    def __init__(self, said: str, code: int = 0) -> None:
        super().__init__(said)
        self.code = code


def translate(said: str, code: int, where: str, cause: BaseException | None = None) -> SendFailed | ProviderUnusable:
    """What the broker, or the network, said, with the next step."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ProviderUnusable(
            f"{where}: its certificate was refused: {cause.verify_message}; check tls_ca and the host name",
            provider="mqtt",
        )
    if code in _BLOCKED:
        return ProviderUnusable(f"{where}: {said} ({code}); {_BLOCKED[code]}", provider="mqtt")
    advice = f" ({code}); {_RETRIED[code]}" if code in _RETRIED else ""
    return SendFailed(f"{where}: {said}{advice}", provider="mqtt")
