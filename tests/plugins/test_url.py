from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework.errors import ConfigurationError
from mbframework.plugins.url import ProviderURL, decode_item, mask_text, parse_url

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
HOST = st.from_regex(r"[a-z0-9.-]{1,12}|\[[0-9a-f:]{2,10}\]", fullmatch=True)
HOSTS = st.lists(st.tuples(HOST, st.none() | st.integers(1, 65_535)), max_size=4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kafka://k1:9092,k2:9092?a=b", ProviderURL("kafka", hosts=("k1:9092", "k2:9092"), items=("a=b",))),
        ("sqlite:out/file.db", ProviderURL("sqlite", path="out/file.db", raw_path="out/file.db")),
        ("sqlite:///abs/f.db", ProviderURL("sqlite", path="/abs/f.db", raw_path="/abs/f.db")),
        ("sqlite:/abs/f.db", ProviderURL("sqlite", path="/abs/f.db", raw_path="/abs/f.db")),
        ("fake:", ProviderURL("fake")),
        ("fake://", ProviderURL("fake")),
        ("FAKE://?rate=5000", ProviderURL("fake", items=("rate=5000",))),
        ("amqp://h/a%2Fb", ProviderURL("amqp", hosts=("h",), path="/a/b", raw_path="/a%2Fb")),
        ("x://[::1]:80,[fe80::1%eth0]", ProviderURL("x", hosts=("[::1]:80", "[fe80::1%eth0]"))),
        ("x://u@h", ProviderURL("x", username="u", hosts=("h",))),
        ("x://u:@h", ProviderURL("x", username="u", password="", hosts=("h",))),
        ("x://:p@h", ProviderURL("x", username="", password="p", hosts=("h",))),
        ("x://u:a+b#c@d:e%2F@h", ProviderURL("x", username="u", password="a+b#c@d:e/", hosts=("h",))),
        ("file:name with blanks#1", ProviderURL("file", path="name with blanks#1", raw_path="name with blanks#1")),
    ],
)
def test_what_a_url_means(text: str, expected: ProviderURL) -> None:
    assert parse_url(text) == expected


def test_values_are_decoded_and_a_plus_stays_a_plus() -> None:
    url = parse_url("x://h?a%20b=c+d%26e=f&g=")
    assert [decode_item(item, url.scheme, 1) for item in url.items] == [("a b", "c+d&e=f"), ("g", "")]


@given(
    scheme=st.from_regex(r"[a-z][a-z0-9+.-]{0,8}", fullmatch=True),
    userinfo=st.none() | st.tuples(TEXT, st.none() | TEXT),
    hosts=HOSTS,
    path=TEXT,
    options=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=4),
)
def test_what_is_written_percent_encoded_comes_back(
    scheme: str,
    userinfo: tuple[str, str | None] | None,
    hosts: list[tuple[str, int | None]],
    path: str,
    options: list[tuple[str, str]],
) -> None:
    authority = ",".join(host if port is None else f"{host}:{port}" for host, port in hosts)
    if userinfo:
        username, password = userinfo
        authority = f"{quote(username, '')}{'' if password is None else ':' + quote(password, '')}@{authority}"
    query = "&".join(f"{quote(name, '')}={quote(value, '')}" for name, value in options)
    text = f"{scheme}://{authority}/{quote(path)}{'?' if query else ''}{query}"
    url = parse_url(text)
    assert (url.username, url.password) == (userinfo or (None, None))
    assert ",".join(url.hosts) == ",".join(h if p is None else f"{h}:{p}" for h, p in hosts)
    assert url.path == f"/{path}"
    assert [decode_item(item, scheme, 1) for item in url.items] == options
    assert parse_url(url.render()) == url
    assert parse_url(url.masked()).hosts == url.hosts


@given(st.text(max_size=60) | st.from_regex(r"[a-z]{1,5}:(//)?[a-z:@/?&=%,\[\]1]{0,30}", fullmatch=True))
def test_any_text_parses_to_what_renders_the_same_or_is_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except ConfigurationError:
        assert mask_text(text).endswith("***")
    else:
        assert parse_url(url.render()) == url


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begins with the provider's name"),
        ("//hunter2@host", "begins with the provider's name"),
        ("x://h:0", "host number 1 of 1"),
        ("x://h1,h2:65536", "host number 2 of 2"),
        ("x://h1,,h2", "host number 2 of 3"),
        ("x://::1", "brackets"),
        ("x://user:hunter2/3@host", "percent-encode"),
        ("x://user:22/hunter2@host", "'@' after the host"),
        ("x://user:hunter2%@host", "the password has a '%'"),
        ("x://user:hunter2%ff@host", "not UTF-8"),
        ("x://user:hunter2\n@host", "unprintable"),
        ("x://user:hunter2\udce4@host", "unprintable"),
    ],
)
def test_a_malformed_url_is_refused_without_quoting_it(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in mask_text(text)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("item", ["hunter2", "=hunter2", "a=hunter2%"])
def test_a_malformed_option_is_refused_without_quoting_its_value(item: str) -> None:
    with pytest.raises(ConfigurationError, match="malformed") as caught:
        decode_item(item, "x", 2)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x://u:hunter2@h/p?a=b", "x://u:***@h/p?a=b"),
        ("x://h?api%5Fkey=hunter2&sasl.password=hunter2&a=b", "x://h?api%5Fkey=***&sasl.password=***&a=b"),
        ("x:?inner=kafka%3A%2F%2Fu%3Ahunter2%40h", "x:?inner=***"),
        ("x://h?a=b&hunter2", "x://h?a=b&***"),
        ("sqlite:file.db", "sqlite:file.db"),
    ],
)
def test_secrets_are_masked_by_their_names_where_no_plugin_tells(text: str, shown: str) -> None:
    assert mask_text(text) == str(parse_url(text)) == shown
    assert "hunter2" not in repr(parse_url(text))
