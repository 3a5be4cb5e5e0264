"""The HTTP ports of both daemons: health (MAINT-003), metrics (OBS-001), entries as NDJSON."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.programs import ENOUGH, Program, Workplace, connect, select, until, workplace

CONTAINER = Path(__file__).parent.parent.parent / "container"
GOOD = {"component": "web", "level": "INFO", "message": "hello"}


@attrs.frozen
class Reply:
    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def request(url: str, method: str = "GET", body: bytes | None = None, **headers: Any) -> Reply:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=ENOUGH)
    try:
        connection.request(method, f"{address.path}?{address.query}", body, headers)
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())
    finally:
        connection.close()


def post(url: str, *lines: object, ack: str = "durable", **headers: str) -> Reply:
    body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    return request(f"{url}/v1/entries?ack={ack}", "POST", body, **headers)


@attrs.frozen
class Daemons:
    """A Godot with everything, and a Dewey on the same database."""

    place: Workplace
    godot: Program
    dewey: Program

    def value(self, sample: str, **labels: str) -> float:
        """Return a sample of Godot's."""
        families = parse_text(request(f"{self.godot.http}/metrics").body)
        samples = [each for family in families for each in family.samples]
        (value,) = [each.value for each in samples if each.name == sample and labels.items() <= each.labels.items()]
        return value


@pytest.fixture(scope="module")
def daemons() -> Iterator[Daemons]:
    with workplace() as place:
        godot = place.up()
        trio.run(godot.ready)
        dewey = place.start("dewey", "serve", "--port", 0, DATABASE_URL=place.endpoints()["database"])
        trio.run(dewey.ready)
        yield Daemons(place, godot, dewey)


def test_health_of_both(daemons: Daemons) -> None:
    """MAINT-003."""
    assert daemons.place.endpoints()["http"] == daemons.godot.http
    for daemon in (daemons.godot, daemons.dewey):
        assert request(f"{daemon.http}/livez").json() == {"status": "alive"}
        ready = request(f"{daemon.http}/readyz")
        assert (ready.status, ready.json()["status"]) == (200, "ready")
        page = request(f"{daemon.http}/")
        assert page.headers["content-type"].startswith("text/html")
        assert "http" not in re.sub(r"(?s)<!doctype.*?<h1>", "", page.body), "it needs nothing from elsewhere"
    assert "flight recorder" in request(f"{daemons.godot.http}/").body
    assert request(f"{daemons.godot.http}/nothing").status == 404
    assert request(f"{daemons.dewey.http}/v1/entries", "POST", b"").status == 404


def test_entries_come_in_line_by_line_each_judged_for_itself(daemons: Daemons) -> None:
    """The rules are those of `logger_log_batch`."""
    reply = post(
        daemons.godot.http, GOOD, b"garbage", b"", {**GOOD, "level": "loud"}, {**GOOD, "trace_id": "?"}, b"[1]"
    )
    assert reply.status == 200
    answer = reply.json()
    assert (answer["accepted"], answer["filtered"], answer["further_rejected"]) == (2, 0, 0)
    assert [each["line"] for each in answer["rejected"]] == [2, 4, 6]
    assert "not JSON" in answer["rejected"][0]["error"]
    assert "must be one of ERROR" in answer["rejected"][1]["error"]
    assert answer["warnings"][0].startswith("line 5: trace_id: "), "as in rejected, from 1 on"
    assert post(daemons.godot.http, b"garbage").status == 400
    assert post(daemons.godot.http).json()["accepted"] == 0
    assert post(daemons.godot.http, GOOD, ack="maybe").status == 400
    assert request(f"{daemons.godot.http}/v1/entries").status == 405
    many = post(daemons.godot.http, *[{**GOOD, "component": "many", "message": str(n)} for n in range(2_500)])
    assert many.json()["accepted"] == 2_500
    huge = post(daemons.godot.http, {**GOOD, "message": "x" * 17_000_000})
    assert huge.status == 413
    assert huge.json()["error"] == "at most 16,777,216 bytes in one request (GODOT_MAX_MESSAGE_BYTES); send several"
    assert any("GODOT_MAX_MESSAGE_BYTES" in line["reason"] for line in daemons.godot.events("refused"))
    listed = post(daemons.godot.http, *[b"x"] * 150).json()
    assert (len(listed["rejected"]), listed["further_rejected"]) == (100, 50)


