"""Who may use the browser view: one-time tokens, the cookie that they are exchanged for, hosts and origins.

Promises
--------
- A token is good once, and for :data:`TOKEN_LIFE_S` seconds. It is compared in constant time and kept nowhere else.
- Whoever has no cookie of this server gets nothing but a refusal in words.
- A request whose Host is not this machine's loopback name (DNS rebinding), or whose Origin is another page's, is
  refused, cookie or not.

No I/O; one thread. Times are seconds of a clock that only rises.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

TOKEN_LIFE_S = 600.0


class Access:
    """The tokens and the sessions of one server on ``port``."""

    def __init__(self, port: int) -> None:
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        # Browsers keep cookies by host alone: several servers on one machine must not overwrite each other's.
        self.cookie = f"mbtui-{port}"
        self._tokens: dict[str, float] = {}
        self._sessions: set[str] = set()

    def new_token(self, now: float) -> str:
        """A token, good once until TOKEN_LIFE_S from now."""
        token = secrets.token_urlsafe(32)
        self._tokens[token] = now + TOKEN_LIFE_S
        return token

    def enter(self, token: str, now: float) -> str | None:
        """Use up a token: the value of the cookie, or None where it is wrong, used or too old."""
        self._tokens = {known: until for known, until in self._tokens.items() if until > now}
        found = [known for known in self._tokens if _same(known, token)]
        if not found:
            return None
        del self._tokens[found[0]]
        session = secrets.token_urlsafe(32)
        self._sessions.add(session)
        return session

    def refusal(self, headers: Mapping[str, str], *, websocket: bool, entering: bool) -> str:
        """Why this request is refused, in words; "" where it is welcome.

        :param entering: it brings a token, and needs no cookie yet.
        """
        host = headers.get("Host", "")
        if host not in self.hosts:
            return f"This server answers to http://{self.hosts[0]} only."
        origin = headers.get("Origin")
        if (websocket and origin is None) or (origin is not None and origin != f"http://{host}"):
            return "This request was made by another page."
        if not entering and not self._knows(headers.get("Cookie", "")):
            return "A link with a token is needed: the one that mbtui --web printed. Each is good once."
        return ""

    def _knows(self, cookies: str) -> bool:
        try:
            morsel = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return morsel is not None and any(_same(session, morsel.value) for session in self._sessions)


def _same(known: str, given: str) -> bool:
    return hmac.compare_digest(known.encode(), given.encode(errors="replace"))
