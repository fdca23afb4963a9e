"""What happens to three brokers while lanes write to them: each scenario is a function of a :class:`Stage`.

The traffic is there already when a scenario begins, and goes on for a while when it has ended. It leaves the cluster as
it found it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mbframework.testing.kafka_admin import KafkaAdmin
from tests.torture.guarded_cluster import GuardedCluster
from tests.torture.guarded_lane import PARTITIONS, GuardedLane
from tests.torture.verdict import Fault

#: Of what is written, the part that a quota lets through.
_QUOTA_SHARE = 0.2
#: Bytes of a message in a record batch, about.
_MESSAGE_BYTES = 115


@dataclass
class Stage:
    """What a scenario can do; ``span`` is the length of an outage, in seconds. One thread."""

    cluster: GuardedCluster
    lanes: Sequence[GuardedLane]
    faults: list[Fault]
    draw: random.Random
    span: float
    rate: float
    say: Callable[[str], None]

    def did(self, what: str) -> None:
        """Something is done now, after which a batch may be repeated where an answer was ambiguous."""
        self.say(what)
        self.faults.append(Fault(time.time() * 1000, what))

    def rest(self, seconds: float | None = None) -> None:
        """Let the traffic go on, for a span unless told otherwise; the writers must live."""
        until = time.monotonic() + (self.span if seconds is None else seconds)
        while (left := until - time.monotonic()) > 0:
            for lane in self.lanes:
                lane.look()
            time.sleep(min(left, 0.5))  # traffic for its own sake: there is nothing to wait for

    def in_sync(self) -> None:
        """Wait until the cluster is whole."""
        with self.admin() as admin:
            for lane in self.lanes:
                admin.wait_in_sync(lane.topic, self.cluster.replicas)

    def leader(self) -> int:
        """The node that leads a partition of some topic."""
        with self.admin() as admin:
            return self.draw.choice(admin.partitions(self.draw.choice(self.lanes).topic)).leader

    def admin(self) -> KafkaAdmin:
        """For one occasion."""
        return KafkaAdmin(self.cluster.bootstrap)

    def make_topics(self) -> None:
        """Each lane's."""
        with self.admin() as admin:
            for lane in self.lanes:
                settings = {"message.timestamp.type": "LogAppendTime"}
                admin.create_topic(lane.topic, PARTITIONS, self.cluster.replicas, settings)

    def grant(self) -> None:
        """The right to write: to each lane's user, for its topic, which need not be there."""
        with self.admin() as admin:
            for lane in self.lanes:
                admin.allow(lane.user, lane.topic)

    def delete_topics(self) -> None:
        """Each lane's."""
        with self.admin() as admin:
            for lane in self.lanes:
                admin.delete_topic(lane.topic)
                # All brokers know within a second.
                lane.deleted_by = lane.reported + round(self.rate)


@dataclass(frozen=True)
class Scenario:
    """``act`` is what happens. ``topics``: they are there before the writers begin. ``partitions``: at the end."""

    name: str
    act: Callable[[Stage], None]
    topics: bool = True
    partitions: int = PARTITIONS


def rolling_restart(stage: Stage) -> None:
    """Each broker is shut down in order and started again, the next one when the cluster is whole."""
    nodes = list(stage.cluster.nodes)
    stage.draw.shuffle(nodes)
    for node in nodes:
        stage.did(f"broker {node} is shut down")
        stage.cluster.nodes[node].shut_down()
        stage.cluster.start_nodes([node])
        stage.did(f"broker {node} is back")
        stage.in_sync()


def leader_lost(stage: Stage) -> None:
    """The leader of a partition is killed, and comes back after a span."""
    node = stage.leader()
    stage.did(f"broker {node}, which leads, is killed")
    stage.cluster.kill([node])
    stage.rest()
    stage.cluster.start_nodes([node])
    stage.did(f"broker {node} is back")
    stage.in_sync()


def leader_frozen(stage: Stage) -> None:
    """The leader of a partition is frozen until another one leads; thawed, it still thinks that it does."""
    node = stage.leader()
    stage.did(f"broker {node}, which leads, is frozen")
    stage.cluster.nodes[node].freeze()
    stage.rest()
    stage.cluster.nodes[node].thaw()
    stage.did(f"broker {node} is thawed")
    stage.in_sync()


def two_of_three_lost(stage: Stage) -> None:
    """Two brokers are killed: nothing can be acknowledged, everything is accepted all the same."""
    nodes = stage.draw.sample(list(stage.cluster.nodes), 2)
    stage.did(f"brokers {nodes[0]} and {nodes[1]} are killed")
    stage.cluster.kill(nodes)
    began, before = time.monotonic(), {lane: lane.reported for lane in stage.lanes}
    for lane in stage.lanes:
        lane.wait_until("buffering", lambda lane: lane.state == "buffering")
    stage.rest()
    lasted = time.monotonic() - began
    for lane in stage.lanes:
        accepted = lane.reported - before[lane]
        if accepted < stage.rate * lasted / 2:
            lane.breach(f"only {accepted} messages were accepted in {lasted:.1f} s with two of three brokers down")
    stage.did("both are started again")
    stage.cluster.start_nodes(nodes)
    stage.did("both are back")
    stage.in_sync()