@pytest.mark.parametrize("size", [1, 150])
def test_a_request_of_which_every_line_is_refused_is_answered_400_with_the_reasons_by_line(
    daemons: Daemons, size: int
) -> None:
    reply = post(daemons.godot.http, *[{**GOOD, "level": "loud"}] * size)
    told = reply.json()
    assert (reply.status, told["accepted"]) == (400, 0)
    assert [each["line"] for each in told["rejected"]] == list(range(1, min(size, 100) + 1))
    assert "must be one of ERROR" in told["rejected"][0]["error"]


@pytest.mark.parametrize("parse", [parse_text, parse_openmetrics])
async def test_a_scrape_under_load_follows_the_rules_and_counters_equal_the_database(
    daemons: Daemons, parse: Any
) -> None:
    """OBS-001."""
    accept: dict[str, Any] = {"Accept": "application/openmetrics-text"} if parse is parse_openmetrics else {}
    scrapes: list[str] = []

    async def load(number: int) -> None:
        async with connect(daemons.godot.mcp) as peer:
            for turn in range(10):
                await peer.log_batch([f"{number} {turn} {each}" for each in range(100)], component=f"load-{number}")

    with trio.fail_after(ENOUGH):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(load, number)
            for _ in range(5):
                for daemon in (daemons.godot, daemons.dewey):
                    reply = await trio.to_thread.run_sync(lambda url: request(url, **accept), f"{daemon.http}/metrics")
                    scrapes.append(reply.body)
        async with connect(daemons.godot.mcp) as peer:
            await peer.status_with(queued=0, in_flight=0)
    for scrape in scrapes:
        seen = set()
        for family in parse(scrape):
            assert family.documentation
            assert family.type in ("counter", "gauge", "histogram", "info")
            assert re.fullmatch("(godot|dewey)_[a-z_]+", family.name)
            assert not family.name.endswith(("_ms", "_count", "_total"))
            for sample in family.samples:
                assert family.type != "counter" or sample.name.endswith(("_total", "_created"))
                series = (sample.name, tuple(sorted(sample.labels.items())))
                assert series not in seen
                seen.add(series)
    rows = select(daemons.place.endpoints()["database"], "SELECT count(*) FROM logs")[0][0]
    assert daemons.value("godot_entries_stored_total") == rows
    assert daemons.value("godot_entries_received_total") == rows
    assert daemons.value("godot_entries_accepted_total", component="load-1", level="INFO") >= 1_000
    assert daemons.value("dewey_entries_stored_total") == rows
    assert daemons.value("godot_dependency_up", dependency="dewey") == 1
    assert time.time() - daemons.value("godot_component_last_seen_timestamp_seconds", component="load-2") < ENOUGH


async def test_a_component_with_half_a_character_does_not_keep_the_metrics_from_being_scraped(daemons: Daemons) -> None:
    """OBS-001."""
    with trio.fail_after(ENOUGH):
        async with connect(daemons.godot.mcp) as peer:
            await peer.log("half", component="\ud800")
    assert daemons.value("godot_entries_accepted_total", component="�", level="INFO") == 1


def queries() -> list[str]:
    dashboard = json.loads((CONTAINER / "grafana" / "godot.json").read_text())
    alerts = yaml.safe_load((CONTAINER / "prometheus" / "alerts.yml").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return shown + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def test_the_dashboard_and_the_alerts_ask_for_what_is_exported(daemons: Daemons) -> None:
    post(daemons.godot.http, GOOD)
    exported: dict[str, set[str]] = {"dewey_database_errors_total": {"sqlstate_class"}}  # none so far
    for daemon in (daemons.godot, daemons.dewey):
        for family in parse_text(request(f"{daemon.http}/metrics").body):
            for sample in family.samples:
                exported.setdefault(sample.name, {"instance"}).update(sample.labels)
    assert len(queries()) > 30
    used = set()
    for query in queries():
        for name, _, selector in re.findall(r"\b((?:godot|dewey)_[a-z_]+)\b(\{([^}]*)\})?", query):
            assert name in exported, query
            used.add(name)
            labels = set(re.findall(r"([a-z_]+)=~?\"", selector))
            assert labels <= exported[name], query
        for labels_by in re.findall(r"by \(([^)]*)\)", query):
            name = re.findall(r"\b(?:godot|dewey)_[a-z_]+\b", query)[0]
            assert {each.strip() for each in labels_by.split(",")} <= exported[name], query
    shown = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in exported} - {"godot_build_info"}
    assert {re.sub("_bucket$", "", name) for name in used} >= shown, "a metric that nobody looks at"


