"""Every key of every screen and widget is pressed in a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mbtui
import pytest
from mbtui.app import DashboardApp
from mbtui.dead_screen import DeadScreen
from mbtui.dialogs import Ask, Confirm
from mbtui.help_screen import HelpScreen
from mbtui.lane_screen import LaneScreen
from mbtui.main_screen import MainScreen
from mbtui.preview_pane import PreviewPane
from mbtui.rows_view import RowsView
from mbtui.segment_screen import SegmentScreen
from mbtui.simulator_screen import SimulatorApp
from mbtui.slider import Slider
from textual.binding import Binding

_MAIN, _SEGMENT, _DEAD = "test_main_keys.py", "test_segment_screen.py", "test_dead_screen.py"
_SIMULATOR = "test_simulator.py"
#: Where each has its tests.
TESTS: dict[type[Any], tuple[str, ...]] = {
    DashboardApp: (_MAIN, "test_departure.py", "test_main_tmux.py", "test_main_command.py"),
    MainScreen: (_MAIN,),
    LaneScreen: (_MAIN,),
    RowsView: (_MAIN, _SEGMENT, _DEAD),
    HelpScreen: (_MAIN, _SEGMENT),
    Ask: (_MAIN, _SEGMENT),
    Confirm: (_MAIN, _DEAD),
    SegmentScreen: (_SEGMENT,),
    DeadScreen: (_DEAD,),
    PreviewPane: (_SEGMENT, _DEAD),
    SimulatorApp: (_SIMULATOR,),
    Slider: (_SIMULATOR,),
}
_SHOWN = {"right_square_bracket": "]", "left_square_bracket": "[", "slash": "/", "question_mark": "?", "comma": ","}
_HERE = Path(__file__).parent


def bindings_of(owner: type[Any]) -> list[str]:
    """The keys that the class, and those of ours that it is made of, bind."""
    ours = [each for each in owner.__mro__ if each.__module__.startswith("mbtui.")]
    found = [binding for each in ours for binding in vars(each).get("BINDINGS", ())]
    return [key for each in found for key in (each.key if isinstance(each, Binding) else each[0]).split(",")]


@pytest.mark.parametrize("owner", TESTS, ids=lambda owner: owner.__name__)
def test_every_binding_is_pressed_somewhere(owner: type[Any]) -> None:
    text = "".join((_HERE / name).read_text(encoding="utf-8") for name in TESTS[owner])
    pressed = set(re.findall(r'"([^"\s]+)"', text))
    keys = bindings_of(owner)
    assert keys, "nothing is bound here"
    assert [key for key in keys if key not in pressed and _SHOWN.get(key) not in pressed] == []


def test_every_class_that_binds_keys_is_among_them() -> None:
    bound = {each.__module__ for owner in TESTS for each in owner.__mro__ if "BINDINGS" in vars(each)}
    sources = Path(mbtui.__file__).parent.glob("*.py")
    binding = {f"mbtui.{path.stem}" for path in sources if "BINDINGS: ClassVar" in path.read_text(encoding="utf-8")}
    assert binding - bound == set()
