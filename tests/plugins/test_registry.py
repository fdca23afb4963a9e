from __future__ import annotations

import sys

import pytest

from mbframework.errors import (
    BrokenPlugin,
    ConfigurationError,
    MissingRequirement,
    PluginApiMismatch,
    PluginError,
    UnknownProvider,
)
from mbframework.observers import ObserverHub
from mbframework.plugins import registry
from mbframework.plugins.requirement import unmet
from mbframework.plugins.source import resolve_url
from mbframework.provider import Context
from tests.plugins.conftest import GOOD, Install


def test_names_are_listed_without_importing_and_load_imports_only_the_one_asked_for(install: Install) -> None:
    good = install("a-queue", GOOD, providers="queue")
    other = install("an-other", "raise RuntimeError('imported')", providers="other")
    assert {"queue", "other", "kafka", "sqlite"} <= set(registry.names())
    assert good not in sys.modules
    assert registry.load("queue").summary == "A queue."
    assert other not in sys.modules
    assert registry.load("queue") is registry.load("queue")


def test_an_entry_point_may_name_an_object(install: Install) -> None:
    code = GOOD.replace(
        "@hookimpl\ndef mbframework_provider():", "class Plugin:\n  @hookimpl\n  def mbframework_provider(self):"
    )
    install("a-queue", code + "\nplugin = Plugin()", providers="queue", value="{module}:plugin")
    assert registry.load("queue").name == "queue"


def test_an_unknown_name_is_refused_with_the_nearest_and_all_names(install: Install) -> None:
    install("a-queue", GOOD, providers="queue")
    with pytest.raises(UnknownProvider, match=r"'quue'; did you mean 'queue'\? Installed: .*kafka.*queue") as caught:
        registry.load("quue")
    assert isinstance(caught.value, ConfigurationError)
    assert caught.value.plugin == "quue"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError: No module", id="import"),
        pytest.param("raise SystemExit(3)", "cannot be imported: SystemExit", id="exit"),
        pytest.param("1 +", "cannot be imported: SyntaxError", id="syntax"),
        pytest.param("from mbframework.plugins import novelty", "another release.*plugin interface 1", id="newer-name"),
        pytest.param(
            GOOD.replace("api=1", "api=1, novelty=2"), "another release.*plugin interface 1", id="newer-field"
        ),
        pytest.param(
            GOOD.replace("def mbframework_provider", "def mbframework_provder"), "mbframework_provder", id="misspelt"
        ),
        pytest.param(GOOD.replace("mbframework_provider()", "mbframework_provider(url)"), "url", id="arguments"),
        pytest.param(GOOD.replace("@hookimpl", ""), "no mbframework_provider.*hookimpl", id="unmarked"),
        pytest.param(GOOD.replace("return ProviderType", "return dict"), "expected a ProviderType", id="returns"),
        pytest.param(GOOD.replace("    return", "    1 / 0\n    return"), "ZeroDivisionError", id="raises"),
        pytest.param(GOOD.replace("options=Options", "options=dict"), "must be a dataclass", id="options"),
        pytest.param(GOOD.replace("rate: float", "rate: complex"), "no option may have the type.*complex", id="type"),
        pytest.param(GOOD.replace("factory=dict", "factory=lambda: {}['x']"), "wrongly declared", id="default"),
        pytest.param(GOOD.replace("api=1", "api=1, requires='x'"), "requires must be a tuple", id="requires"),
    ],
)
def test_a_broken_plugin_is_named_with_its_distribution_and_harms_no_other(
    install: Install, code: str, words: str
) -> None:
    install("a-queue", GOOD, providers="queue")
    install("a-broken-one", code, providers="broken")
    for _ in range(2):
        with pytest.raises(BrokenPlugin, match=words) as caught:
            registry.load("broken")
        assert caught.value.plugin == "broken"
        assert "broken" in str(caught.value)
    infos = {info.name: info for info in registry.describe_all()}
    assert infos["broken"].error == str(caught.value)
    assert (infos["broken"].distribution, infos["broken"].version) == ("a-broken-one", "1.2")
    assert infos["queue"].error == ""


