"""The provider ``http`` on a real endpoint: requests, keys, what is refused how, security, and options."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from mbframework_http.provider import HttpProvider

from mbframework import MessageBuffer
from mbframework.errors import ProviderUnusable, SendFailed
from mbframework.message import Message
from mbframework.plugins.source import resolve
from mbframework.testing.http import HttpServer, Manner
from tests.providers.batches import batch_of, make_batch
from tests.providers.certificates import Certificates, make_certificates
from tests.providers.connections import waits_end
from tests.providers.http_proxy import running_proxy
from tests.providers.http_reading import items, items_of, numbers
from tests.providers.made import New, why_refused
from tests.providers.provider_pages import documented_examples

ONE = Message(1, "orders", b"value", b"key", (), None, None, 1_700_000_000_000_000_000)


# -- requests ------------------------------------------------------------------------------------


def test_a_request_as_the_endpoint_sees_it(http_server: HttpServer, new: New) -> None:
    url = f"{http_server.url}/{{topic}}?source=shop&mb.header.X-Api-Key=hush&mb.forward=traceparent,content-type"
    message = ONE._replace(
        sequence=17, topic="a/b ü", headers=(("traceparent", b"00-1"), ("Content-Type", b"text/plain"))
    )
    new(url).send(batch_of([message]))
    (request,) = http_server.stored()
    assert (request.method, request.target) == ("POST", "/inbox/a%2Fb%20%C3%BC?source=shop")
    assert request.body == b"value"
    expected = {
        "Content-Type": "text/plain",
        "X-Api-Key": "hush",
        "traceparent": "00-1",
        "Idempotency-Key": f"{'b' * 32}:main:17",
        "Mb-Buffer": "b" * 32,
        "Mb-Lane": "main",
        "Mb-Sequence": "17",
        "Content-Length": "5",
    }
    assert {name: request.header(name) for name in expected} == expected
    assert request.header("Accept-Encoding") == "identity"
    assert items_of(request)[0].headers == message.headers


@pytest.mark.parametrize(("body", "requests"), [("raw", 10), ("json", 10), ("array", 3), ("ndjson", 3)])
def test_requests_of_each_kind(http_server: HttpServer, new: New, body: str, requests: int) -> None:
    url = f"{http_server.url}?mb.body={body}&mb.method=PUT&mb.idempotency=X-Request-Id"
    url += "" if requests == 10 else "&mb.request_messages=4"
    provider = new(url)
    provider.send(make_batch(1, 10))
    stored = http_server.stored()
    assert numbers(http_server) == list(range(1, 11))
    assert len(stored) == requests
    assert {request.method for request in stored} == {"PUT"}
    keys = [request.header("X-Request-Id") for request in stored]
    assert keys[0] == f"{'b' * 32}:main:{1 if requests == 10 else '1-4'}"
    assert len(set(keys)) == requests
    assert stored[0].header("Idempotency-Key") is None


def test_values_that_are_json_already(http_server: HttpServer, new: New) -> None:
    values = [b'{"a": 1}', b"no json", b"[2,\n3]", None]
    messages = [ONE._replace(sequence=n, value=value) for n, value in enumerate(values, 1)]
    provider = new(f"{http_server.url}?mb.body=ndjson&mb.items=value&mb.content_type=application/x-docs")
    with pytest.raises(SendFailed, match="1 of 4 messages were refused: its value is no JSON") as failed:
        provider.send(batch_of(messages))
    assert (list(failed.value.rejected), list(failed.value.undelivered or ())) == ([1], [])
    stored = http_server.stored()
    assert b"".join(request.body for request in stored) == b'{"a": 1}\n[2, 3]\nnull\n'
    assert {request.header("Content-Type") for request in stored} == {"application/x-docs"}


def test_the_connection_is_kept(http_server: HttpServer, new: New) -> None:
    before = _sockets(http_server.pid)
    provider = new(http_server.url)
    provider.send(make_batch(1, 50))
    provider.send(make_batch(51, 50))
    assert len(_sockets(http_server.pid) - before) == 1


def _sockets(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    if not os.path.isdir(folder):
        pytest.skip("the system does not tell of another process's sockets")
    return {name for fd in os.listdir(folder) if (name := os.readlink(f"{folder}/{fd}")).startswith("socket:")}


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405, 415])
def test_what_only_a_person_can_change_blocks(http_server: HttpServer, new: New, status: int) -> None:
    http_server.behave(Manner(status=status, headers={"Location": "http://127.0.0.1:1/elsewhere"}, after=2))
    provider = new(http_server.url)
    # What was delivered is told before it blocks.
    with pytest.raises(SendFailed, match=f"HTTP {status}") as failed:
        provider.send(make_batch(1, 5))
    assert list(failed.value.undelivered or ()) == [2, 3, 4]
    assert not failed.value.uncertain
    with pytest.raises(ProviderUnusable, match=f"127.0.0.1:{http_server.port}: HTTP {status}"):
        provider.send(make_batch(3, 3))
    http_server.behave()
    provider.send(make_batch(3, 3))
    assert numbers(http_server) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("body", ["raw", "array"])
def test_retry_after_is_told(http_server: HttpServer, new: New, body: str) -> None:
    http_server.behave(Manner(status=429, headers={"Retry-After": "7"}, times=1))
    provider = new(f"{http_server.url}?mb.body={body}&mb.retry_after_max=5s")
    with pytest.raises(SendFailed, match="HTTP 429") as failed:
        provider.send(make_batch(1, 3))
    assert (failed.value.retry_after, failed.value.uncertain) == (5.0, False)
    provider.send(make_batch(1, 3))
    assert numbers(http_server) == [1, 2, 3]


def test_a_request_that_is_too_large_is_cut_and_later_ones_are_smaller(http_server: HttpServer, new: New) -> None:
    http_server.behave(Manner(largest=20_000))
    provider = new(f"{http_server.url}?mb.body=array")
    provider.send(make_batch(1, 300, size=300))
    assert numbers(http_server) == list(range(1, 301))
    seen = _count(http_server)
    http_server.behave(Manner(largest=20_000, status=503))
    with pytest.raises(SendFailed, match="HTTP 503"):
        # Not 413: it is small enough at the first attempt.
        provider.send(make_batch(301, 300, size=300))
    http_server.behave(Manner(largest=20_000))
    large = ONE._replace(sequence=2, value=b"x" * 30_000)
    with pytest.raises(SendFailed, match="1 of 3 messages were refused: .*HTTP 413: at most 20000 bytes") as failed:
        provider.send(batch_of([ONE, large, ONE._replace(sequence=3)]))
    assert list(failed.value.rejected) == [1]
    assert _count(http_server) - seen <= 2


def _count(server: HttpServer) -> int:
    return len(server.stored())


@pytest.mark.parametrize("body", ["raw", "json", "array", "ndjson"])
def test_a_message_that_is_refused_is_found_and_rejected_alone(http_server: HttpServer, new: New, body: str) -> None:
    http_server.behave(Manner(poison="poison"))
    messages = [ONE._replace(sequence=n, value=b"%d" % n) for n in range(1, 101)]
    messages[36] = messages[36]._replace(value=b"poison")
    messages[80] = messages[80]._replace(value=b"poison")
    with pytest.raises(SendFailed, match="2 of 100 messages were refused: .*HTTP 422: this is not to be") as failed:
        new(f"{http_server.url}?mb.body={body}").send(batch_of(messages))
    assert sorted(failed.value.rejected) == [36, 80]
    assert list(failed.value.undelivered or ()) == []
    assert numbers(http_server) == [n for n in range(1, 101) if n not in (37, 81)]


def test_the_endpoint_may_tell_of_each_message(http_server: HttpServer, new: New) -> None:
    http_server.behave(Manner(each=True, poison="poison", busy="busy"))
    provider = new(f"{http_server.url}?mb.body=ndjson&mb.results=items")
    values = [b"1", b"poison", b"3", b"busy", b"5"]
    messages = [ONE._replace(sequence=n, value=value) for n, value in enumerate(values, 1)]
    with pytest.raises(SendFailed, match="HTTP 503: later") as failed:
        provider.send(batch_of(messages))
    assert list(failed.value.rejected) == [1]
    # What came behind the one that is tried again is sent again, too: the order is kept, and 5 may be there twice.
    assert list(failed.value.undelivered or ()) == [3, 4]
    assert failed.value.uncertain
    http_server.behave(Manner(each=True))
    provider.send(batch_of(messages[3:]))
    assert [item.value for item in items(http_server)] == [b"1", b"3", b"5", b"busy", b"5"]
    # An endpoint that does not tell is not taken for one that has it.
    http_server.behave()
    with pytest.raises(ProviderUnusable, match="no list 'items' with a status for each of 5 messages"):
        provider.send(batch_of(messages))


def test_an_endpoint_that_takes_a_request_and_does_not_say_so(http_server: HttpServer, new: New) -> None:
    http_server.behave(Manner(hang_up=True, times=1))
    provider = new(f"{http_server.url}?mb.body=array")
    with pytest.raises(SendFailed, match="disconnected without sending a response") as failed:
        provider.send(make_batch(1, 10))
    assert failed.value.uncertain
    provider.send(make_batch(1, 10))
    keys = [request.header("Idempotency-Key") for request in http_server.stored()]
    assert keys == [f"{'b' * 32}:main:1-10"] * 2


def test_an_endpoint_that_drops_repeats_has_each_once(new: New) -> None:
    with HttpServer(drop_repeats=True) as server:
        provider = new(server.url)
        server.behave(Manner(hang_up=True, after=3, times=1))
        with pytest.raises(SendFailed) as failed:
            provider.send(make_batch(1, 10))
        assert list(failed.value.undelivered or ()) == list(range(3, 10))
        server.kill()
        server.behave()
        with pytest.raises(SendFailed, match="refused"):
            provider.send(make_batch(4, 7))
        server.restart()
        provider.send(make_batch(4, 7))
        assert numbers(server) == list(range(1, 11))


def test_who_does_not_speak_http(new: New, promised: Callable[[float], float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        provider = new(f"http://127.0.0.1:{port}?mb.timeout=300ms")
        began = time.monotonic()
        with pytest.raises(SendFailed, match="takes connections, but does not answer in time") as failed:
            provider.send(make_batch(1, 1))
        assert failed.value.uncertain
        assert time.monotonic() - began < promised(2)
        with pytest.raises(SendFailed, match="no encryption in time .*leave out the s of https:|no connection in time"):
            new(f"https://127.0.0.1:{port}?mb.connect_timeout=300ms")

        enough = threading.Event()

        def answer() -> None:
            while not enough.is_set():
                connection, _ = listener.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.recv(65536)
                    connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SendFailed, match="does not answer as HTTP has it"):
            provider.send(make_batch(1, 1))
        enough.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
    with pytest.raises(SendFailed, match=f"127.0.0.1:{port}: cannot be reached: .*refused") as refused:
        new(f"http://127.0.0.1:{port}")
    assert not refused.value.uncertain
    with pytest.raises(SendFailed, match="cannot be resolved"):
        new("http://no-such-host.invalid/")


def test_topics_that_cannot_stand_in_a_url_are_rejected_alone(http_server: HttpServer, new: New) -> None:
    topics = ["a", "..", "b", ".", "ü" * 30_000, "a/../c"]
    messages = [ONE._replace(sequence=n, topic=topic) for n, topic in enumerate(topics, 1)]
    with pytest.raises(SendFailed, match="3 of 6 messages were refused: .*the topic '..' cannot stand in") as failed:
        new(f"{http_server.url}/{{topic}}?mb.body=ndjson").send(batch_of(messages))
    assert sorted(failed.value.rejected) == [1, 3, 4]
    assert [request.target for request in http_server.stored()] == ["/inbox/a", "/inbox/b", "/inbox/a%2F..%2Fc"]


def test_more_headers_than_the_endpoint_takes_are_refused_alone(http_server: HttpServer, new: New) -> None:
    many = ONE._replace(sequence=2, headers=tuple((f"h{n}", b"") for n in range(200)))
    with pytest.raises(SendFailed, match="1 of 3 messages were refused: .*HTTP 431") as failed:
        new(http_server.url).send(batch_of([ONE, many, ONE._replace(sequence=3)]))
    assert list(failed.value.rejected) == [1]
    assert [item.sequence for item in items(http_server)] == [1, 3]


# -- who we are ----------------------------------------------------------------------------------


def test_a_token_may_change_in_its_file(http_server: HttpServer, new: New, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    http_server.behave(Manner(authorization="Bearer second-token"))
    provider = new(f"{http_server.url}?mb.token_file={file}")
    with pytest.raises(ProviderUnusable, match="HTTP 401: who are you\\?|HTTP 401.*; check user"):
        provider.send(make_batch(1, 1))
    file.write_text("second-token\n")
    provider.send(make_batch(1, 1))
    for content, words in (("", "holds no token"), ("a\nb", "holds no token"), ("ü", "not ASCII")):
        file.write_text(content)
        with pytest.raises(ProviderUnusable, match=words):
            provider.send(make_batch(2, 1))
    file.unlink()
    with pytest.raises(ProviderUnusable, match=f"cannot be read from {file}: No such file"):
        provider.send(make_batch(2, 1))
    assert numbers(http_server) == [1]


def test_secrets_stand_in_no_error_and_no_log(
    http_server: HttpServer, new: New, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "T0/B0/hunter-2")
    url = f"{http_server.url}/{{secret}}?mb.secret=env:HOOK_SECRET&mb.token=hunter-3&mb.header.X-Key=hunter-4"
    with caplog.at_level(logging.DEBUG):
        provider = new(url)
        provider.send(make_batch(1, 1))
        echo = '{"message": "no: /T0/B0/hunter-2, Bearer hunter-3, hunter-4"}'
        http_server.behave(
            Manner(status=403, body=echo, headers={"Content-Type": "application/json", "Location": "/T0/B0/hunter-2"})
        )
        with pytest.raises(ProviderUnusable, match=r"HTTP 403: no: /\*\*\*") as refused:
            provider.send(make_batch(2, 1))
    (request,) = http_server.stored()
    assert request.target == "/inbox/T0/B0/hunter-2"
    assert request.header("Authorization") == "Bearer hunter-3"
    source = resolve(url)
    told = [caplog.text, repr(source), repr(provider), repr(provider.describe())]
    told += traceback.format_exception(refused.value)
    assert "hunter" not in "\n".join(told)


# -- TLS and proxies -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_checks_both_sides(certificates: Certificates, new: New, caplog: pytest.LogCaptureFixture) -> None:
    pair = (str(certificates.server), str(certificates.server_key))
    with HttpServer(certificate=pair, authority=str(certificates.authority)) as server:
        ours = f"mb.tls_cert={certificates.client}&mb.tls_key={certificates.client_key}"
        provider = new(f"{server.url}?mb.body=array&mb.tls_ca={certificates.authority}&{ours}")
        provider.send(make_batch(1, 3000, size=1000))
        assert numbers(server) == list(range(1, 3001))
        assert provider.describe()["security"] == "tls on"
        with pytest.raises(ProviderUnusable, match="certificate was refused: .*; check mb.tls_ca"):
            new(f"{server.url}?mb.tls_ca={certificates.stranger}&{ours}")
        with pytest.raises(ProviderUnusable, match="encryption was refused: .*certificate"):
            new(f"{server.url}?mb.tls_ca={certificates.authority}").send(make_batch(1, 1))
        caplog.set_level(logging.WARNING)
        careless = new(f"{server.url}?mb.tls_verify=false&{ours}")
        assert careless.describe()["security"] == "tls on, not verified"
        assert "certificate is not checked" in caplog.text
        with pytest.raises(SendFailed, match="does it expect TLS[?] then give https:"):
            new(f"http://127.0.0.1:{server.port}/").send(make_batch(1, 1))


def test_tls_to_who_does_not_speak_it(http_server: HttpServer, new: New) -> None:
    with pytest.raises((SendFailed, ProviderUnusable), match="127.0.0.1"):
        new(f"https://127.0.0.1:{http_server.port}/?mb.tls_verify=false")
    # Who has answered before has another trouble.
    provider = new(f"{http_server.url}?mb.body=array")
    for hint in (r" \(does it expect TLS[?] then give https:\)$", "without sending a response[.]$"):
        http_server.behave(Manner(hang_up=True))
        with pytest.raises(SendFailed, match=hint):
            provider.send(make_batch(1, 1))
        http_server.behave()
        provider.send(make_batch(1, 1))


def test_proxies(
    http_server: HttpServer, certificates: Certificates, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_proxy("kit:hush-hush") as proxy:
        by = f"mb.proxy=http://kit:hush-hush@127.0.0.1:{proxy.port}"
        new(f"{http_server.url}?{by}").send(make_batch(1, 2))
        assert proxy.seen == [f"POST {http_server.url}"] * 2
        with HttpServer(certificate=(str(certificates.server), str(certificates.server_key))) as secured:
            provider = new(f"{secured.url}?{by}&mb.tls_ca={certificates.authority}")
            provider.send(make_batch(1, 2))
            assert provider.describe()["proxy"] == "yes"
            assert proxy.seen[2:] == [f"CONNECT 127.0.0.1:{secured.port}"]
            assert numbers(secured) == [1, 2]
            refused = f"mb.proxy=http://127.0.0.1:{proxy.port}"
            with pytest.raises(ProviderUnusable, match="proxy does not connect us: 407"):
                new(f"{secured.url}?{refused}&mb.tls_ca={certificates.authority}").send(make_batch(3, 1))
        with pytest.raises(ProviderUnusable, match="HTTP 407.*mb.proxy"):
            new(f"{http_server.url}?{refused}").send(make_batch(3, 1))
        before = len(proxy.seen)
        monkeypatch.setenv("http_proxy", f"http://kit:hush-hush@127.0.0.1:{proxy.port}")
        new(http_server.url).send(make_batch(3, 1))
        assert len(proxy.seen) == before, "the environment was not asked for"
        new(f"{http_server.url}?mb.proxy=environment").send(make_batch(4, 1))
        assert len(proxy.seen) == before + 1
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        new(f"{http_server.url}?mb.proxy=environment").send(make_batch(5, 1))
        assert len(proxy.seen) == before + 1
        assert numbers(http_server) == [1, 2, 3, 4, 5]


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("http:", "hosts"),
        ("http:///path", "hosts"),
        ("http://one,two/", "hosts"),
        ("http://h/{tpoic}", "path"),
        ("http://h/{", "path"),
        ("http://h/?a={x}", "query"),
        ("http://h/{secret}", "secret"),
        ("http://h/?mb.secret=x", "secret"),
        ("http://user@h/", "password"),
        ("http://user:pw@h/?mb.token=x", "token"),
        ("http://h/?mb.token=x&mb.token_file=/x", "token_file"),
        ("http://h/?mb.tls_ca=/x", "tls_ca"),
        ("https://h/?mb.tls_key=/x", "tls_key"),
        ("https://h/?mb.tls_ca=/nowhere/ca.pem", "tls_ca"),
        ("http://h/?mb.method=GET", "method"),
        ("http://h/?mb.body=arry", "body"),
        ("http://h/?mb.items=value", "items"),
        ("http://h/?mb.results=items", "results"),
        ("http://h/?mb.body=array&mb.forward=traceparent", "forward"),
        ("http://h/?mb.forward=Host", "forward"),
        ("http://h/?mb.header.Content-Length=5", "header"),
        ("http://h/?mb.header.a%20b=5", "header"),
        ("http://h/?mb.header.X=a%0d%0aEvil:1", "header"),
        ("http://h/?mb.content_type=%C3%BC", "content_type"),
        ("http://h/?mb.idempotency=a%20b", "idempotency"),
        ("http://h/?mb.accept=200", "accept"),
        ("http://h/?mb.accept=409&mb.reject=409", "reject"),
        ("http://h/?mb.proxy=socks5://h:1", "proxy"),
        ("http://h/?mb.timeout=0s", "timeout"),
        ("http://h/?mb.request_messages=0", "request_messages"),
        ("http://h/?mb.timeot=1s", "timeot"),
    ],
)
def test_a_wrong_url_is_refused(url: str, option: str) -> None:
    assert why_refused(url, option).startswith("provider 'http")


def test_what_belongs_to_the_endpoint_is_left_alone(http_server: HttpServer, new: New) -> None:
    new(f"{http_server.url}%2Fx/?b=2&a=%26&flag&mb.body=json&timeout=5").send(make_batch(1, 1))
    assert [request.target for request in http_server.stored()] == ["/inbox%2Fx/?b=2&a=%26&flag&timeout=5"]


def test_the_documented_example_works(http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in documented_examples("http"):
        exec(example.replace("http://127.0.0.1:8080/inbox", http_server.url), {"server": http_server})
    assert items(http_server)


# -- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopping", "close"])
def test_a_wait_ends_when_the_buffer_stops_or_closes(
    http_server: HttpServer, new: New, how: str, promised: Callable[[float], float]
) -> None:
    assert "the buffer is closing" in waits_end(f"{http_server.url}?mb.timeout=300s", http_server, how, promised(4))
    # Thawed, it would store the request that was under way in the middle of the next test.
    http_server.kill()


def test_many_requests_end_between_two_when_the_buffer_stops(http_server: HttpServer, new: New) -> None:
    provider = new(http_server.url)
    assert isinstance(provider, HttpProvider)
    http_server.behave(Manner(pause=0.02))
    stop = threading.Timer(0.3, provider._context.stopping.set)
    stop.start()
    with pytest.raises(SendFailed, match="the buffer is closing") as failed:
        provider.send(make_batch(1, 1000))
    stop.join()
    left = list(failed.value.undelivered or ())
    assert numbers(http_server) == list(range(1, left[0] + 1))
    assert (left[-1], failed.value.uncertain) == (999, False)


def test_refused_messages_reach_the_dead_letters_with_the_reason(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.behave(Manner(poison="poison"))
    with MessageBuffer(tmp_path / "b", f"{http_server.url}?mb.body=array", mode="always") as buffer:
        buffer.write_many("orders", [b"%d" % n for n in range(20)])
        buffer.write("orders", b"poison")
        buffer.write_many("orders", [b"%d" % n for n in range(20, 40)])
        buffer.flush(60)
        status = buffer.status()
        assert (status.delivered, status.dead, status.lost) == (40, 1, 0)
    assert numbers(http_server) == list(range(40))
