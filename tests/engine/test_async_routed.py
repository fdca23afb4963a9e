"""Several lanes for asyncio: one lane's wait is neither the loop's nor another lane's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mbframework_fake.broker import FakeBroker
from mbframework_fake.provider import FakeProvider

from mbframework import (
    AsyncMessageBuffer,
    AsyncRoutedBuffer,
    ConfigurationError,
    Context,
    FlushTimeout,
    MessageError,
    Provider,
)
from tests.engine.rig import FAST, numbers


def test_a_write_that_waits_in_one_lane_holds_up_no_other(tmp_path: Path) -> None:
    brokers = {"orders": FakeBroker(), "main": FakeBroker()}

    def provider(context: Context) -> Provider:
        return FakeProvider(brokers[context.lane])

    lanes = {"orders": {"topics": "orders.*", "mode": "block"}}

    async def main() -> None:
        async with AsyncRoutedBuffer(tmp_path / "b", provider, lanes=lanes, **FAST) as buffer:
            assert await buffer.write("orders.eu", "0") == 1
            await buffer.flush(60)
            brokers["orders"].down()
            waits = [asyncio.create_task(buffer.write("orders.eu", str(number))) for number in range(1, 200)]
            async with asyncio.timeout(60):
                while brokers["orders"].messages and buffer.status()["orders"].state == "live":  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert await buffer.write_many("audit", ["0", "1"]) == range(1, 3)
            await buffer.lanes["main"].flush(60)
            with pytest.raises(FlushTimeout) as late:
                await buffer.flush(0.05)
            assert late.value.remaining > 0
            brokers["orders"].up()
            await asyncio.gather(*waits)
            await buffer.flush(60)
            assert {name: lane.delivered for name, lane in buffer.status().items()} == {"orders": 200, "main": 2}

    asyncio.run(main())
    assert numbers(brokers["orders"].messages) == list(range(200))
    assert numbers(brokers["main"].messages) == [0, 1]


def test_mistakes(tmp_path: Path) -> None:
    async def main() -> None:
        lanes = {"orders": {"topics": "orders", "provider": "fake:"}}
        closed = AsyncRoutedBuffer(tmp_path / "b", lanes=lanes)
        with pytest.raises(RuntimeError, match="async with AsyncRoutedBuffer"):
            await closed.write("orders", "0")
        async with closed as buffer:
            with pytest.raises(MessageError, match="matches no lane"):
                await buffer.write("audit", "0")
            assert isinstance(buffer.lane_for("orders"), AsyncMessageBuffer)
        with pytest.raises(ConfigurationError, match="no topics"):
            async with AsyncRoutedBuffer(tmp_path / "c", "fake:", lanes={"orders": {}}):
                pass
        assert not (tmp_path / "c").exists()

    asyncio.run(main())
