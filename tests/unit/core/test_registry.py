"""Names to things that are imported when somebody asks."""

from __future__ import annotations

import pytest

from scotoma.core.errors import SettingsError
from scotoma.core.registry import Registry


def test_what_is_deferred_is_imported_when_it_is_asked_for() -> None:
    registry: Registry[object] = Registry("thing")
    registry.defer("late", "scotoma.core.registry:Registry")
    registry.defer("broken", "scotoma.no_such_module:Thing")
    assert registry.names() == ["broken", "late"]
    assert registry.get("late") is Registry
    with pytest.raises(ModuleNotFoundError):
        registry.get("broken")
    with pytest.raises(SettingsError, match="already registered"):
        registry.register("late")(1)
