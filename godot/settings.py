"""Settings: environment variables, their defaults, and what is allowed (MAINT-004).

A settings class is an attrs class whose fields are made with `setting`. `load_settings` reads all of them and
reports every bad one at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import attrs

from godot.buffer.protocol import QUEUE_MAX_BYTES
from godot.entries.entry import MAX_BATCH, MAX_ENTRY_BYTES
from godot.errors import ConfigError, why_unreadable
from godot.json.structure import did_you_mean
from godot.mcp.access import LOOPBACK, Gate, is_loopback
from godot.service.descriptors import DEFAULT_CONNECTIONS
from godot.service.tokens import read_tokens

T = TypeVar("T")

Ack: TypeAlias = Literal["queued", "durable"]
"""When a log call is answered: when its entry is on its way, or when it is on disk."""

Parse = Callable[[str], Any]

FILE: Final = "_FILE"
"""Behind the name of a setting: the value is in a file."""

_BOOLEANS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def whole(minimum: int, maximum: int | None = None) -> Parse:
    """Parse a whole number between two bounds."""
    bounds = f"of {minimum:,} or more" if maximum is None else f"from {minimum:,} to {maximum:,}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"must be a whole number {bounds}, not {text!r}") from None
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(f"must be a whole number {bounds}, not {value}")
        return value

    return parse


LONGEST_S: Final = 86_400


def seconds(minimum: float) -> Parse:
    """Parse a number of seconds, up to a day: whoever wants to wait for longer has mistaken the unit."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= LONGEST_S:
            raise ValueError(f"must be a number of seconds from {minimum:g} to {LONGEST_S:,}, not {text!r}")
        return value

    return parse


