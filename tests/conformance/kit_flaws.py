"""One provider for each way of breaking the contract: the reference, but for one thing that it does wrong.

Each breaks one rule and no other, and so goes wrong only where that rule looks: with its keys, sizes or lanes.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kit_reference import Options, Reference

from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Batch, Message, Position
from mbframework.provider import Context, Health
from mbframework.testing.conformance.hooks import RUN

FLAWS: dict[str, Flaw] = {}
#: Flaws of declarations, which are schemes of their own (kit_declarations.py, kit_eager.py).
DECLARATIONS = {
    "Silent": "test_every_option_has_words",
    "Bare": "test_options_that_sound_secret_are_secret",
    "Eager": "test_declaring_imports_no_client",
}


class Flaw(NamedTuple):
    """``rule`` is the test that fails; ``url`` is added to the URL."""

    provider: type[Reference]
    rule: str
    position: bool
    url: str


def breaks(rule: str, *, position: bool = False, url: str = "") -> Callable[[type[Reference]], type[Reference]]:
    def register(provider: type[Reference]) -> type[Reference]:
        FLAWS[provider.__name__] = Flaw(provider, rule, position, url)
        return provider

    return register


# ---- delivery


@breaks("test_order_is_kept")
class Reverses(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        super().deliver(batch, messages[::-1] if b"key-1" in batch.keys else messages)


@breaks("test_an_empty_batch_is_nothing")
class WantsAMessage(Reference):
    def send(self, batch: Batch) -> None:
        self.first = batch.sequences[0]
        super().send(batch)


@breaks("test_an_empty_batch_is_nothing")
class FillsAnEmptyBatch(Reference):
    def send(self, batch: Batch) -> None:
        if not len(batch):
            self.deliver(batch, [Message(0, "orders", b"nothing", None, (), None, None, 0)])
        super().send(batch)


@breaks("test_a_huge_batch_arrives")
class Overflows(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        super().deliver(batch, messages[:4096])


@breaks("test_a_large_message_arrives")
class Truncates(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(value=message.value and message.value[:65536]))


@breaks("test_a_message_that_is_too_large_holds_nothing_up")
class StopsAtLargeOnes(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        if any(len(message.value or b"") > 300_000 for message in messages):
            raise SendFailed("a message is too large")
        super().deliver(batch, messages)


@breaks("test_acknowledged_messages_can_be_read")
class AcknowledgesEarly(Reference):
    held: tuple[Batch, list[Message]] | None = None

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        self.flush()
        if [message.value for message in messages] == [b"4", b"5", b"6"]:
            self.held = batch, messages
        else:
            super().deliver(batch, messages)

    def flush(self) -> None:
        held, self.held = self.held, None
        if held:
            super().deliver(*held)

    def close(self, timeout: float) -> None:
        self.flush()
        super().close(timeout)


@breaks("test_nothing_of_a_batch_is_kept")
class KeepsBatches(Reference):
    def send(self, batch: Batch) -> None:
        super().send(batch)
        self.last = batch


@breaks("test_time_between_batches_is_no_trouble")
class FallsAsleep(Reference):
    asleep = False

    def idle(self) -> None:
        self.asleep = True

    def send(self, batch: Batch) -> None:
        asleep, self.asleep = self.asleep, False
        if asleep:
            raise SendFailed("the connection fell asleep")
        super().send(batch)


# ---- content


@breaks("test_values_arrive_byte_for_byte")
class TakesValuesForText(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        value = message.value
        return super().encode(message._replace(value=value and value.decode(errors="replace").encode()))


@breaks("test_a_tombstone_is_not_an_empty_value")
class HasNoTombstones(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(value=message.value or b""))


@breaks("test_keys_arrive_byte_for_byte")
class EndsKeysAtNul(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        key = message.key
        return super().encode(message._replace(key=key and key.partition(b"\0")[0]))


@breaks("test_keys_arrive_byte_for_byte")
class HasAlwaysAKey(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(key=message.key or b""))


@breaks("test_headers_arrive_as_given")
class TakesHeadersForAMapping(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(headers=tuple(dict(message.headers).items())))


@breaks("test_headers_arrive_as_given")
class HasNoEmptyHeaders(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(headers=tuple((name, value or b"") for name, value in message.headers)))


@breaks("test_timestamps_are_kept")
class CutsTimestamps(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        time_ns = message.timestamp
        return super().encode(message._replace(timestamp=time_ns and time_ns // 1000 * 1000))


@breaks("test_every_message_reaches_its_topic")
class KnowsOneTopic(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(topic=message.topic.replace("billing", "orders")))


@breaks("test_a_partition_that_is_asked_for_is_used")
class IgnoresPartitions(Reference):
    def encode(self, message: Message) -> dict[str, Any]:
        return super().encode(message._replace(partition=None))


# ---- failure


@breaks("test_an_outage_loses_nothing")
class SwallowsAnOutage(Reference):
    swallowed = 0

    def send(self, batch: Batch) -> None:
        try:
            super().send(batch)
        except SendFailed:
            # The first may have arrived, the answer alone being lost; the second has not.
            if self.swallowed == 2 or len(batch) != 20:
                raise
            self.swallowed += 1


@breaks("test_an_outage_loses_nothing", url="&timeout=0.5")
class NeverConnectsAgain(Reference):
    """What a lane does after a failed send is another send."""

    lost = False

    def open(self, context: Context) -> None:
        super().open(context)
        self.lost = False

    def send(self, batch: Batch) -> None:
        if self.lost:
            raise SendFailed("not connected; call open() first")
        try:
            super().send(batch)
        except SendFailed as error:
            self.lost = len(batch) == 20 and error.uncertain
            raise


@breaks("test_a_frozen_destination_loses_nothing")
class WaitsForever(Reference):
    patient = False

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        self.patient = len(messages) == 20
        super().deliver(batch, messages)

    def answer(self, give_up: float) -> bytes:
        return super().answer(give_up + 3600 * self.patient)


@breaks("test_an_opening_meets_an_outage")
class OpensBlindly(Reference):
    reached = False

    def open(self, context: Context) -> None:
        try:
            super().open(context)
            self.reached = True
        except SendFailed:
            pass

    def send(self, batch: Batch) -> None:
        try:
            super().send(batch)
        except SendFailed:
            if self.reached or len(batch) != 1:
                raise

    def check(self) -> Health:
        return Reference(self.options).check()


@breaks("test_a_partial_failure_is_told_as_it_was")
class ClaimsOneTooMany(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            error.undelivered = list(error.undelivered or ())[1:] or error.undelivered
            raise


@breaks("test_a_partial_failure_is_told_as_it_was")
class KnowsNothingAndIsCertain(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            if error.undelivered and not error.rejected:
                error.undelivered = None
            raise


@breaks("test_a_partial_failure_is_told_as_it_was")
class LeavesAGap(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            left = list(error.undelivered or ())
            if left and not error.rejected and not error.uncertain:
                super().deliver(batch, messages[left[-1] :])
                error.undelivered = left[:-1]
            raise


@breaks("test_a_rejected_message_is_told_alone")
class RejectsTheNeighbour(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            if len(messages) == 7:
                error.rejected = {index + 1: reason for index, reason in error.rejected.items()}
            raise


@breaks("test_a_rejected_message_is_told_alone")
class TriesForever(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            if len(messages) == 7:
                raise SendFailed("the server does not take all", uncertain=True) from error
            raise


@breaks("test_a_rejected_message_is_told_alone")
class RejectsWithoutAWord(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            error.rejected = dict.fromkeys(error.rejected, "")
            raise


@breaks("test_a_batch_of_rejected_messages")
class CallsAPersonForARejection(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            if len(error.rejected) == len(batch) > 1:
                raise ProviderUnusable("none of these messages is taken") from error
            raise


@breaks("test_errors_are_of_two_kinds")
class RaisesWhatItGets(Reference):
    def send(self, batch: Batch) -> None:
        try:
            super().send(batch)
        except SendFailed as error:
            if error.uncertain:
                raise ConnectionError(str(error)) from error
            raise


@breaks("test_errors_are_of_two_kinds")
class RaisesInIdle(Reference):
    def idle(self) -> None:
        socket.create_connection(self.address, 1).close()


@breaks("test_errors_are_of_two_kinds")
class CountsFromOne(Reference):
    def send(self, batch: Batch) -> None:
        try:
            super().send(batch)
        except SendFailed as error:
            if error.uncertain:
                error.undelivered = range(1, len(batch) + 1)
            raise


@breaks("test_errors_are_of_two_kinds")
class SaysNothing(Reference):
    def send(self, batch: Batch) -> None:
        try:
            super().send(batch)
        except SendFailed as error:
            raise SendFailed(
                "", undelivered=error.undelivered, rejected=error.rejected, uncertain=error.uncertain
            ) from error


@breaks("test_what_a_person_must_mend_is_told_so")
class TriesAWrongToken(Reference):
    def open(self, context: Context) -> None:
        try:
            super().open(context)
        except ProviderUnusable as error:
            raise SendFailed(str(error)) from error


# ---- lifecycle


@breaks("test_close_may_be_called_twice")
class ClosesOnce(Reference):
    used = False

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        super().deliver(batch, messages)
        self.used = True

    def close(self, timeout: float) -> None:
        if self.is_closed and self.used:
            raise RuntimeError("it is closed already")
        super().close(timeout)


@breaks("test_open_again_after_close")
class OpensOnce(Reference):
    opened = False

    def open(self, context: Context) -> None:
        if self.opened:
            raise SendFailed("a client is used up when it is closed")
        super().open(context)
        self.opened = True


@breaks("test_close_after_a_failed_open")
class ClosesWhatItHasNot(Reference):
    def close(self, timeout: float) -> None:
        # After a failed open() there is none.
        connection: Any = self.connection if self.is_closed or not self.is_open else self.connection or ()
        super().close(timeout)
        if connection == ():
            connection.close()


@breaks("test_open_again_after_a_failed_open")
class RemembersAFailure(Reference):
    failed = False

    def open(self, context: Context) -> None:
        if self.failed:
            raise SendFailed("it failed before")
        self.failed = True
        super().open(context)
        self.failed = False


class Waits(Reference):
    """Does not look at what says that it should end."""

    def answer(self, give_up: float) -> bytes:
        context, self.context = self.context, Context(buffer_id="", lane="", run=b"")
        try:
            return super().answer(give_up)
        finally:
            self.context = context


@breaks("test_close_returns_while_send_is_stuck", url="&timeout=4")
class LocksItselfOut(Reference):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.lock = threading.Lock()

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        with self.lock:
            super().deliver(batch, messages)

    def close(self, timeout: float) -> None:
        with self.lock:
            super().close(timeout)


@breaks("test_send_ends_when_the_buffer_stops", url="&timeout=4")
class SendsThoughStopped(Waits):
    def open(self, context: Context) -> None:
        self.drop()
        self.context = context
        self.is_open, self.is_closed = True, False
        if "denied" in self.ask({}):
            raise ProviderUnusable("the server does not take this token")

    def answer(self, give_up: float) -> bytes:
        return super().answer(give_up) if self.sending else Reference.answer(self, give_up)

    sending = False

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        self.sending = True
        try:
            super().deliver(batch, messages)
        finally:
            self.sending = False


@breaks("test_open_ends_when_the_buffer_stops", url="&timeout=4")
class OpensThoughStopped(Waits):
    sending = False

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        self.sending = True
        try:
            super().deliver(batch, messages)
        finally:
            self.sending = False

    def answer(self, give_up: float) -> bytes:
        return Reference.answer(self, give_up) if self.sending else super().answer(give_up)


@breaks("test_nothing_is_left_behind")
class LeaksADescriptor(Reference):
    def open(self, context: Context) -> None:
        os.open(os.devnull, os.O_RDONLY)
        super().open(context)


@breaks("test_nothing_is_left_behind")
class LeaksAThread(Reference):
    def open(self, context: Context) -> None:
        super().open(context)
        threading.Thread(target=threading.Event().wait, daemon=True).start()


@breaks("test_nothing_is_left_behind")
class LeaksWhenItFails(Reference):
    def open(self, context: Context) -> None:
        opened = os.open(os.devnull, os.O_RDONLY)
        super().open(context)
        os.close(opened)


# ---- facts


@breaks("test_the_destination_is_one_and_the_same")
class NamesItsHost(Reference):
    def destination(self) -> str:
        return f"reference:{self.options.hosts[0]}"


@breaks("test_the_destination_is_one_and_the_same")
class IsAlwaysElsewhere(Reference):
    def destination(self) -> str:
        return uuid.uuid4().hex


@breaks("test_facts_are_texts")
class TellsNumbers(Reference):
    def describe(self) -> Mapping[str, Any]:
        return {"limit": 300_000}


@breaks("test_the_largest_message_is_a_number")
class TakesNothing(Reference):
    max_message_bytes = 0


@breaks("test_a_check_tells_that_all_is_well")
class ChecksInOneWord(Reference):
    def check(self) -> Any:
        return super().check().ok


@breaks("test_a_check_tells_of_an_outage")
class IsAlwaysWell(Reference):
    def check(self) -> Health:
        return Health(True, "it should be fine")


# ---- secrets


@breaks("test_no_secret_is_told")
class ShowsItsToken(Reference):
    def __repr__(self) -> str:
        return f"<Reference {self.options.token}>"


@breaks("test_no_secret_is_told")
class DescribesItsToken(Reference):
    def describe(self) -> Mapping[str, str]:
        return {"token": self.options.token}


@breaks("test_no_secret_is_told")
class LogsItsToken(Reference):
    def send(self, batch: Batch) -> None:
        super().send(batch)
        self.context.logger.info("sent with %s", self.options.token)


@breaks("test_no_error_tells_a_secret")
class FailsWithItsToken(Reference):
    def open(self, context: Context) -> None:
        try:
            super().open(context)
        except SendFailed as error:
            raise SendFailed(f"no connection with token {self.options.token}") from error


@breaks("test_no_error_tells_a_secret")
class FailsBecauseOfItsToken(Reference):
    def open(self, context: Context) -> None:
        try:
            super().open(context)
        except ProviderUnusable:
            raise ProviderUnusable("the token is wrong") from ValueError(self.options.token)


# ---- position


@breaks("test_the_position_is_told_as_it_was_stored", position=True)
class TellsAPair(Reference):
    def committed(self) -> Any:
        position = super().committed()
        return tuple(position) if position and position.sequence == 10 else position


@breaks("test_the_position_is_told_as_it_was_stored", position=True)
class BeginsSomewhere(Reference):
    def committed(self) -> Position | None:
        return super().committed() or (
            Position(0, RUN) if self.context.lane == "main" and self.context.run == RUN else None
        )


@breaks("test_the_position_is_told_as_it_was_stored")
class KeepsAPositionInSecret(Reference):
    def committed(self) -> Position | None:
        return Position(5, RUN) if self.context.run == RUN else None


@breaks("test_each_lane_has_its_position", position=True)
class KnowsNoLanes(Reference):
    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return super().ask({"lane": "any", **request})


@breaks("test_each_lane_has_its_position", position=True)
class KnowsNoBuffers(Reference):
    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return super().ask({"buffer": "any", **request})


@breaks("test_a_repeat_arrives_once", position=True)
class Repeats(Reference):
    last: list[Message] | None = None

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        if messages == self.last:
            self.ask({"messages": [self.encode(message) for message in messages]})
        super().deliver(batch, messages)
        self.last = messages


@breaks("test_a_new_run_goes_on", position=True)
class StoresItsOwnRun(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        batch.position = Position(batch.position.sequence, self.context.run)
        super().deliver(batch, messages)


@breaks("test_a_rejection_moves_no_position", position=True)
class PassesOverRejections(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            if not error.rejected:
                raise
            super().deliver(batch, [m for i, m in enumerate(messages) if i not in error.rejected])
            raise SendFailed("some are refused", undelivered=(), rejected=error.rejected) from error


@breaks("test_the_position_agrees_after_a_failure", position=True)
class MovesOnThoughItFailed(Reference):
    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        try:
            super().deliver(batch, messages)
        except SendFailed as error:
            if messages[0].sequence == 11 and len(messages) == 10 and not error.uncertain:
                super().deliver(batch, [])
            raise


# ---- processes


@breaks("test_the_position_agrees_after_a_kill", position=True)
class StoresInTwoSteps(Reference):
    """The position goes with the next batch, so that a kill at any moment finds it missing."""

    behind: Batch | None = None

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        if self.context.lane != "killed":
            super().deliver(batch, messages)
            return
        self.ask({"messages": [self.encode(message) for message in messages]})
        if self.behind is not None:
            super().deliver(self.behind, [])
        self.behind = batch


@breaks("test_what_was_acknowledged_survives_a_kill")
class HoldsBackTheLast(Reference):
    """The last two, so that a kill at any moment finds one."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.held: list[tuple[Batch, list[Message]]] = []

    def deliver(self, batch: Batch, messages: list[Message]) -> None:
        self.held.append((batch, messages))
        while len(self.held) > (2 if self.context.lane == "killed" else 0):
            super().deliver(*self.held.pop(0))


@breaks("test_a_fork_does_no_harm")
class SaysGoodbye(Reference):
    def __del__(self) -> None:
        if self.connection is not None:
            self.connection.shutdown(socket.SHUT_RDWR)


@breaks("test_a_fork_does_no_harm")
class HoldsALock(Reference):
    """A name in Linux's own space, which a copy goes on holding, as it does a lock of a file."""

    lock: socket.socket | None = None

    def open(self, context: Context) -> None:
        super().open(context)
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0kit-{self.address[1]}")
        except OSError as error:
            lock.close()
            raise SendFailed("somebody else sends there") from error
        self.lock = lock

    def close(self, timeout: float) -> None:
        super().close(timeout)
        lock, self.lock = self.lock, None
        if lock is not None:
            lock.close()


# ---- inside a buffer


@breaks("test_it_serves_a_buffer")
class WantsTheMainThread(Reference):
    def send(self, batch: Batch) -> None:
        if threading.current_thread().name.startswith("mbframework-sender"):
            raise RuntimeError("signals work on the main thread only")
        super().send(batch)
