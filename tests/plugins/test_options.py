from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.errors import BrokenPlugin, ConfigurationError, MessageBufferError
from mbframework.plugins import option
from mbframework.plugins.options import describe_options, parse_options, secret_values
from mbframework.plugins.secret import scrub
from mbframework.plugins.url import parse_url


class Compression(enum.Enum):
    NONE = "none"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    hosts: tuple[str, ...] = option((), part="hosts")
    username: str | None = option(None, part="username")
    password: str | None = option(None, part="password")
    path: str = option("", part="path")
    scheme: str = option("", part="scheme")
    client: Mapping[str, str] = option(factory=dict, part="client")
    rate: float | None = option(None, help="Messages per second it takes.", unit="messages/s")
    latency: float = option(0.0, unit="s")
    size: int = option(1 << 20, unit="bytes")
    acks: int | Literal["all"] = option("all")
    compression: Compression = option(Compression.NONE)
    level: Literal["read", "write", 3, "4"] = option("read")
    topics: tuple[str, ...] = option(())
    ports: tuple[int, ...] = option(())
    wait: bool = option(False)
    pin: int | None = option(None, secret=True)
    plain: int = 7

    def __post_init__(self) -> None:
        if self.rate == 13:
            raise ConfigurationError(f"rate may not be 13 with password {self.password!r}", option="rate")
        if self.rate == 14:
            raise ZeroDivisionError(f"with password {self.password}")


def parse(text: str = "x:", **mapping: object) -> Any:
    return parse_options("x", Options, url=parse_url(text), mapping=mapping)


def test_parts_of_the_url_reach_their_options() -> None:
    options = parse("x://me:env@h1:1,h2:2/a%20b?client.acks=1&client.a.b=c")
    assert (options.username, options.password) == ("me", "env")
    assert (options.hosts, options.path, options.scheme) == (("h1:1", "h2:2"), "/a b", "x")
    assert options.client == {"acks": "1", "a.b": "c"}
    assert parse() == Options(scheme="x")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "2.5", 2.5),
        ("latency", "250ms", 0.25),
        ("size", "64MiB", 64 << 20),
        ("acks", "all", "all"),
        ("acks", "1", 1),
        ("compression", "zstd", Compression.ZSTD),
        ("level", "3", 3),
        ("topics", "a, b", ("a", "b")),
        ("topics", "", ()),
        ("ports", "1,2", (1, 2)),
        ("wait", "Yes", True),
        ("plain", "8", 8),
    ],
)
def test_text_and_python_values_become_the_declared_type(name: str, text: str, value: object) -> None:
    for given_value in (text, value):
        converted = getattr(parse(**{name: given_value}), name)
        assert (converted, type(converted)) == (value, type(value))
    assert getattr(parse(f"x:?{name}={text}"), name) == value


def test_a_mapping_may_give_every_option_and_numbers_to_the_client() -> None:
    options = parse(hosts=["h:1"], password="p", path="/p", client={"acks": 1, "fast": True}, **{"client.b": "c"})
    assert (options.hosts, options.password, options.path) == (("h:1",), "p", "/p")
    assert parse(level=4).level == "4"
    assert options.client == {"acks": "1", "fast": "true", "b": "c"}


