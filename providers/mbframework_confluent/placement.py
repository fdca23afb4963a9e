"""Which partition a message goes to: where the caller says, else by key as every Kafka client does, else anywhere.

librdkafka could choose it, but would tell too late which messages share a partition, and with it their order.
Messages with neither partition nor key share one partition within a batch, drawn anew for each batch: record batches
stay large, and the partitions are used evenly.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import murmur2

from mbframework.message import NO_PARTITION, Batch

#: Kafka's own topics. librdkafka does not tell that they are.
OWN_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})

_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Partitions(NamedTuple):
    """Of one topic: those that exist, ascending, and those of them that have a leader now."""

    known: Sequence[int]
    writable: Sequence[int]


def illegal(topic: str) -> str:
    """Why Kafka has no topic of this name; "" where it may have one."""
    if _NAME.fullmatch(topic) and topic not in (".", ".."):
        return ""
    return f"{topic!r} cannot be the name of a topic: expected 1 to 249 of A-Z, a-z, 0-9, '.', '_' and '-'"


def place(batch: Batch, partitions: Mapping[str, Partitions]) -> tuple[list[int], dict[int, str]]:
    """The partition of each message, and index → reason of those that ask for one that is not there.

    :param partitions: of each topic in the batch. A topic that is missing here is skipped: its messages get partition
        -1 and no reason. Where a topic has no writable partition, any is drawn.
    """
    shared = {topic: random.choice(of.writable or of.known) for topic, of in partitions.items()}
    count = len(batch)
    if len(partitions) == 1 and batch.partitions.count(NO_PARTITION) == count:
        [(topic, only)] = partitions.items()
        if batch.topics.count(topic) == count:
            return _by_key(batch.keys, only.known, shared[topic]), {}
    sets = {topic: frozenset(of.known) for topic, of in partitions.items()}
    placed: list[int] = []
    wrong: dict[int, str] = {}
    for index, (topic, key, asked) in enumerate(zip(batch.topics, batch.keys, batch.partitions, strict=True)):
        if topic not in partitions:
            placed.append(NO_PARTITION)
            continue
        known = partitions[topic].known
        if asked != NO_PARTITION:
            placed.append(asked)
            if asked not in sets[topic]:
                wrong[index] = f"topic {topic!r} has no partition {asked}; it has {known[0]} to {known[-1]}"
        else:
            placed.append(shared[topic] if key is None else known[murmur2(key, len(known))])
    return placed, wrong


def _by_key(keys: Sequence[bytes | None], known: Sequence[int], shared: int) -> list[int]:
    """The usual batch: one topic, and no partition is asked for."""
    if keys.count(None) == len(keys):
        return [shared] * len(keys)
    if len(known) == 1:
        return [known[0]] * len(keys)
    count = len(known)
    return [shared if key is None else known[murmur2(key, count)] for key in keys]
