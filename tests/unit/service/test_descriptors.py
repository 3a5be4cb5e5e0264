"""How many connections there may be follows from the descriptors that there are."""

from __future__ import annotations

import pytest

from godot.errors import ConfigError
from godot.service.descriptors import DEFAULT_CONNECTIONS, KEPT_BACK, Connections, share_out


@pytest.mark.parametrize("descriptors", [256, 1_024, 4_096, 2**20])
def test_enough_is_kept_back_for_the_daemon_itself(descriptors: int) -> None:
    connections = share_out("GODOT_MAX_CONNECTIONS", None, descriptors)
    assert 0 < connections.mcp <= DEFAULT_CONNECTIONS
    assert connections.http > 0
    assert connections.mcp + connections.http <= descriptors - KEPT_BACK


def test_what_was_chosen_is_kept_to() -> None:
    assert share_out("GODOT_MAX_CONNECTIONS", 100, 1_024) == Connections(mcp=100, http=25)


@pytest.mark.parametrize(("chosen", "descriptors"), [(717, 1_024), (2_000_000, 2**20), (None, 64), (None, 128)])
def test_too_few_descriptors_end_the_start_in_words(chosen: int | None, descriptors: int) -> None:
    with pytest.raises(ConfigError, match=r"raise the limit \(ulimit -n\) or lower the setting"):
        share_out("GODOT_MAX_CONNECTIONS", chosen, descriptors)
