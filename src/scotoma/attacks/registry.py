"""The attacks by name: each a frozen dataclass of settings, all with defaults.

A plugin is an entry point in the group ``scotoma.attacks`` that names such a class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scotoma.core.registry import Registry

if TYPE_CHECKING:
    from scotoma.core.protocols import Attack, TrainableAttack

__all__ = ["attacks"]

attacks: Registry[type[Attack] | type[TrainableAttack]] = Registry("attack")
