"""Who may come in (SEC-006): decided from the upgrade request alone."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from godot.errors import ConfigError
from godot.mcp.access import Gate, PeerRefused, is_loopback
from godot.mcp.toolbox import ROLES
from godot.service.tokens import read_token, read_tokens

WRITE_TOKEN = "write-token-0123456789"
READ_TOKEN = "read-token-0123456789"


def gate_with_tokens() -> Gate:
    return Gate(
        tokens={
            sha256(WRITE_TOKEN.encode()).digest(): frozenset({"write"}),
            sha256(READ_TOKEN.encode()).digest(): frozenset({"read"}),
        }
    )


@pytest.mark.parametrize("host", ["127.0.0.1:9060", "localhost:9060", "localhost", "[::1]:9060", "LOCALHOST:1"])
def test_this_machine_comes_in_by_any_of_its_names(host: str) -> None:
    assert Gate().roles_for(host, []) == ROLES


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9060", "127.0.0.1.evil.example", "", "["])
def test_a_foreign_host_is_refused_so_that_a_rebound_name_leads_nowhere(host: str) -> None:
    with pytest.raises(PeerRefused, match="see its hosts") as refused:
        Gate().roles_for(host, [])
    assert refused.value.status == 403


def test_any_host_is_taken_where_names_are_not_known() -> None:
    assert Gate(hosts=None).roles_for("godot-mcp:9060", []) == ROLES


OUR_PORTS = frozenset({9060, 9061})


@pytest.mark.parametrize("host", ["10.1.2.3:9061", "192.168.0.7", "[fe80::1]:9061"])
def test_an_address_is_no_rebound_name_so_an_orchestrator_may_ask_by_it(host: str) -> None:
    assert Gate().roles_for(host, []) == ROLES


@pytest.mark.parametrize("host", ["godot-mcp:9060", "godot.local", "godot.logs.svc:9060", "host.docker.internal"])
def test_beyond_loopback_and_without_tokens_names_of_private_networks_are_taken(host: str) -> None:
    assert Gate(takes_private=True).roles_for(host, []) == ROLES


@pytest.mark.parametrize("host", ["evil.example:9061", "godot.evil.example", "local.example", ""])
def test_beyond_loopback_and_without_tokens_a_rebound_page_reads_no_metrics(host: str) -> None:
    with pytest.raises(PeerRefused, match="see its hosts"):
        Gate(takes_private=True).roles_for(host, [])


@pytest.mark.parametrize("origin", [b"http://localhost:9061", b"https://127.0.0.1:9060", b"http://[::1]:9061"])
def test_our_own_page_may_connect(origin: bytes) -> None:
    assert Gate(ports=OUR_PORTS).roles_for("localhost", [(b"Origin", origin)]) == ROLES


@pytest.mark.parametrize("origin", [b"http://localhost:3000", b"http://127.0.0.1", b"https://localhost:8443"])
def test_a_page_of_another_program_on_this_machine_is_no_anonymous_admin(origin: bytes) -> None:
    with pytest.raises(PeerRefused, match="see its origins"):
        Gate(ports=OUR_PORTS).roles_for("localhost", [(b"Origin", origin)])


@pytest.mark.parametrize(
    "origin",
    [b"https://evil.example", b"https://evil.example:9061", b"null", b"", b"file://", b"http://localhost.evil.example"],
)
def test_a_foreign_page_is_refused(origin: bytes) -> None:
    with pytest.raises(PeerRefused, match="see its origins") as refused:
        Gate(ports=OUR_PORTS).roles_for("localhost", [(b"origin", origin)])
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "origins",
    [
        [b"https://evil.example", b"http://localhost:9061"],
        [b"http://localhost:9061", b"https://evil.example"],
        [b"http://localhost:9061", b"http://localhost:9061"],
    ],
)
def test_no_origin_hides_behind_another(origins: list[bytes]) -> None:
    with pytest.raises(PeerRefused) as refused:
        Gate(ports=OUR_PORTS).roles_for("localhost", [(b"Origin", origin) for origin in origins])
    assert refused.value.status == 403


def test_a_page_that_was_allowed_may_connect() -> None:
    gate = Gate(origins=frozenset({"console.example", "localhost:3000", "proxy.example:443"}))
    for origin in (b"https://console.example", b"http://localhost:3000", b"https://proxy.example"):
        assert gate.roles_for("localhost", [(b"origin", origin)]) == ROLES


def test_a_token_brings_its_roles() -> None:
    gate = gate_with_tokens()
    assert gate.roles_for("localhost", [(b"Authorization", f"Bearer {WRITE_TOKEN}".encode())]) == {"write"}
    assert gate.roles_for("localhost", [(b"authorization", f"bearer  {READ_TOKEN} ".encode())]) == {"read"}


@pytest.mark.parametrize(
    "header", [None, b"", b"Basic abc", b"Bearer", b"Bearer wrong-token-0123456789", f"Bearer {WRITE_TOKEN}x".encode()]
)
def test_without_a_known_token_nobody_comes_in(header: bytes | None) -> None:
    with pytest.raises(PeerRefused) as refused:
        gate_with_tokens().roles_for("localhost", [] if header is None else [(b"authorization", header)])
    assert refused.value.status == 401


def test_no_token_is_ever_repeated() -> None:
    gate = gate_with_tokens()
    with pytest.raises(PeerRefused) as refused:
        gate.roles_for("localhost", [(b"authorization", b"Bearer secret-of-somebody-else")])
    assert "secret-of-somebody-else" not in refused.value.reason
    assert WRITE_TOKEN not in repr(gate)


def test_a_file_of_tokens_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who may what\n\nwrite {WRITE_TOKEN}\nread,admin {READ_TOKEN}\n")
    tokens = read_tokens(path)
    assert tokens[sha256(WRITE_TOKEN.encode()).digest()] == {"write"}
    assert tokens[sha256(READ_TOKEN.encode()).digest()] == {"read", "admin"}


def test_every_fault_in_a_file_of_tokens_is_named_by_its_line_and_no_token_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"boss {WRITE_TOKEN}\nread short\nread\n")
    with pytest.raises(ConfigError) as fault:
        read_tokens(path)
    assert [problem.partition(": ")[0] for problem in fault.value.problems] == [f"{path} line {n}" for n in (1, 2, 3)]
    assert WRITE_TOKEN not in str(fault.value)
    assert "short" not in fault.value.problems[1].replace("shorter", "")


def test_a_file_without_tokens_is_refused_because_nobody_could_come_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# none yet\n")
    with pytest.raises(ConfigError, match="nobody could come in"):
        read_tokens(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_tokens(tmp_path / "missing")


def test_the_token_that_is_shown_to_dewey_is_one_word(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{WRITE_TOKEN}\n")
    assert read_token(path) == WRITE_TOKEN
    path.write_text("two words")
    with pytest.raises(ConfigError, match="one token"):
        read_token(path)


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.8.0.9", True),
        ("::1", True),
        ("localhost", True),
        ("127.example.org", False),
        ("", False),
    ],
)
def test_a_name_that_begins_like_an_address_of_this_machine_is_none(host: str, is_here: bool) -> None:
    """Whoever listens there needs tokens."""
    assert is_loopback(host) is is_here