async def test_who_says_nothing_or_too_much_hurts_nobody(daemons: Daemons) -> None:
    address = urlsplit(daemons.godot.http)
    slow = [socket.create_connection((str(address.hostname), address.port), timeout=ENOUGH) for _ in range(50)]
    try:
        for each in slow[:25]:
            each.sendall(b"POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        for each in slow[25:40]:
            each.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100)
        with trio.fail_after(ENOUGH):
            async with connect(daemons.godot.mcp) as peer:
                await peer.log("beside")
            assert request(f"{daemons.godot.http}/livez").status == 200
            slow[40].sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n")
            assert slow[40].recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
            slow[41].sendall(b"this is no HTTP\r\n\r\n")
            assert slow[41].recv(100).startswith((b"HTTP/1.1 400", b""))
            assert request(f"{daemons.godot.http}/readyz").status == 200
    finally:
        for each in slow:
            each.close()


@pytest.mark.parametrize(
    "said",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n",
        b"POST /v1/entries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}{}{}\r\n\r\n",
    ],
    ids=["the preface of HTTP/2", "nonsense behind a request", "more than the length says"],
)
async def test_what_comes_behind_a_request_and_is_no_http_is_no_bug_of_ours(daemons: Daemons, said: bytes) -> None:
    """LIM-001. The connection is closed for it while the answer to the request is written."""
    address = urlsplit(daemons.godot.http)
    for _ in range(30):
        with socket.create_connection((str(address.hostname), address.port), timeout=ENOUGH) as peer:
            peer.sendall(said)
            assert request(f"{daemons.godot.http}/livez").status == 200
    assert daemons.godot.events("bug") == []


async def test_it_says_what_is_down_and_stops_with_connections_open(place: Workplace) -> None:
    """Degraded while Dewey is away (200: entries are kept); a kept-alive connection does not delay the stop."""
    with trio.fail_after(ENOUGH):
        godot = place.start(
            "godot", "serve", "--port", 0,
            DEWEY_MCP_URL="ws://127.0.0.1:9", GODOT_DATA_DIR=place.data, GODOT_LOG_FORMAT="json", GODOT_DRAIN_S=1,
        )  # fmt: skip
        await godot.ready()
        await until(lambda: any('"event":"dewey_down"' in line for line in godot.out))
        ready = request(f"{godot.http}/readyz")
        assert (ready.status, ready.json()["status"]) == (200, "degraded")
        assert post(godot.http, GOOD).json()["accepted"] == 1
        samples = request(f"{godot.http}/metrics").body
        assert 'godot_dependency_up{dependency="dewey"} 0.0' in samples
        assert "godot_queue_entries 0.0" not in samples
        address = urlsplit(godot.http)
        kept = http.client.HTTPConnection(str(address.hostname), address.port, timeout=ENOUGH)
        kept.request("GET", "/livez")
        kept.getresponse().read()
        assert await godot.stop() == 0
        kept.close()
        lines = [json.loads(line) for line in godot.out if not line.startswith("ready ")]
        assert lines[-1]["event"] == "stopped"
        assert lines[-1]["queued"] == 1


async def test_a_port_that_is_taken_is_the_operators_problem(place: Workplace) -> None:
    with trio.fail_after(ENOUGH), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        godot = place.start("godot", "up", "--data-dir", place.data, "--port", 0, "--http-port", port)
        assert await godot.exit() == 2
        assert f"cannot listen on 127.0.0.1 port {port}" in godot.err[0]


async def test_tokens_count_here_too(place: Workplace, tmp_path: Path) -> None:
    """SEC-006."""
    tokens = tmp_path / "tokens"
    tokens.write_text("write writer-token-of-some-length\nread reader-token-of-some-length\n")
    with trio.fail_after(ENOUGH):
        godot = place.up(GODOT_TOKENS_FILE=tokens)
        await godot.ready()
        writer, reader = _bearer("writer"), _bearer("reader")
        assert post(godot.http, GOOD).status == 401
        assert post(godot.http, GOOD, **reader).status == 403
        assert post(godot.http, GOOD, **writer).json()["accepted"] == 1
        assert request(f"{godot.http}/metrics").status == 401
        assert request(f"{godot.http}/metrics", **writer).status == 403
        assert request(f"{godot.http}/metrics", **reader).status == 200
        assert request(f"{godot.http}/readyz").status == 200
        assert request(f"{godot.http}/", Host="evil.example").status == 403
        assert request(f"{godot.http}/", Origin="https://evil.example").status == 403


def _bearer(name: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {name}-token-of-some-length"}