def replicas_missing(stage: Stage) -> None:
    """The topics ask for more replicas in sync than there are: brokers refuse, and take it when there are enough."""
    node = stage.leader()
    with stage.admin() as admin:
        for lane in stage.lanes:
            admin.set_topic(lane.topic, {"min.insync.replicas": "3"})
    stage.did(f"three replicas must be in sync, and broker {node} is killed")
    stage.cluster.kill([node])
    for lane in stage.lanes:
        lane.wait_until("buffering", lambda lane: lane.state == "buffering")
    stage.rest()
    stage.cluster.start_nodes([node])
    stage.did(f"broker {node} is back")
    stage.in_sync()


def partitions_added(stage: Stage) -> None:
    """The topics get twice as many partitions, so that most keys move; the clients find out by themselves."""
    with stage.admin() as admin:
        for lane in stage.lanes:
            admin.grow(lane.topic, 2 * PARTITIONS, stage.cluster.replicas)
    stage.did(f"{2 * PARTITIONS} partitions instead of {PARTITIONS}")
    stage.rest()


def quota(stage: Stage) -> None:
    """Each broker lets the users write only a part of what they write, and after a span all of it again."""
    share = round(_QUOTA_SHARE * stage.rate * _MESSAGE_BYTES / len(stage.cluster.nodes))
    with stage.admin() as admin:
        for lane in stage.lanes:
            admin.limit(lane.user, share)
        stage.did(f"a quota of {share:,.0f} bytes/s for each user, at each broker")
        before = {lane: (lane.reported, lane.look().delivered) for lane in stage.lanes}
        stage.rest(3 * stage.span)
        for lane in stage.lanes:
            accepted, delivered = lane.reported - before[lane][0], lane.look().delivered - before[lane][1]
            stage.say(f"{lane.scheme}: under the quota {accepted:,} were accepted and {delivered:,} delivered")
            if delivered > 0.8 * accepted:
                lane.breach(f"the quota slowed nothing: {delivered} of {accepted} were delivered")
            admin.limit(lane.user, None)
    stage.did("no quota any more")


def right_revoked(stage: Stage) -> None:
    """The users lose the right to write, and get it back when every lane was blocked for a span."""
    with stage.admin() as admin:
        for lane in stage.lanes:
            admin.revoke(lane.user, lane.topic)
        stage.did("the right to write is revoked")
        for lane in stage.lanes:
            lane.must_show_block(lane.topic, "grant Write")
        stage.rest()
        for lane in stage.lanes:
            lane.must_show_block(lane.topic, "grant Write")
            admin.allow(lane.user, lane.topic)
    stage.did("the right to write is granted")


def password_withdrawn(stage: Stage) -> None:
    """The users' passwords are changed and, when every lane was blocked for a span, changed back."""
    with stage.admin() as admin:
        for lane in stage.lanes:
            admin.set_password(lane.user, "another")
        stage.did("the passwords are changed")
        for lane in stage.lanes:
            lane.must_show_block("check user name, password and mechanism")
        stage.rest()
        for lane in stage.lanes:
            admin.set_password(lane.user, stage.cluster.users[lane.user])
    stage.did("the passwords are changed back")


def topic_not_there(stage: Stage) -> None:
    """The topics are made only when every lane was blocked for a span."""
    for lane in stage.lanes:
        lane.must_show_block(lane.topic, "does not exist")
    stage.rest()
    stage.make_topics()
    stage.did("the topics are made")


def topic_deleted(stage: Stage) -> None:
    """The topics are deleted under way, and made anew when every lane was blocked for a span."""
    stage.delete_topics()
    stage.did("the topics are deleted")
    for lane in stage.lanes:
        lane.must_show_block(lane.topic, "does not exist")
    stage.rest()
    stage.make_topics()
    stage.did("the topics are made anew")


SCENARIOS: Mapping[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("rolling restart", rolling_restart),
        Scenario("leader lost", leader_lost),
        Scenario("leader frozen", leader_frozen),
        Scenario("two of three lost", two_of_three_lost),
        Scenario("replicas missing", replicas_missing),
        Scenario("partitions added", partitions_added, partitions=2 * PARTITIONS),
        Scenario("quota", quota),
        Scenario("right revoked", right_revoked),
        Scenario("password withdrawn", password_withdrawn),
        Scenario("topic not there", topic_not_there, topics=False),
        Scenario("topic deleted", topic_deleted),
    )
}
