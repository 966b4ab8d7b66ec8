"""Recipes as TOML files: the papers' own and small ones, in the package or the user's."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError

__all__ = ["load_recipe", "recipe_names"]

Recipe = TypeVar("Recipe")

_FOLDER = files("scotoma.train").joinpath("recipes")


def recipe_names(family: str) -> list[str]:
    """Return the names of the packaged recipes for a family of models, sorted."""
    stems = [entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir()]
    return sorted(stem.partition("-")[2] for stem in stems if stem.startswith(f"{family}-"))


def load_recipe(kind: type[Recipe], family: str, recipe: str, **changes: Any) -> Recipe:
    """Read a recipe.

    Args:
        kind: The frozen dataclass that the file's keys fill; tables fill nested ones.
        family: ``pevit`` or ``peyolos``.
        recipe: Name of a packaged recipe, or a path that ends in ``.toml``.
        **changes: Fields that differ from the file.

    Raises:
        UnknownNameError: No such recipe, or a key that is no setting.
        SettingsError: The file is no TOML, or holds a value of the wrong type or range.
    """
    if not recipe.endswith(".toml") and recipe not in recipe_names(family):
        raise UnknownNameError(f"recipe for {family}", recipe, recipe_names(family))
    packaged = _FOLDER.joinpath(f"{family}-{recipe}.toml")
    try:
        text = (Path(recipe) if recipe.endswith(".toml") else packaged).read_text("utf-8")
        content = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise SettingsError(f"expected a recipe as TOML at {recipe}, got: {error}") from error
    filled: Recipe = _fill(kind, content, changes)
    return filled


def _fill(kind: Any, content: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    known = {field.name: field for field in fields(kind)}
    for key in content:
        if key not in known:
            raise UnknownNameError("setting of a recipe", key, known)
    values = {key: _value(known[key], value) for key, value in content.items()}
    try:
        return kind(**{**values, **changes})
    except SettingsError:
        raise
    except (TypeError, ModelError) as error:
        raise SettingsError(f"a setting of the recipe cannot be used: {error}") from error


def _value(field: Field[Any], value: Any) -> Any:
    """A table as the nested settings that the field's default is made by; a list as a tuple."""
    nested: Any = field.default_factory
    if isinstance(value, dict) and is_dataclass(nested):
        return _fill(nested, value, {})
    return tuple(value) if isinstance(value, list) else value
