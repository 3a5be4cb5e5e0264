"""Settings: environment variables, their defaults, and their allowed values (MAINT-004).

A settings class is an attrs class whose fields are made with `setting`. `load_settings` reads all of them and
reports every bad one at once. `DaemonSettings` has the settings of every daemon, under the daemon's own prefix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

import attrs

from godot.entries.entry import MAX_ENTRY_BYTES
from godot.errors import ConfigError, why_unreadable
from godot.json.structure import did_you_mean
from godot.service.descriptors import DEFAULT_CONNECTIONS

T = TypeVar("T", bound="DaemonSettings")

Parse = Callable[[str], Any]

FILE: Final = "_FILE"
"""Behind the name of a setting it means that the value is in a file."""

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
    """Parse a number of seconds, up to a day: more than that is a mistake of the unit."""

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
    """Parse a PostgreSQL DSN: a URL, or `key=value` words; other faults show when connecting."""
    if not text.startswith(("postgresql://", "postgres://")) and "=" not in text:
        # A DSN may hold a password: it is not repeated.
        raise ValueError("must be a DSN such as postgresql://user@host:5432/winni")
    return text


def setting(name: str, parse: Parse, meaning: str, *, default: Any) -> Any:
    """Declare a setting.

    :param name: of the environment variable.
    :param parse: makes the value out of its text; raises a `ValueError` that says what is allowed.
    """
    return attrs.field(default=default, metadata={"name": name, "parse": parse, "meaning": meaning})


def with_prefix(cls: type[Any], fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Put the prefix of a settings class into the names of its settings."""
    prefix = getattr(cls, "prefix", "")
    return [
        field.evolve(metadata={**field.metadata, "name": field.metadata["name"].format(prefix=prefix)})
        for field in fields
    ]


@attrs.frozen(slots=False)
class DaemonSettings:
    """The settings of every daemon: addresses, access, limits, and the format of its lines."""

    prefix: ClassVar[str]
    """Of the names."""

    host: str = setting("{prefix}_HOST", str, "address to listen on", default="127.0.0.1")
    port: int = setting("{prefix}_PORT", whole(0, 65535), "port for MCP; 0 picks a free one", default=9020)
    http_port: int | None = setting(
        "{prefix}_HTTP_PORT", whole(0, 65535), "port for HTTP; without, the next one", default=None
    )
    allow_anonymous: bool = setting(
        "{prefix}_ALLOW_ANONYMOUS", boolean, "listen beyond this machine without tokens (SEC-006)", default=False
    )
    tokens_file: Path | None = setting(
        "{prefix}_TOKENS_FILE",
        Path,
        "a line for each token: its roles (write,read,admin), a blank, the token",
        default=None,
    )
    allowed_hosts: tuple[str, ...] = setting(
        "{prefix}_ALLOWED_HOSTS",
        names,
        "names that clients may reach it by, beside localhost and addresses",
        default=(),
    )
    allowed_origins: tuple[str, ...] = setting(
        "{prefix}_ALLOWED_ORIGINS",
        names,
        "`host` or `host:port` whose web pages may connect, beside its own",
        default=(),
    )
    max_inflight: int = setting(
        "{prefix}_MAX_INFLIGHT", whole(1), "calls of one connection at once; then it is read more slowly", default=1000
    )
    peer_timeout_s: float = setting(
        "{prefix}_PEER_TIMEOUT_S",
        seconds(0.1),
        "seconds after which a peer that does not read is dropped",
        default=30.0,
    )
    max_connections: int | None = setting(
        "{prefix}_MAX_CONNECTIONS",
        whole(1),
        f"connections at once, and a quarter as many for HTTP; without, up to {DEFAULT_CONNECTIONS:,} as the limit of "
        "file descriptors allows",
        default=None,
    )
    max_bytes_in_flight: int = setting(
        "{prefix}_MAX_BYTES_IN_FLIGHT",
        whole(1024 * 1024),
        "bytes of all connections that are read and not answered, as many of answers that are not read, and as many of "
        "HTTP bodies; beyond, large ones wait",
        default=128 * 1024 * 1024,
    )
    max_message_bytes: int = setting(
        "{prefix}_MAX_MESSAGE_BYTES",
        whole(2 * MAX_ENTRY_BYTES),
        "largest frame taken; more closes with code 1009",
        default=2 * MAX_ENTRY_BYTES,
    )
    log_format: Literal["logfmt", "json"] = setting(
        "GODOT_LOG_FORMAT",
        lambda text: one_of(text, "logfmt", "json"),
        "how status lines are written: `logfmt` or `json`",
        default="logfmt",
    )

    @staticmethod
    def contradictions(values: Mapping[str, object]) -> list[str]:
        """Return a line for each set of values that exclude each other; `values` has only those that are set."""
        del values
        return []

    def doubts(self) -> list[str]:
        """Return a line for each set of values that is possible, and probably a mistake."""
        return []


OTHER_NAMES: Final = ("GODOT_URL", "GODOT_TOKEN", "DEWEY_MCP_URL")
"""Variables with our prefixes that other programs read: the clients of components, the other daemon."""


def load_settings(
    kind: type[T],
    environ: Mapping[str, str],
    overrides: Mapping[str, object | None],
    *,
    beside: Iterable[type[DaemonSettings]] = (),
) -> tuple[T, list[str]]:
    """Read settings from the environment.

    An empty variable counts as not set. `<name>_FILE` names a file that holds the value, like the secrets of a
    container.

    :param overrides: by field name; a value that is not None takes precedence over the environment.
    :param beside: further settings classes whose names may stand in the same environment.
    :returns: the settings, and warnings about unknown names and about values that are probably a mistake.
    :raises ConfigError: one line for each bad value, and the warnings.
    """
    values: dict[str, Any] = {}
    problems = []
    for field in attrs.fields(kind):
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
            except ValueError:  # its message would show a text that may be another program's secret
                problems.append(f"{name}{FILE}: what {path} holds is no value of it; it is {field.metadata['meaning']}")
    problems += kind.contradictions(values)
    if problems:
        raise ConfigError(*problems, warnings=_unknown(environ, (kind, *beside)))
    settings = kind(**values)
    warnings = _unknown(environ, (kind, *beside))
    warnings += settings.doubts()
    return settings, warnings


def one_of(text: str, *allowed: str) -> str:
    """Parse a word that is one of a few, in any case."""
    if text.lower() not in allowed:
        raise ValueError(f"must be {' or '.join(allowed)}, not {text!r:.80}")
    return text.lower()


def _unknown(environ: Mapping[str, str], kinds: Iterable[type[DaemonSettings]]) -> list[str]:
    """Warn of names that have a daemon's prefix, and are no settings."""
    known = [*(field.metadata["name"] for kind in kinds for field in attrs.fields(kind)), *OTHER_NAMES]
    prefixes = tuple(f"{kind.prefix}_" for kind in kinds)
    return [
        f"{name}: no such setting{did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(prefixes) and name not in known and name.removesuffix(FILE) not in known
    ]
