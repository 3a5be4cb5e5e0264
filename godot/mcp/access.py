"""Decides which clients may connect and what they may do: Origin, Host, tokens, roles.

The decision is made from the upgrade request, before a WebSocket exists. It protects against DNS rebinding: any web
page can make a browser open a WebSocket to 127.0.0.1, and browsers send no preflight request for that. Tokens are
compared in constant time, and only their digests are kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import attrs

from godot.mcp.toolbox import ROLES, Role

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

PRIVATE: Final = (".localhost", ".local", ".internal", ".svc")
"""Endings of names that no public name server resolves."""


class PeerRefused(Exception):
    """A peer may not connect.

    :param status: HTTP status of the answer to the upgrade request.
    :param reason: for that answer and for the operator; it never repeats a token.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@attrs.frozen
class Gate:
    """Decides about upgrade requests.

    A `Host` that is an address always passes, because DNS rebinding needs a name.

    :param tokens: SHA-256 of each token, with its roles. Without tokens every client may do everything.
    :param hosts: names allowed in a `Host` header, without port; None allows any, since a proxy may send any.
    :param origins: of web pages that may connect, beside our own: `host`, or `host:port`.
    :param ports: our own; a page that was served from one of them, under one of our names, may connect.
    :param takes_private: also allow names that no public name server knows (`PRIVATE`): container networks use them.
    :param hosts_setting: name of the setting for `hosts`; a refusal contains it.
    :param origins_setting: name of the setting for `origins`.
    """

    tokens: dict[bytes, frozenset[Role]] = attrs.field(factory=dict, repr=False)
    hosts: frozenset[str] | None = frozenset(LOOPBACK)
    origins: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    takes_private: bool = False
    hosts_setting: str = "its hosts"
    origins_setting: str = "its origins"

    def roles_for(self, host: str, headers: Iterable[tuple[bytes, bytes]]) -> frozenset[Role]:
        """Return the roles of a client.

        :param host: the `Host` header.
        :param headers: the others, names in any case.
        :raises PeerRefused: foreign host or origin (403), missing or wrong token (401).
        """
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            values.setdefault(name.lower(), []).append(value)
        self.check_host(host)
        for origin in values.get(b"origin", []):
            self._check_origin(origin.decode("latin-1"))
        if len(values.get(b"origin", [])) > 1:
            raise PeerRefused(403, "more than one Origin")
        if not self.tokens:
            return ROLES
        scheme, _, token = values.get(b"authorization", [b""])[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise PeerRefused(401, "a token is needed: Authorization: Bearer <token>")
        return self._roles_of(token.strip())

    def check_host(self, host: str) -> None:
        """Check that this server may be called by that name.

        :raises PeerRefused: it may not (403).
        """
        name = _parts(f"//{host}")[0]
        if self.hosts is None or name in self.hosts or _is_address(name):
            return
        if self.takes_private and name and ("." not in name or name.endswith(PRIVATE)):
            return
        raise PeerRefused(403, f"this server is not called {name or 'nothing'!r:.80}; see {self.hosts_setting}")

    def _check_origin(self, origin: str) -> None:
        name, port = _parts(origin)
        is_ours = port in self.ports and name in (self.hosts or LOOPBACK)
        if not (is_ours or name in self.origins or f"{name}:{port}" in self.origins):
            raise PeerRefused(403, f"pages from {origin!r:.80} may not connect; see {self.origins_setting}")

    def _roles_of(self, token: bytes) -> frozenset[Role]:
        digest = hashlib.sha256(token).digest()
        found: frozenset[Role] | None = None
        for known, roles in self.tokens.items():  # no break: the time must not tell which token matched
            if hmac.compare_digest(digest, known):
                found = roles
        if found is None:
            raise PeerRefused(401, "this token is not known")
        return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name such as `127.example.org` is no address."""
    try:
        return host in LOOPBACK or ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(url: str) -> tuple[str | None, int | None]:
    """Return host and port; without a port, the one of the scheme."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None, None


def _is_address(name: str | None) -> bool:
    try:
        ip_address(name or "")
    except ValueError:
        return False
    return True
