"""Times and messages, for the contract of `LogStore`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dewey_logs.store.protocol import Page

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    """Return a time so many seconds after a certain noon."""
    return (NOON + timedelta(seconds=seconds)).isoformat()


def messages(page: Page) -> list[str]:
    """Return the messages of a page."""
    return [each.message for each in page.entries]
