"""What all tests share: how hard hypothesis tries, and where programs run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.programs import Workplace, workplace

pytest_plugins = ["tests.postgres_servers", "tests.redis_servers"]

# A loaded machine is slow at times; that is no failure of an example.
settings.register_profile("godot", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("godot")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the storm, a test that takes a minute: others run beside it."""
    items.sort(key=lambda item: "chaos" not in item.path.parts)


@pytest.fixture
def place() -> Iterator[Workplace]:
    """Where programs of ours run, and nothing of them is left behind."""
    with workplace() as made:
        yield made


@pytest.fixture(scope="module")
def shared_place() -> Iterator[Workplace]:
    """One for all tests of a module: what they leave there is the same for all."""
    with workplace() as made:
        yield made
