"""Which lane takes a topic, and how each lane is configured: the option ``lanes``, and what follows from it.

Promises
--------
- Pure: nothing is made, opened or read; every mistake is a ConfigurationError that names lane and option.
- A topic goes to the first lane, in the order given, with a pattern that it matches; else to the default lane, which is
  the one that the option ``lane`` names, where there is one.
- The lanes' segments are so small that each lane can have its four within the shared ``total_size``.

Patterns are those of shell file names: ``*``, ``?``, ``[abc]``; upper and lower case differ.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mbframework.config import MIN_SEGMENT_SIZE, MIN_SEGMENTS, OPTIONS, Config
from mbframework.config_option import nearest
from mbframework.errors import ConfigurationError, MessageError
from mbframework.units import format_size

#: A topic → the name of a lane, or None: the patterns decide.
Route = Callable[[str], str | None]

#: Options that concern the directory, and so all lanes.
_SHARED = frozenset({"directory", "lane", "lanes", "dir_mode", "identity", "force_filesystem"})
_FORKED = re.compile(r"-\d+")


@dataclass(frozen=True)
class LanePlan:
    """One lane: ``provider`` is what code gave (a URL, an object, a factory), or None: what ``config`` names."""

    name: str
    patterns: tuple[str, ...]
    config: Config
    provider: Any = None


class Routing:
    """The lanes of a configuration, by name, in the order in which their patterns are asked."""

    def __init__(self, config: Config, provider: object = None, route: Route | None = None) -> None:
        """``provider`` goes before the one that ``config`` names, for lanes without one of their own."""
        if route is not None and not callable(route):
            raise ConfigurationError(
                f"route: {type(route).__name__}; expected a function from a topic to the name of a lane", option="route"
            )
        self._route = route
        self._rest = config.lane
        self._where = config.label("lanes")
        if not config.lanes:
            raise ConfigurationError(
                f"{self._where}: no lane is given; expected names with their options, such as "
                "{'orders': {'topics': ['orders.*']}}",
                option="lanes",
            )
        options = {name: self._options(name, given) for name, given in config.lanes.items()}
        self.default: str | None = config.lane
        if config.lane not in options:
            sends = provider is not None or config.provider is not None
            if sends or all(each.get("provider") is None for each in options.values()):
                options[config.lane] = {}
            else:
                # It would keep what nobody sends.
                self.default = None
        self._check_names(list(options))
        largest = config.total_size // (MIN_SEGMENTS * len(options))
        if largest < MIN_SEGMENT_SIZE:
            least = format_size(MIN_SEGMENT_SIZE * MIN_SEGMENTS * len(options), exact=True)
            raise ConfigurationError(
                f"{config.label('total_size')}: {format_size(config.total_size, exact=True)} for {len(options)} lanes; "
                f"expected {least} or more",
                option="total_size",
            )
        self.plans = {name: self._plan(config, name, given, largest, provider) for name, given in options.items()}
        matchers = [
            (name, re.compile("|".join(fnmatch.translate(pattern) for pattern in plan.patterns)))
            for name, plan in self.plans.items()
            if plan.patterns
        ]
        self._matchers = matchers

    def lane_of(self, topic: str) -> str:
        """The name of the lane for a topic.

        :raises MessageError: no lane takes it, or ``route`` names one that there is not.
        """
        if self._route is not None:
            name = self._route(topic)
            if name is not None:
                if name not in self.plans:
                    known = ", ".join(self.plans)
                    raise MessageError(f"topic {topic!r}: route gave {name!r:.100}; expected one of {known}, or None")
                return name
        for name, matcher in self._matchers:
            if matcher.match(topic):
                return name
        if self.default is None:
            raise MessageError(
                f"topic {topic!r} matches no lane ({', '.join(self.plans)}), and there is no provider for the rest; "
                f"expected a topic that one of them takes, or a provider for lane {self._rest!r}"
            )
        return self.default

    def plan_of(self, lane: str) -> LanePlan | None:
        """The plan behind a lane's directory, that of a second process (``orders-2``) included."""
        if lane in self.plans:
            return self.plans[lane]
        stem, dash, number = lane.rpartition("-")
        return self.plans.get(stem) if dash and number.isdigit() else None

    def _options(self, name: str, given: object) -> dict[str, Any]:
        where = f"{self._where}.{name}"
        try:
            OPTIONS["lane"].parse(name, "lane")
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._where}: {error}", option="lanes") from None
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"{where}: {type(given).__name__}; expected its options, such as {{'topics': ['orders.*']}}",
                option="lanes",
            )
        for option in given:
            if option in _SHARED:
                raise ConfigurationError(f"{where}.{option}: one for all lanes; give it beside them", option="lanes")
            if option != "topics" and option not in OPTIONS:
                hint = nearest(str(option), [*OPTIONS, "topics"])
                raise ConfigurationError(f"{where}: unknown option {option!r:.100}{hint}", option="lanes")
        return dict(given)

    def _patterns(self, name: str, given: object) -> tuple[str, ...]:
        where = f"{self._where}.{name}.topics"
        patterns = [given] if isinstance(given, str) else given
        if not isinstance(patterns, list | tuple) or not all(isinstance(each, str) and each for each in patterns):
            raise ConfigurationError(f"{where}: expected patterns of topics, such as ['orders.*']", option="lanes")
        return tuple(patterns)

    def _check_names(self, names: list[str]) -> None:
        for name in names:
            for other in names:
                if name.startswith(other) and _FORKED.fullmatch(name[len(other) :]):
                    raise ConfigurationError(
                        f"{self._where}.{name}: that is what the lane {other!r} is called in a second process; "
                        "expected another name",
                        option="lanes",
                    )

    def _plan(self, config: Config, name: str, given: dict[str, Any], largest: int, provider: object) -> LanePlan:
        where = f"{self._where}.{name}"
        topics = given.pop("topics", ())
        if not topics and name != config.lane and self._route is None:
            raise ConfigurationError(f"{where}: no topics; expected patterns, such as ['orders.*']", option="lanes")
        patterns = self._patterns(name, topics) if topics else ()
        own = given.pop("provider", None)
        changes: dict[str, Any] = {"lane": name, "lanes": None, **given}
        if own is not None:
            changes["provider"] = own if isinstance(own, str) else None
            changes.setdefault("provider_options", None)
        elif provider is not None:
            changes["provider"] = None
        try:
            if "segment_size" not in given:
                total: Any = OPTIONS["total_size"].parse(given.get("total_size", config.total_size), "total_size")
                size = min(config.segment_size, largest, total // MIN_SEGMENTS)
                changes["segment_size"] = max(MIN_SEGMENT_SIZE, size)
            changes.setdefault("total_size", config.total_size)
            planned = config.replace(**changes)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}", option="lanes") from None
        if planned.segment_size > largest:
            raise ConfigurationError(
                f"{where}.segment_size: {format_size(planned.segment_size, exact=True)}; expected at most "
                f"{format_size(largest, exact=True)}, a quarter of its equal part of total_size",
                option="lanes",
            )
        if planned.total_size > config.total_size:
            raise ConfigurationError(
                f"{where}.total_size: {format_size(planned.total_size, exact=True)}; expected at most what all lanes "
                f"share, {format_size(config.total_size, exact=True)}",
                option="lanes",
            )
        passed = provider if own is None else own
        return LanePlan(name, patterns, planned, None if isinstance(passed, str) and own is not None else passed)
