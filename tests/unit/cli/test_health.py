"""What `godot healthcheck` makes of an answer: a container that is restarted for nothing loses what is under way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from godot.cli.state import ANSWER_BYTES, _check_over_http


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Serve one answer to one request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert (self.path, self.headers["Host"]) == ("/readyz", "localhost")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b'{"status": "ready"}', 0),
        (200, b'{"status": "degraded", "dewey": "down"}', 0),
        (503, b'{"status": "down", "redis": "down"}', 1),
        (404, b"not found", 1),
        (500, b"x" * (2 * ANSWER_BYTES), 1),
    ],
)
def test_who_takes_entries_in_is_healthy_also_without_dewey(
    status: int, body: bytes, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """MAINT-003."""
    with answering(status, body) as url:
        assert _check_over_http(url) == code
    said = capsys.readouterr().err
    assert (f"HTTP {status}" in said) is bool(code)
    assert len(said) < 2 * ANSWER_BYTES


@pytest.mark.parametrize("url", ["127.0.0.1:9061", "ftp://127.0.0.1", "http://127.0.0.1:port", ""])
def test_a_url_that_is_none_is_said_and_counts_as_unhealthy(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check_over_http(url) == 1
    assert "must look like http://127.0.0.1:9061" in capsys.readouterr().err
