"""One batch on its way to RabbitMQ: what is published when, and what is told of it in the end. Threads: the sender's.

All messages of known topics are published at once, and their confirmations awaited together. The first message of any
other topic goes alone: were it returned, others must not be behind it already. A topic is known once a message of it
was stored on this connection, and no longer when one has failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from pika import exceptions

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch
from mbframework_rabbitmq import RabbitOptions
from mbframework_rabbitmq.confirms import Confirms, Fate
from mbframework_rabbitmq.faults import code, largest, translate
from mbframework_rabbitmq.link import Letter, Link, Listener
from mbframework_rabbitmq.message import names_refusal, properties, queue_refusal, refusal

#: With more known topics all are forgotten, and learned again.
_MOST_KNOWN = 10_000


class Sending(Listener):
    """A batch for a connection.

    :param identity: what stands in front of a message's sequence to make its id.
    :param known: the topics known on this connection; it is kept up to date.
    :param most: bytes of a value; what the broker says of that is in :attr:`largest` afterwards.
    """

    def __init__(
        self, link: Link, options: RabbitOptions, batch: Batch, identity: str, known: set[str], most: int
    ) -> None:
        self.largest = most
        self._link, self._options, self._batch, self._identity, self._known = link, options, batch, identity, known
        self._times = batch.times()
        self._rejected = self._refused()
        #: Indices into the batch of what is published, in order, and those of them that are on their way now.
        self._wanted = [index for index in range(len(batch)) if index not in self._rejected]
        self._under_way: Sequence[int] = ()
        self._confirms = Confirms(1, 0)

    def run(self) -> None:
        """Deliver it.

        :raises SendFailed: ``undelivered`` are a suffix of each topic; ``uncertain`` where an answer did not come.
        :raises ProviderUnusable: a person must act; nothing of the batch was stored.
        """
        topics, wanted, at = self._batch.topics, self._wanted, 0
        while at < len(wanted):
            stop = at
            while stop < len(wanted) and topics[wanted[stop]] in self._known:
                stop += 1
            if stop == at:
                stop += 1
                self._introduce(at)
            self._publish(at, stop)
            at = stop
        if self._rejected:
            raise self._failed("", [], uncertain=False)

    def _introduce(self, at: int) -> None:
        """Declare the queue of a topic that is not known, where that is asked for."""
        if self._options.declare == "no":
            return
        queue = self._options.prefix + self._batch.topics[self._wanted[at]]
        try:
            self._link.declare(queue, self._options.declare)
        except exceptions.AMQPError as error:
            self._raise(translate(error, self._link.place), self._wanted[at:], uncertain=False, cause=error)

    def _publish(self, at: int, stop: int) -> None:
        """Deliver ``wanted[at:stop]``."""
        topics, link = self._batch.topics, self._link
        self._under_way = self._wanted[at:stop]
        self._confirms = confirms = Confirms(link.next_number, stop - at)
        link.listener = self
        error = None
        try:
            link.publish(self._options.exchange, map(self._letter, self._under_way))
            link.wait()
        except exceptions.AMQPError as ended:
            error = ended
        finally:
            link.listener = Listener()
        failed = confirms.undelivered(lambda index: topics[self._under_way[index]])
        if not failed:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._known.add(topics[self._under_way[0]])
            return
        left = [self._under_way[index] for index in failed] + self._wanted[stop:]
        # What was sent alone, and made the broker close the channel, was not stored.
        alone = error is not None and stop - at == 1 and code(error) != 0
        uncertain = not alone and any(confirms.fates[index] is not Fate.RETURNED for index in failed)
        self._raise(self._reason(error), left, uncertain=uncertain, cause=error)

    def _reason(self, error: exceptions.AMQPError | None) -> SendFailed | ProviderUnusable:
        """Why not all of what is under way was stored."""
        link, fates = self._link, self._confirms.fates
        if Fate.RETURNED in fates:
            key = self._options.prefix + self._batch.topics[self._under_way[fates.index(Fate.RETURNED)]]
            place = f"binding of exchange {self._options.exchange!r} for" if self._options.exchange else "queue"
            return ProviderUnusable(
                f"{link.place}: there is no {place} {key!r}; create it, or correct exchange, prefix or declare",
                provider="rabbitmq",
            )
        if error is not None:
            self.largest = largest(error) or self.largest
            return translate(error, link.place)
        topic = self._batch.topics[self._under_way[fates.index(Fate.REFUSED)]]
        return SendFailed(
            f"{link.place}: a queue refused messages of topic {topic!r}: it is full (max-length with overflow"
            " reject-publish), or has failed; let consumers empty it, or see the broker's log",
            provider="rabbitmq",
        )

    def _raise(
        self, told: SendFailed | ProviderUnusable, left: list[int], *, uncertain: bool, cause: BaseException | None
    ) -> None:
        self._known.difference_update(self._batch.topics[index] for index in left)
        if isinstance(told, ProviderUnusable) and len(left) == len(self._batch) and not uncertain:
            raise told from cause
        # Where something was stored the rest comes again, fails at its first message, and blocks the lane then: a
        # ProviderUnusable now would have what was stored repeated.
        raise self._failed(str(told), left, uncertain=uncertain) from cause

    def _failed(self, said: str, left: list[int], *, uncertain: bool) -> SendFailed:
        if self._rejected:
            count, first = len(self._rejected), next(iter(self._rejected.values()))
            refused = f"RabbitMQ would not take {count} of {len(self._batch)} messages: {first}"
            said = f"{refused}; {said}" if said else refused
        return SendFailed(said, undelivered=left, rejected=self._rejected, uncertain=uncertain, provider="rabbitmq")

    # -- messages ------------------------------------------------------------------------------

    def _letter(self, index: int) -> Letter:
        batch = self._batch
        value = batch.values[index]
        told = properties(
            f"{self._identity}{batch.sequences[index]}",
            value,
            batch.keys[index],
            batch.headers[index] if batch.header_blocks[index] else (),
            self._times[index],
            batch.partitions[index],
        )
        return Letter(self._options.prefix + batch.topics[index], value or b"", told)

    def _refused(self) -> dict[int, str]:
        """Messages that RabbitMQ can never take, and why."""
        batch, prefix = self._batch, self._options.prefix
        declares = self._options.declare != "no"
        no_queue = {topic: queue_refusal(prefix + topic) for topic in set(batch.topics)} if declares else {}
        rejected: dict[int, str] = {}
        for index, block in enumerate(batch.header_blocks):
            topic = batch.topics[index]
            why = no_queue.get(topic) or refusal(
                prefix + topic, batch.values[index], batch.keys[index], block,
                largest=self.largest, frame=self._link.frame,
            )  # fmt: skip
            if why := why or (names_refusal(batch.headers[index]) if block else ""):
                rejected[index] = why
        return rejected

    # -- what the broker says ------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        return not self._confirms.open

    def confirm(self, number: int, *, multiple: bool, stored: bool) -> None:
        self._confirms.confirm(number, multiple=multiple, stored=stored)

    def returned(self, message_id: str) -> None:
        index = bisect_left(self._batch.sequences, int(message_id.rpartition(":")[2]))
        self._confirms.returned(bisect_left(self._under_way, index))
