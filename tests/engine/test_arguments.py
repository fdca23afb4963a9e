"""A wrong argument is an error that names it, on that call alone; nothing else changes, nothing is made."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mbframework_fake.provider import FakeProvider
from mbframework_file.provider import FileProvider
from mbframework_sqlite.provider import SQLiteProvider

from mbframework import ConfigurationError, Context, MessageBuffer, MessageError, MessageTooLarge, PluginError
from mbframework.plugins.source import resolve_url
from tests.engine.rig import FAST, at_rest, in_state, numbers

HUGE = 1 << 70

WRITES: list[tuple[str, dict[str, Any]]] = [
    ("topic is int; expected str", {"topic": 1}),
    ("topic is bytes; expected str", {"topic": b"t"}),
    ("topic is list; expected str", {"topic": []}),
    ("topic is NoneType; expected str", {"topic": None}),
    ("topic has 0 bytes of UTF-8; expected 1 to 65,535", {"topic": ""}),
    ("topic has 70002 bytes of UTF-8", {"topic": "é" * 35_001}),
    ("topic cannot be encoded as UTF-8", {"topic": "\udc80"}),
    ("value is int; expected bytes-like, str or None", {"value": 5}),
    ("value is array with items of 8 bytes; expected items of one byte", {"value": array("q", [1])}),
    ("value is list", {"value": [1, 2]}),
    ("value is dict", {"value": {}}),
    ("value cannot be encoded as UTF-8", {"value": "\udc80"}),
    ("key is float", {"key": 1.5}),
    ("headers are int; expected pairs", {"headers": 5}),
    ("headers are str; expected pairs", {"headers": "ab"}),
    ("header 0 is not a pair", {"headers": [1]}),
    ("header 1 is not a pair", {"headers": [("a", b""), ("a", b"", b"")]}),
    ("the name of header 0 is bytes", {"headers": [(b"a", b"")]}),
    ("the value of header 0 is int", {"headers": [("a", 1)]}),
    ("the name of header 0 is not UTF-8", {"headers": [("\udc80", b"")]}),
    ("the name of header 0 is not UTF-8 of at most", {"headers": [("n" * 70_000, b"")]}),
    ("partition is -1", {"partition": -1}),
    ("partition is True", {"partition": True}),
    ("partition is '1'", {"partition": "1"}),
    ("partition is 2147483648", {"partition": 1 << 31}),
    ("timestamp is float; expected an int: nanoseconds", {"timestamp": 1.5}),
    ("timestamp is bool", {"timestamp": True}),
    ("timestamp is beyond 64 bits", {"timestamp": HUGE}),
]

MANY: list[tuple[str, dict[str, Any]]] = [
    ("values are bytes; expected a sequence", {"values": b"abc"}),
    ("values are str", {"values": "abc"}),
    ("values are NoneType", {"values": None}),
    ("values are int", {"values": 3}),
    ("a value is int", {"values": [b"", 1]}),
    ("keys has 1 entries; expected 2", {"values": ["a", "b"], "keys": ["k"]}),
    ("keys is str", {"values": ["a"], "keys": "k"}),
    ("a key is int", {"values": ["a"], "keys": [1]}),
    ("headers has 0 entries", {"values": ["a"], "headers": []}),
    ("header 0 is not a pair", {"values": ["a"], "headers": [[1]]}),
    ("partition is -1", {"values": ["a"], "partitions": [-1]}),
    ("timestamp is str", {"values": ["a"], "timestamps": ["1"]}),
    ("topic is int", {"topic": 3, "values": ["a"]}),
]


@pytest.mark.parametrize("live", [True, False], ids=["live", "always"])
def test_a_wrong_message_is_refused_alone(tmp_path: Path, live: bool) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, mode="buffer" if live else "always", **FAST) as buffer:
        in_state(buffer, "live")
        buffer.write("t", "0")
        for expected, given in WRITES:
            with pytest.raises(MessageError) as caught:
                buffer.write(**{"topic": "t", "value": b"x"} | given)
            assert expected in str(caught.value)
        for expected, given in MANY:
            with pytest.raises(MessageError) as caught:
                buffer.write_many(**{"topic": "t"} | given)
            assert expected in str(caught.value)
        buffer.write("t", "1")
        buffer.flush(60)
        assert numbers(provider.messages) == [0, 1]
        assert at_rest(buffer)["accepted"] == 2


def test_what_is_taken_arrives_as_it_was_given(tmp_path: Path) -> None:
    provider = FakeProvider()
    changing = bytearray(b"before")
    with MessageBuffer(tmp_path / "b", provider, **FAST) as buffer:
        buffer.pause()
        buffer.write("t", changing, key=memoryview(b"abcdef")[::2], headers={"h": None, "g": "ü"})
        changing[:] = b"after."
        pairs = [("a", b"1"), ("a", array("b", b"2"))]
        buffer.write("ü" * 10, None, headers=(pair for pair in pairs), partition=0, timestamp=-1)
        buffer.write("t", array("B"), key="", headers=[])
        assert buffer.write_many("t", []) == range(4, 4)
        buffer.write_many("t", iter(["x", None]), keys=(key for key in (array("B", b"k"), None)), partitions=[None, 2])
        buffer.resume()
        buffer.flush(60)
    got = [message[1:7] for message in provider.messages]
    assert got == [
        ("t", b"before", b"ace", (("h", None), ("g", "ü".encode())), None, None),
        ("ü" * 10, None, None, (("a", b"1"), ("a", b"2")), -1, 0),
        ("t", b"", b"", (), None, None),
        ("t", b"x", b"k", (), None, None),
        ("t", None, None, (), None, 2),
    ]


def test_sizes_at_the_limit(tmp_path: Path) -> None:
    provider = FakeProvider()
    with MessageBuffer(tmp_path / "b", provider, segment_size="1MiB", total_size="16MiB", **FAST) as buffer:
        most = 256 * 1024
        for mode in ("always", "buffer"):
            buffer.set_mode(mode)
            in_state(buffer, "live")
            buffer.write("t", bytes(most - 1))
            with pytest.raises(
                MessageTooLarge, match="262,145 bytes .* at most 262,144 are taken: a quarter of segment"
            ) as caught:
                buffer.write("t", bytes(most))
            assert (caught.value.size, caught.value.limit) == (most + 1, most)
            with pytest.raises(MessageTooLarge):
                buffer.write("t", bytes(most - 100), key=bytes(50), headers=[("h", bytes(60))])
            with pytest.raises(MessageTooLarge):
                buffer.write_many("t", [b"", bytes(most)])
            buffer.write_many("t", [bytes(most - 1)] * 5)
            buffer.flush(60)
        assert at_rest(buffer)["delivered"] == 12


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("mode: 'bufer'", {"mode": "bufer"}),
    ("segment_siz", {"segment_siz": 1}),
    ("segment_size: '64M'", {"segment_size": "64M"}),
    ("total_size: ", {"segment_size": "64MiB", "total_size": "65MiB"}),
    ("retry_wait: ", {"retry_wait": "5s", "retry_wait_max": "1s"}),
    ("lane: ", {"lane": "../up"}),
    ("no provider is named 'kafak'|kafak", {"provider": "kafak://host"}),
    ("rat", {"provider": "fake://?rat=5"}),
    ("type 'int'", {"provider": 5}),
    ("expected a path", {"directory": 5}),
    ("expected a path", {"directory": ""}),
    ("expected a path", {"directory": b"b"}),
    ("observer", {"observers": ["nobody"]}),
    ("observer", {"observers": [3]}),
]


@pytest.mark.parametrize("expected, given", WRONG, ids=[str(given) for _, given in WRONG])
def test_a_wrong_option_makes_nothing(tmp_path: Path, expected: str, given: dict[str, Any]) -> None:
    before = set(tmp_path.iterdir())
    with pytest.raises((ConfigurationError, PluginError)) as caught:
        MessageBuffer(**{"directory": tmp_path / "b"} | given)
    assert any(text in str(caught.value) for text in expected.split("|"))
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("timeout", ["soon", -1, float("nan"), object(), True])
@pytest.mark.parametrize("call", [MessageBuffer.flush, MessageBuffer.close])
def test_a_wrong_timeout(tmp_path: Path, call: Callable[..., None], timeout: Any) -> None:
    with MessageBuffer(tmp_path / "b", FakeProvider(), **FAST) as buffer:
        with pytest.raises(ConfigurationError, match="timeout: "):
            call(buffer, timeout)
        buffer.write("t", "still open")
        buffer.flush(60)


@pytest.mark.parametrize("name", ["sqlite", "file"])
def test_a_relative_path_counts_from_where_the_program_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The provider is made by another thread, and perhaps anew: by then the program may have changed its directory."""
    monkeypatch.chdir(tmp_path)
    source = resolve_url(f"{name}:out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    provider = source.create(Context(buffer_id="0" * 32, lane="main", run=bytes(16)))
    assert isinstance(provider, SQLiteProvider | FileProvider)
    assert provider.path == str(tmp_path / "out")
    assert source.display == f"{name}:out"