def boolean(text: str) -> bool:
    """Parse true or false."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"must be true or false, not {text!r}") from None


def names(text: str) -> tuple[str, ...]:
    """Parse names with commas between."""
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def url(*schemes: str) -> Parse:
    """Parse a URL of one of these schemes."""

    def parse(text: str) -> str:
        if text.partition("://")[0] not in schemes or "://" not in text:
            shown = "" if "@" in text else f", not {text!r:.80}"  # it may hold a password
            raise ValueError(f"must begin with {' or '.join(f'{each}://' for each in schemes)}{shown}")
        return text

    return parse


def dsn(text: str) -> str:
    """Parse a PostgreSQL DSN: a URL, or `key=value` words; what is wrong in it shows when connecting."""
    if not text.startswith(("postgresql://", "postgres://")) and "=" not in text:
        # A DSN may hold a password: it is not repeated.
        raise ValueError("must be a DSN such as postgresql://user@host:5432/winni")
    return text


def setting(name: str, parse: Parse, meaning: str, *, default: Any) -> Any:
    """Declare a setting.

    :param name: of the environment variable.
    :param parse: makes the value out of its text; raises `ValueError` that says what is allowed.
    """
    return attrs.field(default=default, metadata={"name": name, "parse": parse, "meaning": meaning})


@attrs.frozen
class DeweySettings:
    """What Dewey has to know, alone or inside Godot."""

    database_url: str | None = setting(
        "DATABASE_URL", dsn, "PostgreSQL, where Dewey stores (the database is called winni)", default=None
    )
    retention_days: int = setting(
        "LOG_RETENTION_DAYS", whole(1, 3650), "days that entries are kept (DEW-009)", default=7
    )
    log_format: Literal["logfmt", "json"] = setting(
        "GODOT_LOG_FORMAT",
        lambda text: _one_of(text, "logfmt", "json"),
        "how status lines are written: `logfmt` or `json`",
        default="logfmt",
    )
    database_role: str | None = setting(
        "DEWEY_DATABASE_ROLE",
        str,
        "role as which entries are stored, such as godot_log_writer, which may do nothing else (CONST-001)",
        default=None,
    )
    partition_enabled: bool = setting(
        "LOG_PARTITION_ENABLED", boolean, "whether daily partitions are made (DEW-005)", default=True
    )
    partitions_ahead: int = setting(
        "DEWEY_PARTITIONS_AHEAD", whole(1, 60), "days that have their partition ahead of time", default=7
    )
    query_timeout_s: float = setting(
        "DEWEY_QUERY_TIMEOUT_S", seconds(0.1), "seconds after which a query is ended", default=10.0
    )


@attrs.frozen
class DeweyServeSettings(DeweySettings):
    """What `dewey serve` has to know."""

    host: str = setting("DEWEY_HOST", str, "address to listen on", default="127.0.0.1")
    port: int = setting("DEWEY_PORT", whole(0, 65535), "port for MCP; 0 picks a free one", default=9020)
    http_port: int | None = setting(
        "DEWEY_HTTP_PORT", whole(0, 65535), "port for HTTP; without, the one after DEWEY_PORT", default=None
    )
    allow_anonymous: bool = setting(
        "DEWEY_ALLOW_ANONYMOUS", boolean, "listen beyond this machine without tokens (SEC-006)", default=False
    )
    tokens_file: Path | None = setting(
        "DEWEY_TOKENS_FILE",
        Path,
        "a line for each token: its roles (write,read,admin), a blank, the token",
        default=None,
    )
    allowed_hosts: tuple[str, ...] = setting(
        "DEWEY_ALLOWED_HOSTS", names, "names that clients may reach it by, beside localhost and addresses", default=()
    )
    allowed_origins: tuple[str, ...] = setting(
        "DEWEY_ALLOWED_ORIGINS", names, "`host` or `host:port` whose web pages may connect, beside its own", default=()
    )
    max_inflight: int = setting(
        "DEWEY_MAX_INFLIGHT", whole(1), "calls of one connection at once; then it is read more slowly", default=1000
    )
    peer_timeout_s: float = setting(
        "DEWEY_PEER_TIMEOUT_S", seconds(0.1), "seconds after which a peer that does not read is dropped", default=30.0
    )
    max_connections: int | None = setting(
        "DEWEY_MAX_CONNECTIONS",
        whole(1),
        f"connections at once, and a quarter as many for HTTP; without, up to {DEFAULT_CONNECTIONS:,} as the limit of "
        "file descriptors allows",
        default=None,
    )
    max_bytes_in_flight: int = setting(
        "DEWEY_MAX_BYTES_IN_FLIGHT",
        whole(1024 * 1024),
        "bytes of all connections that are read and not answered, as many of answers that are not read, and as many of "
        "HTTP bodies; beyond, large ones wait",
        default=128 * 1024 * 1024,
    )
    max_message_bytes: int = setting(
        "DEWEY_MAX_MESSAGE_BYTES",
        whole(2 * MAX_ENTRY_BYTES),
        "largest frame taken; more closes with code 1009",
        default=2 * MAX_ENTRY_BYTES,
    )


@attrs.frozen
class GodotSettings(DeweySettings):
    """What `godot serve` and `godot up` have to know."""

    host: str = setting("GODOT_HOST", str, "address to listen on", default="127.0.0.1")
    port: int = setting("GODOT_PORT", whole(0, 65535), "port for MCP; 0 picks a free one", default=9060)
    http_port: int | None = setting(
        "GODOT_HTTP_PORT", whole(0, 65535), "port for HTTP; without, the one after GODOT_PORT", default=None
    )
    allow_anonymous: bool = setting(
        "GODOT_ALLOW_ANONYMOUS", boolean, "listen beyond this machine without tokens (SEC-006)", default=False
    )
    tokens_file: Path | None = setting(
        "GODOT_TOKENS_FILE",
        Path,
        "a line for each token: its roles (write,read,admin), a blank, the token",
        default=None,
    )
    allowed_hosts: tuple[str, ...] = setting(
        "GODOT_ALLOWED_HOSTS", names, "names that clients may reach it by, beside localhost and addresses", default=()
    )
    allowed_origins: tuple[str, ...] = setting(
        "GODOT_ALLOWED_ORIGINS", names, "`host` or `host:port` whose web pages may connect, beside its own", default=()
    )
    max_inflight: int = setting(
        "GODOT_MAX_INFLIGHT", whole(1), "calls of one connection at once; then it is read more slowly", default=1000
    )
    peer_timeout_s: float = setting(
        "GODOT_PEER_TIMEOUT_S", seconds(0.1), "seconds after which a peer that does not read is dropped", default=30.0
    )
    max_connections: int | None = setting(
        "GODOT_MAX_CONNECTIONS",
        whole(1),
        f"connections at once, and a quarter as many for HTTP; without, up to {DEFAULT_CONNECTIONS:,} as the limit of "
        "file descriptors allows",
        default=None,
    )
    max_bytes_in_flight: int = setting(
        "GODOT_MAX_BYTES_IN_FLIGHT",
        whole(1024 * 1024),
        "bytes of all connections that are read and not answered, as many of answers that are not read, and as many of "
        "HTTP bodies; beyond, large ones wait",
        default=128 * 1024 * 1024,
    )
    max_message_bytes: int = setting(
        "GODOT_MAX_MESSAGE_BYTES",
        whole(1024),
        "largest frame taken; more closes with code 1009",
        default=16 * 1024 * 1024,
    )
    redis_url: str | None = setting(
        "REDIS_URL",
        url("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"),
        "Redis, also `redis+sentinel://` or `redis+cluster://`; without it Godot starts its own (SEC-005)",
        default=None,
    )
    redis_replicas: int | None = setting(
        "GODOT_REDIS_REPLICAS",
        whole(0, 100),
        "replicas that must have an entry before it counts as written; with Sentinel or Cluster 1, else 0",
        default=None,
    )
    redis_durable: bool = setting(
        "GODOT_REDIS_DURABLE",
        boolean,
        "true: every write is on disk before this Redis answers, although it forbids CONFIG or INFO, which would tell",
        default=False,
    )
    redis_persistence: str | None = setting(
        "REDIS_PERSISTENCE",
        lambda text: _one_of(text, "aof", "none"),
        "`aof` or `none`, for Godot's own Redis (REL-001)",
        default=None,
    )
    redis_aof_enabled: bool | None = setting(
        "REDIS_AOF_ENABLED", boolean, "the same as true or false; an older name", default=None
    )
    ack: Ack = setting(
        "GODOT_ACK",
        lambda text: _one_of(text, *get_args(Ack)),
        "when a log call is answered that does not say: `queued`, or `durable` when it is on disk",
        default="queued",
    )
    dewey_mcp_url: str | None = setting(
        "DEWEY_MCP_URL", url("ws", "wss"), "Dewey; without it, and with DATABASE_URL, Dewey runs inside", default=None
    )
    dewey_token_file: Path | None = setting(
        "GODOT_DEWEY_TOKEN_FILE", Path, "a file with the token that Dewey wants of Godot", default=None
    )
    dewey_timeout_s: float = setting(
        "GODOT_DEWEY_TIMEOUT_S", seconds(0.1), "seconds that Dewey may take for a call", default=15.0
    )
    batch_size: int = setting("BATCH_SIZE", whole(1, MAX_BATCH), "entries that make a batch full", default=100)
    batch_timeout_ms: int = setting(
        "BATCH_TIMEOUT_MS", whole(1, 60_000), "milliseconds after its first entry that a batch is written", default=100
    )
    max_queue_size: int = setting(
        "MAX_QUEUE_SIZE", whole(1), "entries that wait in Redis; beyond, the oldest go (GOD-005)", default=100_000
    )
    max_queue_bytes: int = setting(
        "GODOT_MAX_QUEUE_BYTES",
        whole(1024),
        "bytes of entries that wait in Redis; beyond, the oldest go (GOD-005)",
        default=QUEUE_MAX_BYTES,
    )
    queue_name: str = setting(
        "LOG_QUEUE_NAME", str, "the list in Redis; other keys derive from it", default="logs:queue"
    )
    daemon: str | None = setting(
        "GODOT_DAEMON", str, "name among daemons that share a Redis; stays the same over restarts", default=None
    )
    data_dir: Path | None = setting(
        "GODOT_DATA_DIR", Path, "where embedded servers keep their data; see --data-dir", default=None
    )
    drain_s: float = setting(
        "GODOT_DRAIN_S", seconds(0), "seconds that a stop goes on delivering (REL-005)", default=8.0
    )
    status_s: float = setting("GODOT_STATUS_S", seconds(0.1), "seconds between status lines", default=60.0)

    @property
    def aof(self) -> bool:
        """Whether Godot's own Redis keeps an append-only file."""
        return self.redis_aof_enabled is not False and self.redis_persistence != "none"


