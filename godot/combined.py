"""The settings of `godot up` and `godot serve`, which may run Dewey inside themselves."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dewey_logs.settings import DeweyServeSettings, DeweySettings
from godot.service.settings import load_settings, with_prefix
from godot.settings import GodotSettings


@attrs.frozen(slots=False, field_transformer=with_prefix)
class CombinedSettings(DeweySettings, GodotSettings):
    """What `godot serve` and `godot up` have to know."""


def load_combined(
    environ: Mapping[str, str], overrides: Mapping[str, object | None]
) -> tuple[CombinedSettings, list[str]]:
    """Read them from the environment; see `load_settings`. The names of `dewey serve` count as known."""
    return load_settings(CombinedSettings, environ, overrides, beside=(DeweyServeSettings,))