@pytest.mark.parametrize(
    ("text", "mapping", "words"),
    [
        ("x:?ratte=1", {}, r"no option 'ratte'; did you mean 'rate'\? It takes hosts, .*plain"),
        ("x:?unlike=1", {}, r"no option 'unlike'\. It takes hosts, "),
        ("x:", {"Rate": 1}, r"no option 'Rate'; did you mean 'rate'\?"),
        ("x:?rate=fast", {}, "option 'rate': 'fast' is wrong; expected a number"),
        ("x:?latency=5 parsecs", {}, "expected a time such as"),
        ("x:?size=5M", {}, "expected a size such as"),
        ("x:?compression=zst", {}, r"expected one of none, zstd; did you mean 'zstd'\?"),
        ("x:?level=raed", {}, r"expected one of read, write, 3, 4; did you mean 'read'\?"),
        ("x:?acks=some", {}, "expected a whole number or one of all"),
        ("x:?ports=1,b", {}, "expected a whole number, or several"),
        ("x:", {"wait": 1}, "expected true or false"),
        ("x:", {"plain": 1.5}, "expected a whole number"),
        ("x:", {"plain": True}, "expected a whole number"),
        ("x:", {"rate": float("nan")}, "expected a number"),
        ("x:", {"topics": 5}, "'topics': 5 is wrong"),
        ("x:", {"path": 5}, "'path': 5 is wrong; expected text"),
        ("x:", {"level": 3.0}, "'level': 3.0 is wrong"),
        ("x:?rate=1&rate=2", {}, "'rate' is given twice"),
        ("x://h?hosts=h", {}, "'hosts' is given twice"),
        ("x:?client.a=1&client.a=1", {}, "'client.a' is given twice"),
        ("x:?rate=1", {"rate": 1}, "in the URL and beside it"),
        ("x:?client.a=1", {"client": {"a": 2}}, "'client.a' is given in the URL and beside it"),
        ("x:?client=1", {}, "client.<name>=<value>"),
        ("x:", {"client": 1}, "must be a mapping"),
        ("x:?scheme=y", {}, "the scheme of the URL"),
        ("x:?rate=13", {"password": None}, "provider 'x': rate may not be 13 with password None"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(text: str, mapping: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_options("x", Options, url=parse_url(text), mapping=mapping)
    assert "provider 'x'" in str(caught.value)
    assert caught.value.option


@dataclass(frozen=True, slots=True, kw_only=True)
class Needy:
    path: str = option(part="path")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x:", "needs option 'path': text; it is the path of the URL"),
        ("x://out/file.db", "takes no host; a relative path is written 'x:file'"),
        ("x://u@/file.db", "takes no user name"),
    ],
)
def test_a_missing_option_and_a_part_that_nothing_takes_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_options("x", Needy, url=parse_url(text))


def test_secrets_come_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_PASSWORD", "hunter2")
    (tmp_path / "secret").write_text("pa ss\r\n")
    assert parse("x://u:env:A_PASSWORD@h").password == "hunter2"
    assert parse(f"x:?password=file:{tmp_path}/secret").password == "pa ss"
    options = parse(client={"sasl_password": "env:A_PASSWORD", "title": "env:A_PASSWORD"}, path="env:A_PASSWORD")
    assert options.client == {"sasl_password": "hunter2", "title": "env:A_PASSWORD"}
    assert options.path == "env:A_PASSWORD"
    with pytest.raises(ConfigurationError, match="'password' .* environment variable 'NOT_SET', which is not set"):
        parse(password="env:NOT_SET")
    with pytest.raises(ConfigurationError, match="'password' .*nothing': No such file"):
        parse(password=f"file:{tmp_path}/nothing")


def test_help_describes_every_option_in_words() -> None:
    infos = {info.name: info for info in describe_options("x", Options)}
    assert list(infos) == list(Options.__slots__)
    rate = infos["rate"]
    assert (rate.type, rate.unit, rate.help) == ("a number", "messages/s", "Messages per second it takes.")
    assert (infos["size"].default, infos["size"].required, infos["client"].type) == (1 << 20, False, "text")
    assert describe_options("x", Needy)[0].required
    assert infos["password"].secret
    assert infos["pin"].secret


@dataclass(frozen=True)
class Endpoint:
    hosts: tuple[str, ...] = option((), part="hosts")
    path: str = option("", part="path")
    query: str = option("", part="query")
    timeout: float = option(1.0, unit="s")


def test_an_endpoint_keeps_its_own_path_and_query_as_they_are_written() -> None:
    url = parse_url("https://h/a%2Fb?q=c+d&q=%zz&mb.timeout=5s&flag")
    options = parse_options("https", Endpoint, url=url, own_prefix="mb.")
    assert options == Endpoint(hosts=("h",), path="/a%2Fb", query="q=c+d&q=%zz&flag", timeout=5.0)
    with pytest.raises(ConfigurationError, match=r"no option 'mb.timout'; did you mean 'mb.timeout'\?"):
        parse_options("https", Endpoint, url=parse_url("https://h?mb.timout=5s"), own_prefix="mb.")


class Undeclared:
    pass


@dataclass
class WrongClient:
    client: str = option("", part="client")


@pytest.mark.parametrize("declared", [Undeclared, WrongClient])
def test_a_wrong_declaration_is_the_plugins_fault(declared: type) -> None:
    with pytest.raises(BrokenPlugin, match="provider 'x'"):
        describe_options("x", declared)


#: Begins with what no message says of itself.
SECRET = st.text(st.characters(codec="utf-8"), min_size=3, max_size=20).map(lambda text: "§" + text)


@given(secret=SECRET, rate=st.sampled_from(["1", "13", "14", "fast"]), name=st.sampled_from(["password", "pin", "q"]))
def test_a_secret_is_in_no_error_and_no_display(secret: str, rate: str, name: str) -> None:
    text = f"x:?rate={rate}&{name}={''.join(f'%{byte:02X}' for byte in secret.encode())}"
    shown = [repr(parse_url(text)) if name != "q" else ""]
    try:
        options = parse_options("x", Options, url=parse_url(text))
    except MessageBufferError as error:
        shown += [str(error), repr(error), str(error.__cause__)]
    else:
        shown += [repr(options), scrub(f"login failed: {secret}", secret_values(options))]
    assert not any(secret in one for one in shown)
