"""The simulator: pacing, sliders, every control of the screen on a real buffer, and an end that leaves nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from mbtui.glyphs import ASCII, UNICODE
from mbtui.ink import plain
from mbtui.lines_view import LinesView
from mbtui.pacing import MAX_WAIT_S, MIN_WAIT_S, MOST_BEHIND_S, Pace
from mbtui.simulation import Picture, Simulation
from mbtui.simulator_lines import sparkline
from mbtui.simulator_screen import DELAY_MS, PACE, SimulatorApp
from mbtui.slider import LogScale, Slider
from textual.pilot import Pilot
from textual.widgets import Button

from mbframework.errors import MessageBufferError


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where buffers are made; empty again afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.glob("mb-simulate-*")) == []


# ---- pacing


@pytest.mark.parametrize("rate", [0.5, 1, 7, 100, 3333, 20_000])
def test_a_pace_is_kept_exactly_over_time(rate: float) -> None:
    pace, now, written = Pace(0.0), 0.0, 0
    while now < 60:
        written += pace.due(now, rate)
        wait = pace.wait(rate)
        assert wait is not None
        assert MIN_WAIT_S <= wait <= MAX_WAIT_S
        now += wait
    assert written == pytest.approx(rate * 60, rel=0.01, abs=1)


def test_a_stall_is_not_made_up_for_with_a_burst() -> None:
    pace = Pace(0.0)
    assert pace.due(100.0, 1000) == 1000 * MOST_BEHIND_S
    assert pace.due(100.1, 0) == 0
    assert pace.wait(0) is None
    assert pace.due(200.0, 0) == 0
    assert pace.due(200.0, 1000) == 0


# ---- the slider's scale


@pytest.mark.parametrize("scale", [PACE, DELAY_MS, LogScale(0.5, 8, 5)])
def test_a_scale_rises_from_off_to_its_most(scale: LogScale) -> None:
    values = [scale.value(position) for position in range(scale.steps + 1)]
    assert values[0] == 0
    assert values[1] == scale.least
    assert values[-1] == scale.most
    assert values == sorted(values)
    for value in values:
        assert scale.value(scale.position(value)) == value
    assert scale.value(-5) == 0
    assert scale.value(10**6) == scale.most


# ---- drawing


def test_a_sparkline_fills_its_rows_from_the_bottom_and_ends_with_the_newest() -> None:
    assert sparkline([0, 1, 2, 4], 4, 6, 2, "12345678") == ["     8", "   488"]
    assert sparkline([9, 9, 1, 8], 8, 2, 1, "12345678") == ["18"]
    assert sparkline([0.001], 1000, 1, 1, "12345678") == ["1"], "little is not nothing"
    assert sparkline([5.0], 0, 3, 1, "12345678") == ["   "]
    assert sparkline([5.0], 5, 3, 0, "12345678") == []


# ---- the simulation, without a screen


def _until(simulation: Simulation, condition: Callable[[Picture], bool], timeout: float = 60.0) -> Picture:
    deadline = time.monotonic() + timeout
    while not condition(simulation.picture):
        assert time.monotonic() < deadline, f"never so: {simulation.picture}"
        time.sleep(0.02)
    return simulation.picture


def test_it_goes_through_an_outage_and_back_and_the_accounts_balance() -> None:
    with Simulation(pace=2000) as simulation:
        _until(simulation, lambda seen: seen.status.state == "live" and seen.status.delivered > 1000)
        simulation.set_down(True)
        seen = _until(simulation, lambda seen: len(seen.segments) > 3)
        assert seen.status.state == "buffering"
        assert seen.segments[0].state == "next"
        assert seen.segments[-1].state == "filling"
        assert sum(each.left for each in seen.segments) <= seen.status.accepted
        simulation.set_down(False)
        simulation.set_pace(0)
        seen = _until(simulation, lambda seen: seen.status.resident == 0 and seen.in_rate == 0)
        assert seen.status.accepted == seen.status.delivered
        assert seen.status.balanced


def test_it_prunes_when_it_is_full_and_says_how_many() -> None:
    with Simulation(pace=20_000, segment_size=64 * 1024, total_size=256 * 1024) as simulation:
        simulation.set_down(True)
        seen = _until(simulation, lambda seen: seen.status.pruned > 0)
        assert seen.status.balanced


@pytest.mark.parametrize("mode", ["block", "raise"])
def test_it_closes_while_nothing_can_be_written(mode: str, promised: Callable[[float], float]) -> None:
    with Simulation(pace=1000, mode=mode) as simulation:  # type: ignore[arg-type]
        simulation.set_down(True)
        _until(simulation, lambda seen: seen.status.failures > 0)
        simulation.set_delay(600.0)
        begun = time.monotonic()
    assert time.monotonic() - begun < promised(5)


def test_a_mistake_leaves_nothing_behind() -> None:
    for wrong in ("nosuch:", "fake:?latency=soon"):
        with pytest.raises(MessageBufferError):
            Simulation(wrong)


# ---- the screen


async def _seen(pilot: Pilot[None], condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, _texts(pilot)
        await pilot.pause(0.05)


def _texts(pilot: Pilot[None]) -> str:
    views = pilot.app.query(LinesView)
    return "\n".join(plain(line) for view in views for line in view.lines)


def _on_screen(
    play: Callable[[Pilot[None], Simulation], Awaitable[None]],
    *,
    size: tuple[int, int] = (100, 30),
    ascii: bool = False,
    pace: float = 1000.0,
) -> None:
    async def run(simulation: Simulation) -> None:
        app = SimulatorApp(simulation, ascii=ascii)
        async with app.run_test(size=size) as pilot:
            await play(pilot, simulation)

    with Simulation(pace=pace) as simulation:
        asyncio.run(run(simulation))


def test_the_provider_goes_down_and_up_by_key_and_by_mouse() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        await _seen(pilot, lambda: "● LIVE" in _texts(pilot))
        await pilot.press("p")
        assert simulation.down
        assert "provider DOWN" in str(pilot.app.query_one("#provider", Button).label)
        await _seen(pilot, lambda: "■ BUFFERING" in _texts(pilot))
        await _seen(pilot, lambda: "out of reach" in _texts(pilot))
        await _seen(pilot, lambda: " next " in _texts(pilot), timeout=20)
        await pilot.click("#provider")
        assert not simulation.down
        await _seen(pilot, lambda: "● LIVE" in _texts(pilot))

    _on_screen(play)


def test_an_injected_error_is_one_error() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        await _seen(pilot, lambda: simulation.picture.status.delivered > 0)
        await pilot.press("e")
        await pilot.click("#error")
        await _seen(pilot, lambda: "errors injected 2" in _texts(pilot))
        await _seen(pilot, lambda: "BUFFERING" in _texts(pilot) or "DRAINING" in _texts(pilot))
        await _seen(pilot, lambda: "● LIVE" in _texts(pilot))

    _on_screen(play)


def test_sliders_by_keyboard() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        pace, delay = (pilot.app.query_one(f"#{name}", Slider) for name in ("pace", "delay"))
        assert pilot.app.focused is pace
        for keys, value in (
            (["home"], 0),
            (["right"], PACE.value(1)),
            (["pageup", "l"], PACE.value(7)),
            (["h", "left", "pagedown"], 0),
            (["left"], 0),
            (["end", "right"], PACE.most),
            (["0"], 0),
        ):
            await pilot.press(*keys)
            await pilot.pause()
            assert pace.value == simulation.pace == value
        await pilot.press("tab", "end")
        await pilot.pause()
        assert delay.value == DELAY_MS.most
        assert "at most 20 msg/s" in str(pilot.app.query_one("#out").border_title)

    _on_screen(play)


def test_sliders_by_mouse() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        pace = pilot.app.query_one("#pace", Slider)
        first = Slider.LABEL_CELLS + 1
        last = pace.size.width - Slider.VALUE_CELLS - 3
        await pilot.click(pace, offset=(last, 0))
        assert pace.value == PACE.most
        await pilot.click(pace, offset=(first, 0))
        assert simulation.pace == 0
        await pilot.mouse_down(pace, offset=(first + 2, 0))
        await pilot.hover(pace, offset=((first + last) // 2, 0))
        await pilot.mouse_up(pace, offset=((first + last) // 2, 0))
        middle = pace.position
        assert abs(middle - PACE.steps / 2) <= 1
        await pilot.hover(pace, offset=(last, 0))
        assert pace.position == middle, "the button is up: nothing is dragged"
        await pilot.click(pace, offset=(2, 0))
        assert pace.position == middle, "the label is no track"
        assert simulation.pace == pace.value

    _on_screen(play)


def test_a_delay_slows_the_output() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        await _seen(pilot, lambda: simulation.picture.out_rate > 800)
        delay = pilot.app.query_one("#delay", Slider)
        delay.position = DELAY_MS.position(500)
        await _seen(pilot, lambda: simulation.picture.status.state in ("buffering", "draining"))
        await _seen(pilot, lambda: simulation.picture.out_rate < 400 < simulation.picture.in_rate)

    _on_screen(play)


def test_modes_by_key_and_by_mouse_and_a_refusal_in_words() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        await _seen(pilot, lambda: "● LIVE" in _texts(pilot))
        await pilot.press("m")
        await _seen(pilot, lambda: "mode always" in _texts(pilot))
        assert str(pilot.app.query_one("#mode-always", Button).label) == "(•) always"
        await pilot.click("#mode-buffer")
        await _seen(pilot, lambda: "mode buffer" in _texts(pilot))
        await pilot.press("p")
        await _seen(pilot, lambda: "■ BUFFERING" in _texts(pilot))
        await pilot.click("#mode-block")
        await _seen(pilot, lambda: bool(len(pilot.app._notifications)))
        (notice,) = pilot.app._notifications
        assert notice.title == "Not block now"
        assert "flush() or purge()" in notice.message
        assert simulation.mode == "buffer"
        assert str(pilot.app.query_one("#mode-buffer", Button).label) == "(•) buffer"

    _on_screen(play)


def test_theme_help_and_quit() -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        assert pilot.app.current_theme.dark
        await pilot.press("t")
        assert not pilot.app.current_theme.dark
        await pilot.press("t")
        assert pilot.app.current_theme.dark
        await pilot.press("question_mark")
        assert any("inject an error" in notice.message for notice in pilot.app._notifications)
        await pilot.press("q")
        await _seen(pilot, lambda: pilot.app._exit)

    _on_screen(play)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (60, 15), (20, 5)])
@pytest.mark.parametrize("ascii", [False, True])
def test_it_fits(size: tuple[int, int], ascii: bool) -> None:
    async def play(pilot: Pilot[None], simulation: Simulation) -> None:
        await pilot.press("p")
        await _seen(pilot, lambda: "BUFFERING" in _texts(pilot))
        await pilot.pause(0.6)
        glyphs = ASCII if ascii else UNICODE
        assert glyphs.state("buffering") in _texts(pilot)
        for view in pilot.app.query(LinesView):
            assert all(len(plain(line)) <= max(view.size.width, 0) or size[0] < 60 for line in view.lines), view.id
        if ascii:
            text = "".join(strip.text for strip in pilot.app.screen._compositor.render_strips())
            assert text.isascii()
        if size[0] >= 80:
            for name in ("in", "out", "pace", "delay", "provider", "error", "mode-raise", "accounts", "segments"):
                region = pilot.app.query_one(f"#{name}").region
                assert region.width > 0, name
                assert region.right <= size[0], name
                assert region.y < size[1], name
            raised = pilot.app.query_one("#mode-raise", Button)
            assert raised.region.width >= len(str(raised.label))

    _on_screen(play, size=size, ascii=ascii)


# ---- the command


def _start(*arguments: str, **environment: str) -> tuple[subprocess.Popen[bytes], int]:
    """The command on a terminal of its own."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(leader, (24, 80))
    process = subprocess.Popen(
        [sys.executable, "-m", "mbtui.simulator", *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", **environment},
        start_new_session=True,
        # One system call, and no thread runs here: the terminal becomes the controlling one.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(follower)
    return process, leader


def _read_until(leader: int, words: bytes, timeout: float = 60.0) -> bytes:
    seen, deadline = b"", time.monotonic() + timeout
    while words not in seen:
        ready, _, _ = select.select([leader], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{words!r} never comes, but {seen[-2000:]!r}"
        seen += os.read(leader, 65536)
    return seen


@pytest.mark.parametrize("ending", ["ctrl+c", "q", signal.SIGINT, signal.SIGTERM, signal.SIGHUP, "hang up"])
def test_it_ends_cleanly(ending: str | signal.Signals, tmp_path: Path) -> None:
    process, leader = _start()
    try:
        _read_until(leader, b"LIVE")
        assert len(list(tmp_path.glob("mb-simulate-*"))) == 1
        expected = 0
        if ending == "ctrl+c":
            os.write(leader, b"\x03")
        elif ending == "q":
            os.write(leader, b"q")
        elif isinstance(ending, signal.Signals):
            process.send_signal(ending)
            expected = 128 + ending
        if ending == "hang up":
            os.close(leader)
            process.wait(60)
        else:
            told = _drain(leader, process)
            assert process.returncode == expected, told
            assert b"Traceback" not in told
            if not expected:
                assert b"the buffer is removed" in told
    finally:
        process.kill()
        process.wait()
        if ending != "hang up":
            os.close(leader)
    assert list(tmp_path.glob("mb-simulate-*")) == []


def _drain(leader: int, process: subprocess.Popen[bytes]) -> bytes:
    """What is still printed, until the process has ended."""
    told, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 0.1)
        if ready:
            try:
                told += os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
        elif process.poll() is not None:
            break
    process.wait(60)
    return told


@pytest.mark.parametrize("how", [("--no-color", {}), ("--light", {"NO_COLOR": "1"})])
def test_without_colours_nothing_is_coloured(how: tuple[str, dict[str, str]]) -> None:
    argument, environment = how
    process, leader = _start("--ascii", argument, **environment)
    try:
        shown = _read_until(leader, b"LIVE")
        os.write(leader, b"q")
        shown += _drain(leader, process)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert re.findall(rb"\x1b\[(?:[0-9;]*;)?[34]8[;:]", shown) == []


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.parametrize(
    "command", [("-m", "mbtui.simulator"), ("-m", "mbtui", "--simulate"), ("-m", "mbframework", "simulate")]
)
def test_without_a_terminal_it_says_so(command: tuple[str, ...]) -> None:
    ended = _run(*command)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "needs a terminal" in ended.stderr
    assert "mb demo" in ended.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--pace", "-1"), "expected 0 to 20000"),
        (("--message-size", "0"), "expected 1 to 60000"),
        (("--mode", "later"), "invalid choice"),
    ],
)
def test_a_wrong_option_is_told_in_words(arguments: tuple[str, ...], words: str) -> None:
    ended = _run("-m", "mbframework", "simulate", *arguments)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unknown_provider_is_told_in_words() -> None:
    process, leader = _start("--provider", "nosuch:\x1b[31m")
    try:
        told = _drain(leader, process)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 2
    assert b"cannot begin" in told
    assert b"\x1b" not in told


def test_without_the_extra_the_core_names_the_command_that_installs_it() -> None:
    program = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'textual' else real(name, *rest)\n"
        "from mbframework.cli import main; main(['simulate'])"
    )
    ended = _run("-c", program)
    assert ended.returncode == 2
    assert "pip install 'mbframework[tui]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_options_are_explained_and_cost_no_screen_library() -> None:
    program = "import sys, mbframework.cli.simulate; sys.exit('textual' in sys.modules)"
    assert _run("-c", program).returncode == 0
    ended = _run("-m", "mbframework", "simulate", "--help")
    assert ended.returncode == 0
    assert "--provider URL" in ended.stdout