def test_an_import_error_is_chained(install: Install) -> None:
    install("a-broken-one", "import nothing_of_that_name", providers="broken")
    with pytest.raises(BrokenPlugin) as caught:
        registry.load("broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(("api", "words"), [(0, "older.*upgrade the plugin"), (2, "newer.*upgrade mbframework")])
def test_another_api_version_is_told_in_both_directions(install: Install, api: int, words: str) -> None:
    # Nothing else of it is looked at: the options would be refused, too.
    install("a-queue", GOOD.replace("api=1", f"api={api}").replace("options=Options", "options=int"), providers="queue")
    with pytest.raises(PluginApiMismatch, match=words):
        registry.load("queue")


def test_what_the_module_states_is_looked_at_before_anything_of_it_is_called(install: Install) -> None:
    newer = GOOD.replace("api=1", "api=2, novelty=True")
    install("a-queue", f"MBFRAMEWORK_API = 2\n{newer}", providers="queue")
    with pytest.raises(PluginApiMismatch, match=r"'queue' \(a-queue 1\.2\) .* version 2 .* pip install --upgrade mbfr"):
        registry.load("queue")
    (info,) = (info for info in registry.describe_all() if info.name == "queue")
    assert "newer than version 1" in info.error
    install("b-queue", f"MBFRAMEWORK_API = '1'\n{GOOD}", providers="other")
    with pytest.raises(BrokenPlugin, match="MBFRAMEWORK_API = '1'; expected an integer"):
        registry.load("other")


def test_an_observer_states_its_version_too(install: Install) -> None:
    code = "from mbframework.plugins import hookimpl\nMBFRAMEWORK_API = 2\n"
    code += "@hookimpl\ndef mbframework_novelty(directory): pass\n"
    install("a-watch", code, observers="watch")
    with pytest.raises(PluginApiMismatch, match="'watch'.*newer"):
        ObserverHub(["watch"])


def test_an_older_version_is_taken_with_a_warning_until_it_is_no_longer(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "API_VERSION", 2)
    install("a-queue", GOOD, providers="queue")
    with pytest.warns(DeprecationWarning, match="version 1 of the plugin interface; version 2 is there"):
        assert registry.load("queue").api == 1
    monkeypatch.setattr(registry, "OLDEST_API", 2)
    install("b-queue", GOOD, providers="later")
    with pytest.raises(PluginApiMismatch, match="older than version 2, the oldest .* pip install --upgrade b-queue"):
        registry.load("later")


def test_a_plugin_that_asks_for_another_release_says_so_when_it_fails(install: Install) -> None:
    """The release grew a name within one version of the interface, and pip was told not to look."""
    asks = "mbframework>=99.1,<100"
    words = r"asks for mbframework>=99\.1,<100, but .* is installed; run: pip install --upgrade 'mbframework>=99"
    code = "from mbframework.provider import Novelty"
    install("a-queue", code, providers="queue", requires=asks)
    with pytest.raises(PluginApiMismatch, match=words):
        registry.load("queue")
    late = GOOD.replace("self.options = options", code)
    install("b-queue", late, providers="later", requires=asks)
    source = resolve_url("later:")
    with pytest.raises(BrokenPlugin, match=words):
        source.create(Context(buffer_id="0" * 32, lane="main", run=bytes(16)))
    # What is met, or is not about us, has nothing to do with it.
    install("c-queue", code, providers="third", requires="mbframework>=0.1")
    install("d-queue", code, providers="fourth", requires="mbframework-more>=99")
    for name in ("third", "fourth"):
        with pytest.raises(BrokenPlugin) as caught:
            registry.load(name)
        assert "asks for" not in str(caught.value)


def test_two_distributions_with_one_scheme_are_an_error_that_names_both(install: Install) -> None:
    install("a-queue", GOOD, providers="queue")
    install("b-queue", GOOD, providers="queue", version="7.1")
    assert registry.names().count("queue") == 1
    with pytest.raises(PluginError, match=r"a-queue 1\.2 .* and b-queue 7\.1") as caught:
        registry.load("queue")
    assert [info.error for info in registry.describe_all() if info.name == "queue"] == [str(caught.value)]


@pytest.mark.parametrize(
    ("extra", "requirement", "message"),
    [
        (
            "kafka",
            "no-such-client[lz4]>=3.0,<3.1",
            (
                "provider 'queue' needs no-such-client>=3.0,<3.1, which is not installed;"
                " run: pip install 'mbframework[kafka]'"
            ),
        ),
        (
            "",
            "a-client>=3",
            "provider 'queue' needs a-client>=3, but 1.2 is installed; run: pip install 'a-client>=3'",
        ),
    ],
)
def test_a_missing_requirement_is_told_with_the_command_that_installs_it(
    install: Install, extra: str, requirement: str, message: str
) -> None:
    install("a-client")
    install("a-queue", GOOD.replace("api=1", f"api=1, extra={extra!r}, requires=({requirement!r},)"), providers="queue")
    with pytest.raises(MissingRequirement) as caught:
        registry.load("queue")
    assert str(caught.value) == message
    assert message.endswith(caught.value.command)
    (info,) = [info for info in registry.describe_all() if info.name == "queue"]
    assert info.error == message
    assert [option.name for option in info.options][:2] == ["hosts", "username"]


def test_a_requirement_that_is_installed_later_is_seen(install: Install) -> None:
    install("a-queue", GOOD.replace("api=1", "api=1, requires=('late-client>=1',)"), providers="queue")
    with pytest.raises(MissingRequirement):
        registry.load("queue")
    install("late-client")
    assert registry.load("queue").requires == ("late-client>=1",)


@pytest.mark.parametrize(
    ("installed", "clauses", "met"),
    [
        ("3.0.12", ">=3.0.12,<3.1", True),
        ("3.0.9", ">=3.0.12,<3.1", False),
        ("3.1", "<3.1", False),
        ("3.1rc1", "<3.1", False),
        ("3.1rc1", ">=3.1", False),
        ("3.1.post1", ">=3.1", True),
        ("3.1+local", "==3.1.0", True),
        ("3.1.0.dev4", "==3.1", False),
        ("10.0", ">9", True),
        ("9.0", ">9", False),
        ("9.0", "<=9", True),
        ("2.9", "~=2.2", True),
        ("3.0", "~=2.2", False),
        ("2.2.9", "~=2.2.1", True),
        ("2.3", "~=2.2.1", False),
        ("2.3", "!=2.3", False),
        ("anything", ">=1", False),
        ("anything", "", True),
    ],
)
def test_versions_are_compared_as_pip_does(install: Install, installed: str, clauses: str, met: bool) -> None:
    install("Some.Client", version=installed)
    assert (unmet(f"some-client[fast] {clauses}") is None) is met


@pytest.mark.parametrize("requirement", ["", "x>=1.*", "x @ https://host/x", "x; python_version>'3'", "x=>1"])
def test_a_requirement_beyond_the_simple_ones_is_an_error(requirement: str) -> None:
    with pytest.raises(ValueError, match="requirement"):
        unmet(requirement)
