"""The configuration: every source says the same, every mistake is named before anything is created."""

from __future__ import annotations

import functools
import json
import logging
import os
import pickle
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbframework import MessageBuffer
from mbframework.config import DEFAULTS, MIN_SEGMENT_SIZE, OPTIONS, Config
from mbframework.config_reference import reference, renewed
from mbframework.errors import ConfigurationError, MessageBufferError, UnknownProvider
from mbframework.units import GiB, KiB, MiB

DOCS = Path(__file__).parent.parent / "docs"

#: A value other than the default for each option: as a text for the environment, and in base units.
OTHER: dict[str, tuple[str, object]] = {
    "directory": ("/var/spool/outbox", "/var/spool/outbox"),
    "provider": ("kafka://k1:9092,k2:9092", "kafka://k1:9092,k2:9092"),
    "provider_options": ('{"compression": "zstd"}', {"compression": "zstd"}),
    "lane": ("orders-1", "orders-1"),
    "lanes": ('{"a": "b"}', {"a": "b"}),
    "observers": ("prometheus, otel", ("prometheus", "otel")),
    "mode": ("always", "always"),
    "channel_messages": ("1000", 1000),
    "channel_bytes": ("2MiB", 2 * MiB),
    "live_wait": ("250ms", 0.25),
    "live_after": ("5s", 5.0),
    "segment_size": ("64MiB", 64 * MiB),
    "segment_age": ("1h30m", 5400.0),
    "total_size": ("1.5GB", 1_500_000_000),
    "max_segments": ("5000", 5000),
    "min_free": ("0", 0),
    "on_full": ("reject", "reject"),
    "block_timeout": ("10s", 10.0),
    "retain_delivered": ("1h", 3600.0),
    "expire_after": ("7d", 604_800.0),
    "dead_total_size": ("1MiB", MiB),
    "dir_mode": ("2770", 0o2770),
    "fsync": ("never", "never"),
    "fsync_interval": ("500ms", 0.5),
    "linger": ("5ms", 0.005),
    "batch_messages": ("500", 500),
    "batch_bytes": ("64KiB", 64 * KiB),
    "retry_wait": ("1s", 1.0),
    "retry_wait_max": ("1m", 60.0),
    "max_rate": ("5000.5", 5000.5),
    "catch_up": ("full", "full"),
    "max_rejections": ("7", 7),
    "share": ("no", False),
    "max_lanes": ("3", 3),
    "adopt_after": ("1m", 60.0),
    "lock_timeout": ("0", 0.0),
    "close_timeout": ("1m", 60.0),
    "status_interval": ("200ms", 0.2),
    "shrink": ("on", True),
    "rebind": ("1", True),
    "identity": ("adopt", "adopt"),
    "on_newer": ("fresh-lane", "fresh-lane"),
    "force_filesystem": ("TRUE", True),
}


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def toml(values: Mapping[str, object]) -> str:
    """The values as lines of TOML; JSON's texts, numbers and lists are TOML's too."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
            lines.append(f"{name} = {{ {inner} }}")
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines)


def mistake(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make()
    return str(caught.value)


# -- every option, from every source ------------------------------------------------------------


def test_the_table_of_this_module_has_every_option() -> None:
    assert list(OTHER) == list(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_is_valid_and_its_text_in_the_reference_means_the_same(name: str) -> None:
    option, default = OPTIONS[name], DEFAULTS[name]
    assert option.parse(default, name) == default
    assert option.parse(option.show(default), name) == default


def test_the_environment_gives_every_option() -> None:
    environ = {f"MBFRAMEWORK_{name.upper()}": text for name, (text, _) in OTHER.items()}
    config = Config.from_env(environ)
    assert {name: getattr(config, name) for name in OPTIONS} == {name: value for name, (_, value) in OTHER.items()}


def test_base_units_and_texts_give_every_option_alike(tmp_path: Path) -> None:
    base = {name: value for name, (_, value) in OTHER.items()}
    config = Config.from_mapping(base)
    assert config == Config.from_mapping({name: text for name, (text, _) in OTHER.items()})
    assert config == Config.from_toml(written(tmp_path / "outbox.toml", toml(base)))
    assert config == Config().replace(**base)
    assert config == Config(**base)  # type: ignore[arg-type]
    assert all(getattr(config, name) != DEFAULTS[name] for name in OPTIONS)


def test_a_config_is_frozen_hashable_and_can_be_pickled() -> None:
    config = Config(provider="fake://", provider_options={"rate": 5})
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(config.replace())
    with pytest.raises(AttributeError):
        config.mode = "always"  # type: ignore[misc]


def test_the_options_of_a_provider_are_a_copy() -> None:
    given_options = {"rate": 5}
    config = Config.from_mapping({"provider_options": given_options})
    given_options["rate"] = 6
    assert config.provider_options == {"rate": 5}


# -- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written_as, meant",
    [
        ("segmentsize", "segment_size"),
        ("segment-size", "segment_size"),
        ("Max_Rate", "max_rate"),
        ("lanee", "lane"),
        ("expires_after", "expire_after"),
        ("total_sise", "total_size"),
        ("retrywait", "retry_wait"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(written_as: str, meant: str) -> None:
    assert mistake(lambda: Config.from_mapping({written_as: 1})) == (
        f"unknown option {written_as!r}; did you mean {meant!r}?"
    )
    assert "did you mean" in mistake(lambda: Config().replace(**{written_as: 1}))


def test_an_unknown_name_like_no_other_says_where_all_are() -> None:
    assert mistake(lambda: Config.from_mapping({"xyzzy": 1}, source="a.toml")) == (
        "a.toml: unknown option 'xyzzy'; all options: python -m mbframework.config_reference"
    )


@pytest.mark.parametrize(
    "name, value",
    [
        ("mode", "buffers"),
        ("mode", 3),
        ("segment_size", "64KB"),
        ("segment_size", True),
        ("segment_age", "0s"),
        ("total_size", None),
        ("max_segments", 3),
        ("max_segments", 4.0),
        ("max_segments", "many"),
        ("channel_messages", 32_769),
        ("channel_bytes", 8 * MiB + 1),
        ("live_wait", 0),
        ("expire_after", "never"),
        ("max_rate", 0),
        ("max_rate", float("inf")),
        ("share", 1),
        ("share", "maybe"),
        ("dir_mode", 700),
        ("dir_mode", 0o600),
        ("dir_mode", 0o777),
        ("dir_mode", "rwx"),
        ("lane", "Main"),
        ("lane", "../x"),
        ("lane", ".hidden"),
        ("lane", "x" * 101),
        ("lane", "dead"),
        ("lane", "buffer.json"),
        ("lane", "main\n"),
        ("identity", "new"),
        ("observers", 5),
        ("observers", [""]),
        ("observers", "a,,b"),
        ("directory", ""),
        ("directory", "a\0b"),
        ("directory", 5),
        ("provider", "nothing"),
        ("provider_options", "not JSON"),
        ("provider_options", "[1]"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_option(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: .*expected") as caught:
        Config.from_mapping({name: value})
    assert caught.value.option == name
    assert mistake(lambda: Config(**{name: value})) == str(caught.value)  # type: ignore[arg-type]


SIZES, TIMES = "B, KiB, MiB, GiB, TiB, kB, MB, GB, TB", "d, h, m, s, ms, us, ns"
A_TIME = "expected seconds as a number, or a text such as '250ms', '10s', '1h30m' or '7d'"
A_MODE = "expected octal permission bits with all rights for the owner, such as 0o700 or 0o2770"


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("segment_size", -1, "-1: expected a size of 64KiB or more"),
        ("segment_size", "-1MiB", "'-1MiB': expected a size of 64KiB or more"),
        ("segment_size", float("nan"), "nan: expected a size of 64KiB or more"),
        ("channel_bytes", 1e400, "inf: expected a size from 64KiB to 8MiB"),
        ("min_free", -5, "-5: expected a size from 0 to 9223372036854775807 bytes"),
        ("min_free", "9" * 50, f"'{'9' * 50}': expected a size from 0 to 9223372036854775807 bytes"),
        ("segment_size", "10 MBs", f"'10 MBs': unknown unit 'MBs'; expected one of {SIZES}; did you mean 'MB'?"),
        ("segment_size", "64k", "'64k': expected '64kB' (decimal) or '64KiB' (binary)"),
        ("segment_age", -1, "-1: expected a time of 100ms or more"),
        ("segment_age", "-10s", "'-10s': expected a time of 100ms or more"),
        ("close_timeout", "-10s", "'-10s': expected a time from 0 to 9223372036 seconds (292 years)"),
        ("close_timeout", "9" * 50, f"'{'9' * 50}': expected a time from 0 to 9223372036 seconds (292 years)"),
        ("close_timeout", "10min", f"'10min': unknown unit 'min'; expected one of {TIMES}; did you mean 'm'?"),
        ("close_timeout", "3 hours", f"'3 hours': unknown unit 'hours'; expected one of {TIMES}; did you mean 'h'?"),
        ("close_timeout", "1h 30", f"'1h 30': '30' has no unit; expected one of {TIMES}"),
        ("close_timeout", "1,5s", f"'1,5s': {A_TIME}"),
        ("close_timeout", True, f"True: {A_TIME}"),
        ("max_rate", -1, "-1: expected messages per second, 0.001 or more"),
        ("max_lanes", -1, "-1: expected a whole number from 1 to 10,000"),
        ("share", "flase", "'flase': expected true or false; did you mean 'false'?"),
        ("dir_mode", 700, f"700: {A_MODE}; did you mean 0o700?"),
    ],
)
def test_nonsense_is_answered_with_what_is_expected(name: str, value: object, says: str) -> None:
    assert mistake(lambda: Config.from_mapping({name: value})) == f"{name}: {says}"


def test_a_rule_between_options_names_the_source_of_either(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", "retry_wait = 60")
    assert mistake(lambda: Config.layered(file=file, environ={"MBFRAMEWORK_RETRY_WAIT_MAX": "2s"})) == (
        f"{file}: retry_wait: 1m is longer than 2s (environment: MBFRAMEWORK_RETRY_WAIT_MAX); expected the same or less"
    )
    environ = {"MBFRAMEWORK_SEGMENT_SIZE": "1GiB"}
    assert "segments of 1GiB (environment: MBFRAMEWORK_SEGMENT_SIZE)" in mistake(lambda: Config.from_env(environ))


def test_a_wrong_provider_names_its_source(tmp_path: Path) -> None:
    def refused(config: Config, option: str = "") -> str:
        with pytest.raises(ConfigurationError) as caught, config.naming_provider():
            raise ConfigurationError("nonsense", option=option)
        return str(caught.value)

    environ = {"MBFRAMEWORK_PROVIDER": "sqlite:x"}
    assert refused(Config.from_env(environ)) == "environment: MBFRAMEWORK_PROVIDER: nonsense"
    # A change of something else, and a copy, forget nothing; a change of it does.
    changed = pickle.loads(pickle.dumps(Config.from_env(environ).replace(mode="always")))
    assert refused(changed) == "environment: MBFRAMEWORK_PROVIDER: nonsense"
    assert changed == Config(provider="sqlite:x", mode="always")
    assert refused(changed.replace(provider="file:x")) == "nonsense"
    assert refused(Config(provider="sqlite:x")) == "nonsense"
    labels = {"provider": "--provider"}
    assert refused(Config.layered(environ=environ, labels=labels, provider="file:x")) == "--provider: nonsense"
    text = '[mbframework]\nprovider = "sqlite:x"\nprovider_options = { rate = 5 }'
    config = Config.from_toml(written(tmp_path / "a.toml", text))
    assert refused(config) == f"{tmp_path / 'a.toml'}: [mbframework]: provider: nonsense"
    assert refused(config, "rate") == f"{tmp_path / 'a.toml'}: [mbframework]: provider_options: nonsense"

    with pytest.raises(UnknownProvider, match="^environment: MBFRAMEWORK_PROVIDER: no provider") as caught:
        with Config.from_env(environ).naming_provider():
            raise UnknownProvider("no provider is named 'x'", plugin="x")
    assert (caught.value.plugin, caught.value.provider) == ("x", "x")


#: What no option takes, or not as it stands; many also hide something that showing them trips over.
NONSENSE: list[object] = [
    "", " ", "nonsense", "-1", "1e3", "٣", "0x10", "://", "💥" * 1000, "\x1b[31m", "\ud800", "a\0b", -1, 1.5, 1e308,
    float("nan"), 2**70, 10**5000, True, [], [[]], [None], {}, {"a": {}}, b"x", (1, 2), object(),
    date(2026, 1, 1), Path("x"), functools.reduce(lambda inner, _: [inner], range(3000), []),
]  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_nonsense_is_taken_or_refused_by_name_from_every_source(name: str, tmp_path: Path) -> None:
    def check(make: Callable[[], Config], source: str) -> bool:
        refusal = None
        try:
            hash(make())
        except ConfigurationError as error:
            refusal = error
        if refusal is None:
            return False
        assert re.match(rf"{re.escape(source)}: .{{,400}}expected .{{,400}}$", str(refusal), re.DOTALL), refusal
        assert refusal.option == name
        return True

    file = tmp_path / "outbox.toml"
    variable = f"MBFRAMEWORK_{name.upper()}"
    refusals = 0
    for value in NONSENSE:
        refusals += check(functools.partial(Config.from_mapping, {name: value}), name)
        if isinstance(value, str):
            check(functools.partial(Config.from_env, {variable: value}), f"environment: {variable}")
        try:
            text = toml({name: value})
            tomllib.loads(text)
        except (TypeError, RecursionError, ValueError):
            continue  # no such value in a file
        check(functools.partial(Config.from_toml, written(file, text)), f"{file}: {name}")
    assert refusals > len(NONSENSE) / 2


@pytest.mark.parametrize(
    "text, says",
    [
        ("mode = " + "[" * 20_000, "lists or tables too deep in each other; expected options"),
        ("mode = " + "[" * 200 + "]" * 200, "mode: lists or tables more than 100 levels deep; expected one of block"),
        ("mode = [{" + "a." * 3000 + "b = 1}]", "mode: lists or tables more than 100 levels deep; expected one of"),
        ("provider_options.a = " + "[" * 200 + "]" * 200, "provider_options: lists or tables more than 100 levels"),
        ("total_size = 0x" + "f" * 50_000, "total_size: a number with too many digits; expected a size of 256KiB"),
        ("total_size = " + "9" * 50_000, "not TOML: "),
        ("observers = [5]", "observers: [5]: expected a list of names"),
        ("#" * (2 << 20), "more than 1MiB; expected the text of a configuration"),
    ],
)
def test_a_file_that_python_cannot_follow_is_a_mistake_like_any_other(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path / "a.toml", text)
    assert mistake(lambda: Config.from_toml(path)).startswith(f"{path}: {says}")


def test_json_that_python_cannot_follow_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    path = written(tmp_path / "config.json", '{"total_size": ' + "[" * 100_000)
    assert mistake(lambda: Config.from_json(path)).startswith(f"{path}: lists or tables too deep in each other")
    for depth in (900, 100_000):
        environ = {"MBFRAMEWORK_PROVIDER_OPTIONS": '{"a": ' + "[" * depth + "]" * depth + "}"}
        said = mistake(lambda environ=environ: Config.from_env(environ))  # type: ignore[misc]
        assert said.startswith("environment: MBFRAMEWORK_PROVIDER_OPTIONS: ")


@pytest.mark.parametrize("path", [5, b"a.toml", "", "a\0b", "/dev/zero", "/"])
def test_what_is_no_configuration_file(path: object) -> None:
    for read in (Config.from_toml, Config.from_json):
        assert "expected" in (said := mistake(lambda read=read: read(path))) or "cannot read" in said  # type: ignore[misc,arg-type]
    assert "section: int; expected" in mistake(lambda: Config.from_toml("pyproject.toml", 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option, value, says",
    [
        ("provider_options", {"rate": 5}, "options go with a provider URL, and none is given; expected one"),
        ("observers", ["nobody"], "no observer is named 'nobody'"),
        ("mode", "block", "'block' keeps nothing on disk and needs a provider; expected one, or mode 'always'"),
        ("fsync", "always", "'always' on tmpfs, which keeps nothing when the machine stops; expected a disk"),
        ("directory", "DIR/no/such", "DIR/no does not exist; make the parent directory first"),
        ("provider", "kafak://host", "no provider is named 'kafak'; did you mean 'kafka'?"),
    ],
)
def test_what_only_opening_finds_names_its_source_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: object, says: str
) -> None:
    directory = str(tmp_path / "outbox")
    if option == "fsync":
        if not os.path.isdir("/dev/shm"):
            pytest.skip("no tmpfs at /dev/shm; mount one there")
        directory = f"/dev/shm/mbframework-test-{os.getpid()}"
    if option == "directory":
        value = str(tmp_path / "no/such")
    says = says.replace("DIR", str(tmp_path))
    options: dict[str, object] = {"directory": directory, option: value}

    def refused(make: Callable[[], object]) -> str:
        with pytest.raises(MessageBufferError) as caught:
            make()
        return str(caught.value)

    keyword = "" if option == "provider" else f"{option}: "
    assert refused(lambda: MessageBuffer(**options)).startswith(keyword + says)  # type: ignore[arg-type]
    file = written(tmp_path / "a.toml", toml(options))
    assert refused(lambda: MessageBuffer.from_toml(file)).startswith(f"{file}: {option}: {says}")
    for name, each in options.items():
        text = each if isinstance(each, str) else ",".join(each) if isinstance(each, list) else json.dumps(each)
        monkeypatch.setenv(f"MBFRAMEWORK_{name.upper()}", text)
    variable = f"MBFRAMEWORK_{option.upper()}"
    assert refused(MessageBuffer.from_env).startswith(f"environment: {variable}: {says}")
    if option == "directory":
        original = written(tmp_path / "a.json", json.dumps({"buffer_dir": value}))
        assert refused(lambda: MessageBuffer.from_json(original)).startswith(f"{original}: buffer_dir: {says}")
    assert not os.path.exists(directory)


def test_what_is_passed_beside_a_file_is_not_blamed_on_it(tmp_path: Path) -> None:
    environ = {"MBFRAMEWORK_PROVIDER": "fake:", "MBFRAMEWORK_PROVIDER_OPTIONS": '{"rate": 5}'}
    config = Config.layered(directory=tmp_path / "outbox", environ=environ)
    with pytest.raises(ConfigurationError, match="^provider 'fake' has no option 'rat'"):
        MessageBuffer.from_config(config, "fake:?rat=5")
    with pytest.raises(ConfigurationError, match="^environment: MBFRAMEWORK_PROVIDER_OPTIONS: options go with"):
        MessageBuffer.from_config(config, lambda _: pytest.fail("it is not asked"))
    assert not (tmp_path / "outbox").exists()


def test_a_wrong_word_is_refused_with_the_nearest() -> None:
    assert mistake(lambda: Config.from_mapping({"mode": "bufer"})) == (
        "mode: 'bufer': expected one of block, raise, buffer, always; did you mean 'buffer'?"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"provider": "hunter2"},
        {"provider": ["kafka://me:hunter2@host"]},
        {"mode": "kafka://me:hunter2@host"},
        {"provider_options": '{"password": "hunter2"'},
        {"provider_options": ["hunter2"]},
        {"segment_size": {"password": "hunter2"}},
        {"provider": "kafka://me:hunter2@host", "total_size": "1MiB", "segment_size": "1MiB"},
    ],
)
def test_a_password_stands_in_no_error(values: dict[str, object]) -> None:
    assert "hunter2" not in mistake(lambda: Config.from_mapping(values))


def test_a_password_stands_in_no_repr() -> None:
    config = Config(provider="kafka://me:hunter2@host", provider_options={"password": "hunter2"})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.replace(mode="always"))


# -- rules between options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, words",
    [
        ({"total_size": "10MB", "segment_size": "5MB"}, ["total_size: 10MB", "20MB", "at most 2500kB"]),
        ({"segment_size": "1GiB"}, ["total_size: 1GiB", "4GiB or more"]),
        ({"total_size": "10TiB"}, ["total_size: 10TiB", "100,000 segments"]),
        ({"retry_wait": "1m"}, ["retry_wait: 1m", "30s (retry_wait_max)"]),
        ({"fsync": "always", "linger": "5ms"}, ["linger: 5ms", "'always' (fsync)"]),
    ],
)
def test_options_that_do_not_go_together(values: dict[str, object], words: list[str]) -> None:
    message = mistake(lambda: Config.from_mapping(values))
    assert all(word in message for word in words), message


@given(st.integers(4 * MIN_SEGMENT_SIZE, 1 << 40))
def test_segments_follow_a_small_total_size(total_size: int) -> None:
    config = Config.from_mapping({"total_size": total_size})
    assert MIN_SEGMENT_SIZE <= config.segment_size <= total_size // 4
    assert config.segment_size == 32 * MiB or total_size - 4 * config.segment_size < 4


def test_replace_keeps_the_rest_and_the_rules() -> None:
    config = Config.from_mapping({"segment_size": "1MiB", "mode": "always"}).replace(max_rate="100")
    assert (config.segment_size, config.mode, config.max_rate) == (MiB, "always", 100.0)
    assert "4MiB or more" in mistake(lambda: config.replace(total_size="3MiB"))


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, section",
    [
        ('mode = "always"', None),
        ('[mbframework]\nmode = "always"\n[other]\nmode = "x"', None),
        ('[project]\nname = "x"\n[tool.mbframework]\nmode = "always"', None),
        ('[outboxes.orders]\nmode = "always"\n[mbframework]\nmode = "raise"', "outboxes.orders"),
        ('\ufeffmode = "always"\r\n', None),
    ],
)
def test_the_tables_of_a_toml_file(tmp_path: Path, text: str, section: str | None) -> None:
    assert Config.from_toml(written(tmp_path / "a.toml", text), section).mode == "always"


@pytest.mark.parametrize(
    "text, section, words",
    [
        ("mode = ", None, "not TOML: "),
        ('mod = "always"', None, "unknown option 'mod'; did you mean 'mode'?"),
        ('[mbframework]\nmod = "always"', None, "[mbframework]: unknown option 'mod'; did you mean 'mode'?"),
        ('[mbframework]\nmode = "x"', None, "[mbframework]: mode: 'x': expected one of"),
        ("[mbframework]\n[tool.mbframework]", None, "both [tool.mbframework] and [mbframework]"),
        ("[project]", None, "unknown table [project]; expected the options in [tool.mbframework] or [mbframework]"),
        ("[orders]", "order", "no table [order]"),
        ("order = 5", "order", "no table [order]"),
        ("max_rate = nan", None, "max_rate: nan: expected messages per second, 0.001 or more"),
        ("retry_wait = 60", None, "retry_wait: 1m is longer than 30s (retry_wait_max); expected"),
        ("segment_age = 07:32:00", None, "segment_age: datetime.time(7, 32): expected seconds"),
    ],
)
def test_mistakes_in_a_toml_file(tmp_path: Path, text: str, section: str | None, words: str) -> None:
    path = written(tmp_path / "outbox.toml", text)
    assert mistake(lambda: Config.from_toml(path, section)).startswith(f"{path}: {words}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'mode = "\xe4"')
    assert "No such file" in mistake(lambda: Config.from_toml(tmp_path / "none"))
    assert "Is a directory" in mistake(lambda: Config.from_json(tmp_path))
    assert "not UTF-8 at byte 8" in mistake(lambda: Config.from_toml(tmp_path / "latin"))


ORIGINAL = {
    "file_max_time": 30,
    "file_max_size": 2,
    "total_size": 10,
    "buffer_dir": "/tmp/kafka",
    "prune_frequency": 10,
}


def test_the_original_s_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "config.json", json.dumps(ORIGINAL))
    with caplog.at_level(logging.INFO, "mbframework.config"):
        config = Config.from_json(path)
    assert config == Config(segment_age=30.0, segment_size=2_000_000, total_size=10_000_000, directory="/tmp/kafka")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "prune_frequency" in caplog.text
    assert Config.layered(file=path, mode="always") == config.replace(mode="always")


def test_the_original_s_file_with_units_other_case_and_fractions(tmp_path: Path) -> None:
    text = '{"File_Max_Time": "1m30s", "FILE_MAX_SIZE": "0.5", "total_size": "1GiB"}'
    config = Config.from_json(written(tmp_path / "config.json", text))
    assert (config.segment_age, config.segment_size, config.total_size) == (90.0, 500_000, GiB)


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "not JSON: "),
        ("[]", "expected a JSON object"),
        ('{"total_size": 10, "Total_Size": 20}', "'Total_Size' stands there twice"),
        ('{"file_max_tim": 30}', "unknown key 'file_max_tim'; did you mean 'file_max_time'?"),
        ('{"kafka_client_id": "x"}', "unknown key 'kafka_client_id'; expected one of file_max_time, "),
        ('{"segment_size": "1MiB"}', "unknown key 'segment_size'"),
        ('{"file_max_time": "soon"}', "file_max_time: 'soon': expected seconds"),
        ('{"file_max_time": 0}', "file_max_time: 0.0: expected a time of 100ms or more"),
        ('{"file_max_size": "2X"}', "file_max_size: '2X': unknown unit"),
        ('{"file_max_size": true}', "file_max_size: True: expected a number of MB"),
        ('{"total_size": 1e308}', "total_size: "),
        ('{"total_size": 10, "file_max_size": 5}', "total_size: 10MB is less than 4 segments"),
        ('{"buffer_dir": 5}', "buffer_dir: 5: expected a path"),
        ('{"prune_frequency": "often"}', "prune_frequency: 'often': expected a number of minutes"),
    ],
)
def test_mistakes_in_the_original_s_file(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path / "config.json", text)
    assert mistake(lambda: Config.from_json(path)).startswith(f"{path}: {words}")


# -- environment and precedence -----------------------------------------------------------------


def test_keywords_go_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", 'mode = "raise"\nlinger = "1ms"\nmax_lanes = 1')
    environ = {"MBFRAMEWORK_LINGER": "2ms", "MBFRAMEWORK_MAX_LANES": "2"}
    config = Config.layered(file=file, environ=environ, max_lanes=3)
    assert (config.mode, config.linger, config.max_lanes) == ("raise", 0.002, 3)
    assert Config.layered(environ=environ | {"MBFRAMEWORK_CONFIG": str(file)}, max_lanes=3) == config
    assert Config.layered() == Config()


def test_a_named_file_goes_before_the_one_in_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", 'mode = "raise"')
    environ = {"MBFRAMEWORK_CONFIG": str(tmp_path / "does-not-exist.toml")}
    assert Config.layered(file=file, environ=environ).mode == "raise"
    assert "does-not-exist.toml" in mistake(lambda: Config.from_env(environ))


def test_an_error_names_the_source_that_has_the_last_word(tmp_path: Path) -> None:
    file = written(tmp_path / "a.toml", 'mode = "x"')
    assert mistake(lambda: Config.layered(file=file)).startswith(f"{file}: mode: 'x'")
    environ = {"MBFRAMEWORK_MODE": "y"}
    assert mistake(lambda: Config.layered(file=file, environ=environ)).startswith("environment: MBFRAMEWORK_MODE: 'y'")
    assert mistake(lambda: Config.layered(file=file, environ=environ, mode="z")).startswith("mode: 'z'")
    assert Config.layered(file=file, environ=environ, mode="block").mode == "block"


def test_the_process_s_own_environment_is_read_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBFRAMEWORK_MODE", "always")
    assert Config.from_env().mode == "always"
    assert Config().mode == Config.layered().mode == "buffer"


def test_variables_that_are_not_options() -> None:
    others = ["CONFIG", "DIRS", "EXTENSION", "TEST_KAFKA", "SERVICE_HOST", "SERVICE_PORT", "PORT", "PORT_80_TCP_ADDR"]
    environ = {f"MBFRAMEWORK_{name}": "" for name in others} | {"PATH": "/bin", "MBFRAMEWORK_MODE": " "}
    assert Config.from_env(environ) == Config()
    assert mistake(lambda: Config.from_env({"MBFRAMEWORK_SEGMENT_SIZ": "1"})) == (
        "environment: unknown variable 'MBFRAMEWORK_SEGMENT_SIZ'; did you mean 'MBFRAMEWORK_SEGMENT_SIZE'?"
    )
    assert "did you mean" not in mistake(lambda: Config.from_env({"MBFRAMEWORK_XYZZY": "1"}))


def test_another_prefix() -> None:
    environ = {"ORDERS_MODE": "always", "MBFRAMEWORK_NONSENSE": "1"}
    assert Config.from_env(environ, prefix="ORDERS_").mode == "always"


# -- the reference ------------------------------------------------------------------------------


def test_the_reference_has_every_option_once() -> None:
    rows = [line.split("`")[1] for line in reference().splitlines() if line.startswith("| `")]
    assert rows == list(OPTIONS)
    assert all(line.count(" | ") == 3 for line in reference().splitlines() if line.startswith("| `"))
    assert all(option.help.endswith(".") and option.expected for option in OPTIONS.values())


def test_the_documentation_is_up_to_date() -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    assert page == renewed(page), "run: python -m mbframework.config_reference docs/configuration.md"


def test_a_page_without_markers_is_left_alone() -> None:
    with pytest.raises(ValueError, match="expected the line"):
        renewed("# Configuration\n")
