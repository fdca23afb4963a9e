"""One batch on its way to an MQTT broker: what is published when, and what is told of it in the end.

As many messages are under way at once as the window allows. The first message on a connection goes alone: where it is
refused for want of a right, the fate of others must not be in doubt. Where subscribers are required so does the first
message of each topic: were nobody subscribed, others must not be heard before it. Threads: the sender's.
"""

from __future__ import annotations

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework_mqtt import MqttOptions
from mbframework_mqtt.faults import REJECTED, UNHEARD, Broken, translate
from mbframework_mqtt.link import Link, Listener
from mbframework_mqtt.message import Property, properties, refusal

#: With more known topics all are forgotten, and learned again.
_MOST_KNOWN = 10_000
_FAILURE = 128


class Sending(Listener):
    """A batch for a connection.

    :param identity: what stands in front of a message's sequence to make its id.
    :param known: the topics known on this connection to have subscribers; it is kept up to date.
    :param ask_why: the last connection ended with its first message: that goes with QoS 1 now, since only then paho
        tells why a message is refused.
    """

    def __init__(
        self, link: Link, options: MqttOptions, batch: Batch, identity: str, known: set[str], *, ask_why: bool
    ) -> None:
        self._ask_why = ask_why
        self._link, self._options, self._batch, self._known = link, options, batch, known
        self._strict = options.subscribers == "required"
        self._rejected: dict[int, str] = {}
        self._properties = self._prepared(identity)
        self._wanted = [index for index in range(len(batch)) if index not in self._rejected]
        #: Of what was published and not answered: number → index.
        self._under_way: dict[int, int] = {}
        self._delivered: set[int] = set()
        #: What was refused and may be tried again: index → code.
        self._refused: dict[int, int] = {}

    def run(self) -> None:
        """Deliver it.

        :raises SendFailed: ``undelivered`` are a suffix of each topic; ``uncertain`` where an answer did not come.
        :raises ProviderUnusable: a person must act; nothing of the batch was taken.
        """
        link, batch = self._link, self._batch
        error: Broken | None = None
        published = 0
        link.listener = self
        try:
            patience = link.patience()
            while published < len(self._wanted) or self._under_way:
                while not self._refused and published < len(self._wanted) and self._may_follow(published):
                    index = self._wanted[published]
                    qos = 1 if self._ask_why and not link.proven else int(self._options.qos)
                    topic = self._options.prefix + batch.topics[index]
                    number = link.publish(topic, batch.values[index] or b"", self._properties[index], qos)
                    self._under_way[number] = index
                    published += 1
                if self._refused and not self._under_way:
                    break
                patience = link.hear(patience)
            if self._options.confirm and self._delivered:
                link.confirm()
        except Broken as broken:
            error = broken
            if self._options.confirm:
                # A broker that was killed may not have written what it had just acknowledged.
                self._delivered.clear()
        finally:
            link.listener = Listener()
        left = self._left()
        if left or self._rejected:
            self._raise(left, error, published)

    def _may_follow(self, published: int) -> bool:
        if len(self._under_way) >= self._link.window:
            return False
        if not self._under_way:
            return True
        if not self._strict:
            return self._link.proven
        # Behind the first message of a topic nothing goes until it was heard.
        first = next(iter(self._under_way.values()))
        known = self._known
        return self._batch.topics[first] in known and self._batch.topics[self._wanted[published]] in known

    def answered(self, number: int, code: int) -> None:
        index = self._under_way.pop(number, None)
        if index is None:
            return
        topic = self._batch.topics[index]
        if code in REJECTED:
            self._rejected[index] = f"the broker refused {REJECTED[code]} (reason {code})"
        elif code >= _FAILURE or (code == UNHEARD and self._strict):
            self._refused[index] = code
        else:
            self._delivered.add(index)
            self._link.proven = True
            if self._strict:
                if len(self._known) > _MOST_KNOWN:
                    self._known.clear()
                self._known.add(topic)

    def _left(self) -> list[int]:
        """The indices that were not delivered and, of the same topic, all behind one of these."""
        broken: set[str] = set()
        left = []
        for index in self._wanted:
            topic = self._batch.topics[index]
            if index in self._rejected or (index in self._delivered and topic not in broken):
                continue
            broken.add(topic)
            left.append(index)
        return left

    def _raise(self, left: list[int], error: Broken | None, published: int) -> None:
        batch, place = self._batch, self._link.place
        self._known.difference_update(batch.topics[index] for index in left)
        told: SendFailed | ProviderUnusable | None = None
        if self._refused:
            index, code = next(iter(self._refused.items()))
            topic = self._options.prefix + batch.topics[index]
            if code == UNHEARD:
                told = ProviderUnusable(
                    f"{place}: nobody is subscribed to {topic!r}; start a subscriber, or set subscribers=optional",
                    provider="mqtt",
                )
            else:
                told = translate(f"it refused a message to {topic!r}", code, place)
        elif error is not None:
            told = translate(str(error), error.code, place, error.__cause__)
        sent = set(self._wanted[:published]).difference(self._refused)
        uncertain = not sent.isdisjoint(left)
        if isinstance(told, ProviderUnusable) and len(left) == len(batch) and not uncertain:
            raise told from error
        said = str(told or "")
        if self._rejected:
            count, first = len(self._rejected), next(iter(self._rejected.values()))
            refused = f"MQTT would not take {count} of {len(batch)} messages: {first}"
            said = f"{refused}; {said}" if said else refused
        # Where something was taken the rest comes again, fails at its first message, and blocks the lane then.
        raise SendFailed(
            said, undelivered=left, rejected=self._rejected, uncertain=uncertain, provider="mqtt"
        ) from error

    def _prepared(self, identity: str) -> list[list[Property]]:
        """The user properties of each message; what can never be taken is rejected here."""
        batch, prefix, most = self._batch, self._options.prefix, self._link.largest
        prepared = []
        for index, time in enumerate(batch.times()):
            headers = batch.headers[index] if batch.header_blocks[index] else ()
            value = batch.values[index]
            found = properties(
                f"{identity}{batch.sequences[index]}", value, batch.keys[index], headers, time, batch.partitions[index]
            )
            if why := refusal(prefix + batch.topics[index], value, found, headers, most):
                self._rejected[index] = why
            prepared.append(found)
        return prepared
