"""What an engine tells of its lane: the state, the status of this moment, the content of the status files.

Promises: asks, and changes nothing. Takes the ledger's and the lane's lock, in that order, for moments only.

Any thread.
"""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mbframework import pause, speedups
from mbframework.history import Sent, Written
from mbframework.narration import clock_jump, instant
from mbframework.status import LaneStatus, SeekPosition, letters_kept, oldest_on_disk, read_lane

if TYPE_CHECKING:
    from mbframework.engine import Engine
    from mbframework.files import Files
    from mbframework.ledger import Ledger
    from mbframework.observers import ObserverHub
    from mbframework.outlet import Outlet
    from mbframework.sender import Sender


class Narrator:
    """See the module."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def state(self) -> tuple[str, str]:
        """(state, reason) as this process sees it."""
        engine = self._engine
        lane, sender, outlet = engine.lane, engine.sender, engine.outlet
        if lane.disk_error:
            return "disk-error", lane.disk_error
        if sender is None or outlet is None:
            return "buffering", "this process only writes"
        if outlet.blocked:
            return "blocked", outlet.blocked
        if lane.full and (engine.config.on_full != "prune" or engine.housekeeper.in_vain > 1):
            return "blocked", lane.full
        if sender.paused:
            stored = pause.read(engine.files, engine.path)
            return "paused", stored.words if stored is not None else "paused by request"
        trouble = sender.trouble.text if sender.trouble.count else ""
        if not sender.up:
            return "buffering", trouble or "the provider is being opened"
        if lane.live:
            return "live", ""
        recently = engine.files.boot_ns() - outlet.empty_at < engine.config.live_wait * 1e9
        if lane.mode == "always" and outlet.empty_at and (recently or not lane.waiting(engine.settled())):
            return "live", ""
        if engine.ledger is not None and engine.ledger.settled == engine.settled_at_leaving:
            # It was up when it did not keep up; since then it has not acknowledged anything.
            return "buffering", engine.why_left
        return "draining", sender.trouble.text and f"after: {sender.trouble.text}"

    def status(self) -> LaneStatus:
        """The lane as this process knows it."""
        engine = self._engine
        lane, ledger = engine.lane, engine.ledger
        if ledger is None:
            return read_lane(engine.files, engine.path, engine.name)
        with ledger.lock, lane.lock:
            slot = ledger.slot
            bits = slot.settled
            in_memory = lane.memory_messages()
            ahead = lane.settled_in_memory()
            spooled = max(0, lane.spool.ordinal - ledger.ordinal - bits)
            top = lane.head.slot
            marks = lane.flight.marks if lane.flight is not None and lane.flight.in_memory else []
            extra = {name: marks.count(name) for name in ("delivered", "expired", "dead")} if ahead else {}
            pending = ledger.outlook(lane.flight_spilled)
            flight = ledger.flight
            lost_disk, returned = slot.lost, slot.returned + top.returned
            used = sum(segment.size for segment in lane.spool.segments)
            counts: dict[str, Any] = {
                "accepted": lane.accepted,
                "delivered": slot.delivered + extra.get("delivered", 0),
                "pruned": slot.pruned + pending.get("pruned", 0),
                "expired": slot.expired + extra.get("expired", 0),
                "dead": slot.dead + extra.get("dead", 0),
                "purged": slot.purged + pending.get("purged", 0),
                "lost_live": top.lost_live,
                "lost_linger": top.lost_linger,
                "resident_messages": spooled + in_memory - ahead - pending.get("spooled", 0),
            }
            seek = SeekPosition(slot.segment, slot.next, slot.offset)
            oldest = flight.acceptances()[0] if flight is not None else None
            channel_oldest = lane.channel.oldest if lane.live and lane.channel.items else None
            memory_bytes = lane.channel.bytes + lane.flight_bytes if lane.live else 0
            tail = lane.spool.tail()
            closed_sizes = [
                segment.size for segment in lane.spool.segments if segment.end is not None and segment.end > slot.next
            ]
        sender, outlet = engine.sender, engine.outlet
        trouble = sender.trouble if sender is not None else None
        age = None
        if counts["resident_messages"]:
            if oldest is not None and outlet is not None:
                age = outlet.age_ns(oldest) / 1e9
            elif channel_oldest is not None:
                age = (engine.files.boot_ns() - channel_oldest) / 1e9
            else:
                age = oldest_on_disk(engine.files, engine.path, slot)
        state, reason = self.state()
        began = engine.reporter.since_boot_ns
        stored = pause.read(engine.files, engine.path)

        def at(boot_ns: int) -> float:
            return instant(engine.files, boot_ns)

        return LaneStatus(
            name=engine.name, mode=lane.mode, state=state, state_since=at(began) if began else None,
            state_reason=reason, clock_jump_s=clock_jump(engine.reporter.since, at(began)) if began else 0.0,
            dead_letters=letters_kept(engine.files, engine.path),
            lost=top.lost_live + top.lost_linger + lost_disk + returned, lost_disk=lost_disk, returned=returned,
            resident_bytes=(sum(closed_sizes) + tail if spooled else 0) + memory_bytes, disk_bytes=used,
            segments=len(lane.spool.segments), oldest_age_s=age,
            last_error=(outlet.blocked if outlet else "") or (trouble.text if trouble else "") or None,
            last_error_at=at(trouble.last) if trouble and trouble.last else None,
            failures=trouble.count if trouble else 0,
            failing_since=at(trouble.began) if trouble and trouble.count else None,
            retry_at=at(trouble.retry_at) if trouble and trouble.retry_at else None,
            seek=seek, provider=engine.source.display if engine.source else "", heartbeat_age_s=0.0,
            writer_pid=os.getpid(), sender_pid=os.getpid() if sender else None,
            paused=stored is not None or (sender is not None and sender.paused),
            paused_since=stored.at or None if stored is not None else None,
            order_violations=outlet.order_violations if outlet else 0,
            acknowledged_lost=sender.acknowledged.lost if sender else 0,
            facts=sender.facts if sender else {}, **counts,
        )  # fmt: skip

    def written(self) -> Written:
        """The writer's counters now, for its ring of history."""
        engine = self._engine
        lane, ledger = engine.lane, engine.ledger
        if ledger is None:
            slot = engine.seek()
            gone, position = (slot.ordinal + slot.settled, slot.next) if slot is not None else (0, 0)
            gone += engine.pruned_ahead(slot) if slot is not None else 0
            with lane.lock:
                waiting = max(0, lane.spool.ordinal - gone) + lane.memory_messages()
                on_disk = lane.spool.size_from(position)
            return Written(lane.accepted, lane.accepted_bytes, waiting, on_disk)
        with ledger.lock, lane.lock:
            waiting = max(0, lane.spool.ordinal - ledger.ordinal - ledger.slot.settled) + lane.memory_messages()
            waiting -= lane.settled_in_memory() + ledger.outlook(lane.flight_spilled).get("spooled", 0)
            memory = lane.channel.bytes + lane.flight_bytes if lane.live else 0
            on_disk = lane.spool.size_from(ledger.next)
        return Written(lane.accepted, lane.accepted_bytes, waiting, on_disk + memory)

    def writer_section(self) -> dict[str, Any]:
        """The content of the writer's status file."""
        engine = self._engine
        lane, budget = engine.lane, engine.budget
        counters = lane.spool.counters
        return heartbeat_section(engine.files, engine.name, self.state()[0], engine.config.status_interval) | {
            "buffer": {"id": engine.directory.buffer_id.hex(), "created": engine.directory.created},
            "mode": lane.mode,
            "sends": lane.sends,
            "live": lane.live,
            "epoch": lane.head.slot.epoch,
            "accepted": lane.accepted,
            "accepted_bytes": lane.accepted_bytes,
            "live_accepted": lane.live_accepted,
            "spooled": lane.spool.ordinal,
            "inline_prepared": counters.inline_prepared,
            "sealed": counters.sealed,
            "disk_error": lane.disk_error,
            "full": lane.full,
            "on_full": engine.config.on_full,
            "limits": {
                # What was there before the limit, and is over it, fills the lane and no more.
                "total_size": max(lane.spool.used(), lane.spool.most()),
                "segment_size": lane.spool.limits.segment_size,
                "max_segments": lane.spool.limits.max_segments,
                "shared_total_size": budget.total if budget is not None else None,
                "shared_used": budget.held() if budget is not None else None,
            },
            "file_system": engine.directory.file_system,
            "mapped": engine.directory.mapped,
            "compiled": speedups.compiled is not None,
            "why_plain": speedups.why_plain,
            "events_dropped": engine.writer_events.dropped,
        }

    def sender_section(self) -> dict[str, Any]:
        """The content of the sender's status file."""
        engine = self._engine
        common = heartbeat_section(engine.files, engine.name, self.state()[0], engine.config.status_interval)
        if engine.sender is None or engine.outlet is None:
            return common
        return common | sending_section(engine.sender, engine.outlet, engine.hub)