OTHER_NAMES: Final = ("GODOT_URL", "GODOT_TOKEN")
"""Variables with our prefixes that are read elsewhere (by components' clients)."""


def load_settings(
    kind: type[T], environ: Mapping[str, str], overrides: Mapping[str, object | None]
) -> tuple[T, list[str]]:
    """Read settings from the environment.

    An empty variable counts as one that is not set. `<name>_FILE` names a file that holds the value, as containers
    have their secrets.

    :param overrides: by field name; what is not None wins over the environment.
    :returns: the settings, and warnings: about names that are not known, and about settings that do not go together.
    :raises ConfigError: one line for each bad value, and the warnings.
    """
    values: dict[str, object] = {}
    problems = []
    for field in attrs.fields(kind):  # type: ignore[arg-type]
        name = field.metadata["name"]
        if overrides.get(field.name) is not None:
            values[field.name] = overrides[field.name]
        elif text := environ.get(name):
            try:
                values[field.name] = field.metadata["parse"](text)
            except ValueError as exc:
                problems.append(f"{name}: {exc}")
        elif path := environ.get(f"{name}{FILE}"):
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                problems.append(f"{name}{FILE}: {path} cannot be read: {why_unreadable(exc)}")
                continue
            try:
                values[field.name] = field.metadata["parse"](text)
            except ValueError:  # its words would show what may be the secret of something else
                problems.append(f"{name}{FILE}: what {path} holds is no value of it; it is {field.metadata['meaning']}")
    if (values.get("redis_aof_enabled"), values.get("redis_persistence")) in ((True, "none"), (False, "aof")):
        problems.append("REDIS_AOF_ENABLED and REDIS_PERSISTENCE contradict each other; set one of them")
    if problems:
        raise ConfigError(*problems, warnings=_unknown(environ))
    settings = kind(**values)
    warnings = _unknown(environ)
    if isinstance(settings, GodotSettings) and settings.max_queue_bytes < settings.max_message_bytes:
        warnings.append(
            f"GODOT_MAX_QUEUE_BYTES is {settings.max_queue_bytes:,}, and GODOT_MAX_MESSAGE_BYTES lets messages of "
            f"{settings.max_message_bytes:,} in: entries that are larger than the queue are refused"
        )
    return settings, warnings


