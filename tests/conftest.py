"""What all tests share: how hard hypothesis tries."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A loaded machine is slow at times; that is no failure of an example.
settings.register_profile("godot", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("godot")
