"""The buffer for asyncio: the loop goes on whatever the buffer waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mbframework_fake.provider import FakeProvider

from mbframework import (
    AsyncMessageBuffer,
    BufferClosed,
    BufferFull,
    Config,
    FlushTimeout,
    MessageBuffer,
    MessageError,
    ModeError,
    ProviderUnavailable,
    Undelivered,
)
from tests.engine.rig import FAST, SMALL, Disk, numbers, padded


async def until_so(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (of which nothing tells)
            await asyncio.sleep(0.005)


async def until(buffer: AsyncMessageBuffer, *states: str) -> None:
    await until_so(lambda: buffer.status().state in states)


@contextmanager
def ticking() -> Iterator[list[int]]:
    """A task that wants to run all the time; the list says how often it did."""
    ticks = [0]

    async def tick() -> None:
        while True:
            ticks[0] += 1
            await asyncio.sleep(0.001)

    task = asyncio.get_running_loop().create_task(tick())
    try:
        yield ticks
    finally:
        task.cancel()


@pytest.mark.parametrize("mode", ["block", "raise", "buffer", "always"])
def test_a_thousand_tasks_in_each_mode(tmp_path: Path, mode: str) -> None:
    provider = FakeProvider()

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, mode=mode, **FAST) as buffer:
            await until(buffer, "live")
            sequences = await asyncio.gather(*(buffer.write("t", str(number)) for number in range(1000)))
            assert sequences == list(range(1, 1001))
            assert await buffer.write_many("t", ["1000", "1001"]) == range(1001, 1003)
            await asyncio.gather(*(buffer.flush(60) for _ in range(1000)))
            assert buffer.status().delivered == 1002
            assert buffer.pressure < 0.1

    asyncio.run(main())
    assert numbers(provider.messages) == list(range(1002))


def test_block_waits_without_holding_up_the_loop(tmp_path: Path) -> None:
    provider = FakeProvider()

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, mode="block", **FAST) as buffer:
            await until(buffer, "live")
            provider.down()
            await buffer.write("t", "-1")
            await until(buffer, "buffering")
            with ticking() as ticks:
                writes = [asyncio.ensure_future(buffer.write("t", str(number))) for number in range(1000)]
                await asyncio.sleep(0.3)
                # The thousand look again every 50 ms: the loop has room for others between them.
                await until_so(lambda: ticks[0] > 2)
                assert not any(write.done() for write in writes)
                provider.up()
                await asyncio.gather(*writes)
                await buffer.flush(60)
            assert sorted(numbers(provider.messages)) == list(range(-1, 1000))

    asyncio.run(main())


def test_a_full_buffer_waits_and_says_when_it_is_over(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()

    async def main() -> None:
        options = FAST | SMALL | {"on_full": "block", "block_timeout": 0.1}
        async with AsyncMessageBuffer(tmp_path / "b", provider, **options) as buffer:
            number = 0
            with pytest.raises(BufferFull, match=r"waited 0\.1 s"):
                for number in range(1000):
                    await buffer.write("t", padded(number, 500))
            assert buffer.status().accepted == number
            with pytest.raises(FlushTimeout):
                await buffer.flush(0.01)
            provider.up()
            await buffer.flush(60)
        assert numbers(provider.messages) == list(range(number))

    asyncio.run(main())


def test_raise_reject_and_wrong_arguments(tmp_path: Path) -> None:
    provider = FakeProvider()

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, mode="raise", **FAST) as buffer:
            await until(buffer, "live")
            with pytest.raises(MessageError, match="topic is int"):
                await buffer.write(5, "x")  # type: ignore[arg-type]
            with pytest.raises(MessageError, match="header 0"):
                await buffer.write("t", "x", headers=[5])  # type: ignore[list-item]
            with pytest.raises(ModeError):
                await buffer.sync()
            provider.down()
            await buffer.write("t", "0", key="k", headers=[("h", b"v")], partition=1, timestamp=2)
            await until(buffer, "buffering")
            with pytest.raises(ProviderUnavailable):
                await buffer.write("t", "refused")
            provider.up()
            await until(buffer, "live")
            await buffer.flush(60)
            await buffer.set_mode("always")
            await buffer.pause()
            await buffer.write("t", "1")
            assert await buffer.purge() == 1
            await buffer.resume()
            await buffer.write("t", "2")
            await buffer.sync()
        assert numbers(provider.messages) == [0, 2]
        assert provider.messages[0][3:7] == (b"k", (("h", b"v"),), 2, 1)
        with pytest.raises(BufferClosed):
            await buffer.write("t", "3")

    asyncio.run(main())


def test_a_cancelled_write_says_whether_it_was_accepted(tmp_path: Path) -> None:
    provider = FakeProvider()

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, mode="block", **FAST) as buffer:
            await until(buffer, "live")
            provider.down()
            await buffer.write("t", "0")
            await until(buffer, "buffering")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await buffer.write("t", "cancelled")
            task = asyncio.ensure_future(buffer.write("t", "cancelled"))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert not hasattr(caught.value, "accepted")
            provider.up()
            await buffer.flush(60)
            assert (buffer.status().accepted, numbers(provider.messages)) == (1, [0])

    asyncio.run(main())


def test_a_cancelled_write_many_says_how_much_was_accepted(tmp_path: Path) -> None:
    provider = FakeProvider()
    provider.down()

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, on_full="block", **FAST | SMALL) as buffer:
            with ticking() as ticks:
                task = asyncio.ensure_future(buffer.write_many("t", [padded(number, 500) for number in range(2000)]))
                await until(buffer, "blocked")
                queued = asyncio.ensure_future(buffer.write_many("t", [padded(9999, 500)] * 2000))
                await asyncio.sleep(0.05)
                await until_so(lambda: ticks[0] > 2)
                for each in (queued, task):
                    each.cancel()
                await asyncio.sleep(0)
                # A time-out, and then the end of the loop.
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
                with pytest.raises(asyncio.CancelledError) as other:
                    await queued
            accepted: range = caught.value.accepted  # type: ignore[attr-defined]
            assert not hasattr(other.value, "accepted")
            assert buffer.status().accepted == len(accepted) > 100
            assert accepted.start == 1
            provider.up()
            await buffer.flush(60)
        assert numbers(provider.messages) == list(range(len(accepted)))

    asyncio.run(main())


def test_write_many_in_steps_is_whole(tmp_path: Path) -> None:
    """With room coming and going nothing is accepted twice, and the sequences are successive."""
    provider = FakeProvider(rate=200_000)

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, on_full="block", **FAST | SMALL) as buffer:
            parts = [[f"{name} {number} ".ljust(300) for number in range(3000)] for name in range(3)]
            with ticking() as ticks:
                ranges = await asyncio.gather(*(buffer.write_many(f"t{i}", part) for i, part in enumerate(parts)))
                await buffer.flush(60)
                assert ticks[0] > 2
            assert [len(each) for each in ranges] == [3000] * 3
            for i, part in enumerate(parts):
                mine = [message for message in provider.messages if message.topic == f"t{i}"]
                assert [message.value for message in mine] == [text.encode() for text in part]
                assert [message.sequence for message in mine] == list(ranges[i])

    asyncio.run(main())


def test_fsync_always_is_awaited_off_the_loop(tmp_path: Path) -> None:
    class Slow(Disk):
        def file_system(self, path: str) -> str:
            return "ext4"

        def datasync(self, fd: int) -> None:
            threading.Event().wait(0.02)
            super().datasync(fd)

    class Plain(MessageBuffer):
        @staticmethod
        def _make_files() -> Disk:
            return Slow()

    async def main() -> None:
        buffer = AsyncMessageBuffer(tmp_path / "b")
        buffer._make = lambda: Plain(tmp_path / "b", FakeProvider(), mode="always", fsync="always", **FAST)
        async with buffer:
            with ticking() as ticks:
                await asyncio.gather(*(buffer.write("t", str(number)) for number in range(50)))
                assert ticks[0] > 2
            assert buffer.buffer.running_lane().head.slot.synced_sequence == 51

    asyncio.run(main())


def test_leaving_hands_back_and_never_masks(tmp_path: Path) -> None:
    async def main(fail: bool) -> None:
        options = FAST | {"close_timeout": 0.05}
        async with AsyncMessageBuffer(
            tmp_path / f"{fail}", FakeProvider(latency=60), mode="block", **options
        ) as buffer:
            await until(buffer, "live")
            await buffer.write("t", "0")
            if fail:
                raise ZeroDivisionError

    with pytest.raises(Undelivered) as caught:
        asyncio.run(main(False))
    assert numbers(caught.value.messages) == [0]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(main(True))


def test_a_cancelled_entrance_leaves_nothing_open(tmp_path: Path) -> None:
    async def main() -> None:
        buffer = AsyncMessageBuffer(tmp_path / "b", FakeProvider(), **FAST)
        task = asyncio.ensure_future(buffer.__aenter__())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with AsyncMessageBuffer(tmp_path / "b", FakeProvider(), share=False, **FAST) as again:
            await again.write("t", "0")

    asyncio.run(main())


def test_the_buffer_may_be_shared_with_threads(tmp_path: Path) -> None:
    provider = FakeProvider()

    async def main() -> None:
        async with AsyncMessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
            writers = [
                asyncio.to_thread(lambda: [buffer.buffer.write("thread", str(n)) for n in range(500)]) for _ in range(3)
            ]
            await asyncio.gather(*writers, *(buffer.write("task", str(number)) for number in range(500)))
            await buffer.flush(60)

    asyncio.run(main())
    assert numbers(message for message in provider.messages if message.topic == "task") == list(range(500))
    assert provider.count == 2000


def test_every_way_to_make_a_buffer_and_every_name_of_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = {name for name in dir(MessageBuffer) if not name.startswith("_")}
    apart = {"check_many", "open_lanes", "running_engine", "running_lane"}
    assert public - apart <= set(dir(AsyncMessageBuffer))
    (tmp_path / "b.toml").write_text(f'directory = "{tmp_path / "toml"}"\nmode = "always"\n')
    (tmp_path / "b.json").write_text("{}")
    monkeypatch.setenv("MBFRAMEWORK_DIRECTORY", str(tmp_path / "env"))
    made = {
        "config": AsyncMessageBuffer.from_config(Config(directory=str(tmp_path / "config"), mode="always")),
        "toml": AsyncMessageBuffer.from_toml(tmp_path / "b.toml"),
        "env": AsyncMessageBuffer.from_env(mode="always"),
        "json": AsyncMessageBuffer.from_json(tmp_path / "b.json", directory=str(tmp_path / "json"), mode="always"),
    }
    assert not (tmp_path / "config").exists()

    async def main() -> None:
        for name, each in made.items():
            async with each as buffer:
                assert await buffer.write("t", "x") == 1
                assert (buffer.directory, buffer.lane, buffer.config.mode) == (str(tmp_path / name), "main", "always")
                await buffer.retry_now()

    asyncio.run(main())