def http_port(port: int, chosen: int | None) -> int:
    """Return the port for HTTP: the chosen one, or the next one after that for MCP; 0 with 0."""
    if chosen is not None:
        return chosen
    return port and (port + 1 if port < 65535 else 0)


def make_gate(settings: GodotSettings | DeweyServeSettings) -> Gate:
    """Make the gate of a server that listens as its settings say.

    Beyond loopback any `Host` is taken with a token unless the settings name them: a proxy names this server as it
    likes. Without tokens it has to be one that no public name server can point here.

    :raises ConfigError: it would let in anyone who can reach it (SEC-006), or the tokens cannot be read.
    """
    prefix = "GODOT" if isinstance(settings, GodotSettings) else "DEWEY"
    host, here = settings.host, is_loopback(settings.host)
    tokens = {} if settings.tokens_file is None else read_tokens(settings.tokens_file)
    if not (here or tokens or settings.allow_anonymous):
        raise ConfigError(
            f"listening on {host} would let anyone in who can reach it; listen on 127.0.0.1, give tokens with "
            f"{prefix}_TOKENS_FILE, or set {prefix}_ALLOW_ANONYMOUS=true if it is meant"
        )
    hosts = (
        None if tokens and not here and not settings.allowed_hosts else frozenset((*LOOPBACK, *settings.allowed_hosts))
    )
    takes_private = not here and not settings.allowed_hosts
    return Gate(
        tokens,
        hosts,
        frozenset(settings.allowed_origins),
        takes_private=takes_private,
        hosts_setting=f"{prefix}_ALLOWED_HOSTS",
        origins_setting=f"{prefix}_ALLOWED_ORIGINS",
    )


def _one_of(text: str, *allowed: str) -> str:
    if text.lower() not in allowed:
        raise ValueError(f"must be {' or '.join(allowed)}, not {text!r:.80}")
    return text.lower()


def _unknown(environ: Mapping[str, str]) -> list[str]:
    known = [*_names(GodotSettings), *_names(DeweyServeSettings), *OTHER_NAMES]
    return [
        f"{name}: no such setting{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(("GODOT_", "DEWEY_")) and name not in known and name.removesuffix(FILE) not in known
    ]


def _names(kind: type[Any]) -> Iterable[str]:
    return (field.metadata["name"] for field in attrs.fields(kind))
