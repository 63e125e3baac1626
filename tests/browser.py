"""A real browser for tests: Chromium without a window, spoken to through two pipes.

It speaks the DevTools protocol: JSON objects, each ended by a NUL, on file descriptors 3 and 4.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Puts the pipes where the browser looks for them, out of the way of each other first.
_LAUNCH = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE_SECONDS = 60
_MOUSE = "Input.dispatchMouseEvent"
_KEY_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13, "Tab": 9}


def browser_path() -> str | None:
    """Where a browser is; None: there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Navigated(Exception):  # noqa: N818 - it may be what is waited for
    """The page went away while it was asked something."""


class Browser:
    """A browser process; `new_page` opens pages in it."""

    def __init__(self, path: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        ends = (theirs_in, theirs_out)
        launch = (sys.executable, "-c", _LAUNCH, *map(str, ends))
        # Its words go to a file: whatever it complains of on this machine is not the page's.
        with (profile / "browser.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*launch, path, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for end in ends:
            os.close(end)
        self._buffer = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def new_page(self) -> "Page":
        """An empty page, and everything that will happen in it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, found["sessionId"], target)
        self._pages[found["sessionId"]] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "navigated" in str(answer.get("error")):
                    raise Navigated
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _read(self) -> dict[str, Any]:
        """The next message; those about a page go to it as well."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], _PATIENCE_SECONDS)
            assert ready, "the browser says nothing"
            read = os.read(self._in, 1 << 20)
            assert read, "the browser is gone"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        page = self._pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            page.take(message["method"], message["params"])
        return message

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(Exception):
            self.call("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)


class Page:
    """A page: what it asked for, what went wrong in it, and ways to use it.

    Attributes:
        requests: addresses that it asked for.
        problems: exceptions, and whatever went to the console.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser = browser
        self._session = session
        self._target = target
        self.requests: list[str] = []
        self.problems: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        return self._browser.call(method, self._session, **parameters)

    def take(self, method: str, facts: dict[str, Any]) -> None:
        """Note what the browser says of the page."""
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(facts["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(facts["args"]))
            case "Log.entryAdded":
                self.problems.append(facts["entry"]["text"])

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is there and drawn."""
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait("document.readyState === 'complete' && location.href.startsWith('file')")
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def js(self, expression: str) -> Any:
        """The value of an expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true, whatever page is there by then."""
        ends = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with contextlib.suppress(Navigated):
                if self.js(condition):
                    return
            assert time.monotonic() < ends, f"never true: {condition}"
            time.sleep(0.02)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Be a window, or a phone, of so many pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.settle()

    def media(self, kind: str = "", **features: str) -> None:
        """Be a screen or paper, and prefer something: `prefers_color_scheme="dark"`."""
        listed = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.call("Emulation.setEmulatedMedia", media=kind, features=listed)
        self.settle()

    def key(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key."""
        facts: dict[str, Any] = {"key": key, "modifiers": 8 if shift else 0}
        facts["windowsVirtualKeyCode"] = _KEY_CODES.get(key) or ord(key.upper()[0])
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)
        self.settle()

    def move(self, x: float, y: float, *, pressed: bool = False) -> None:
        """Move the mouse."""
        self.call(_MOUSE, type="mouseMoved", x=x, y=y, buttons=int(pressed))

    def drag(self, x: float, y: float, to_x: float) -> None:
        """Press at a place, move, release."""
        self.move(x, y)
        press = {"button": "left", "clickCount": 1}
        self.call(_MOUSE, type="mousePressed", x=x, y=y, buttons=1, **press)
        for step in range(1, 5):
            self.move(x + (to_x - x) * step / 4, y, pressed=True)
        self.call(_MOUSE, type="mouseReleased", x=to_x, y=y, **press)
        self.settle()

    def click(self, x: float, y: float, count: int = 1) -> None:
        """Click, or double-click."""
        self.move(x, y)
        for number in range(1, count + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.call(_MOUSE, type=kind, x=x, y=y, button="left", clickCount=number)
        self.settle()

    def touch(self, x: float, y: float, to_x: float | None = None) -> None:
        """Put a finger down, perhaps move it sideways, and lift it."""
        kinds = [("touchStart", x)]
        if to_x is not None:
            kinds += [("touchMove", x + (to_x - x) * step / 8) for step in range(1, 9)]
        for kind, place in kinds:
            points = [{"x": place, "y": y}]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()

    def wheel(self, x: float, y: float, delta: float) -> None:
        """Turn the wheel; upward is negative."""
        self.call(_MOUSE, type="mouseWheel", x=x, y=y, deltaX=0, deltaY=delta)
        self.settle()

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element that is scrolled into sight."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.settle()
        found = self.js(
            f"(() => {{ const r = {element}.getBoundingClientRect();"
            "return [r.left, r.top, r.width, r.height]; })()"
        )
        return found[0], found[1], found[2], found[3]

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is to be seen as PNG; `whole`: the page down to its end."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            shot = self.call(
                "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
            )
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """Close it."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextlib.contextmanager
def running_browser(path: str, profile: Path) -> Iterator[Browser]:
    """A browser inside a block."""
    browser = Browser(path, profile)
    try:
        yield browser
    finally:
        browser.close()