def sent(sender: Sender, ledger: Ledger) -> Sent:
    """A sender's counters now, for its ring of history."""
    with ledger.lock:
        slot = ledger.slot
        discarded = slot.pruned + slot.expired + slot.dead + slot.purged + slot.lost + slot.returned
        return Sent(slot.delivered, sender.traffic.bytes, discarded)


def heartbeat_section(files: Files, lane: str, state: str, interval: float) -> dict[str, Any]:
    """What every status file begins with; it is written anew each ``interval`` seconds."""
    return {
        "schema": 1,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot_id": files.boot_id().hex(),
        "heartbeat_boot_ns": files.boot_ns(),
        "heartbeat": files.wall_ns() / 1e9,
        "interval": interval,
        "lane": lane,
        "state": state,
    }


def sending_section(sender: Sender, outlet: Outlet, hub: ObserverHub | None) -> dict[str, Any]:
    """What a sender tells of itself, wherever it runs."""
    trouble, traffic = asdict(sender.trouble), asdict(sender.traffic)
    for section, name in ((trouble, "began"), (trouble, "last"), (trouble, "retry_at"), (traffic, "last_delivered")):
        boot_ns = section[name]
        section[name] = instant(sender.files, boot_ns) if boot_ns else 0.0
        section[f"{name}_boot_ns"] = boot_ns
    return {
        "provider": sender.source.display,
        "up": sender.up,
        "paused": sender.paused,
        "blocked": outlet.blocked,
        "trouble": trouble,
        "traffic": traffic,
        "acknowledged": sender.acknowledged.section(),
        "order_violations": outlet.order_violations,
        "facts": dict(sender.facts),
        "observer_events_dropped": hub.dropped if hub is not None else 0,
    }
