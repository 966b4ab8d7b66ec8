"""One kind of named thing, built in or brought by a plugin.

A plugin is an entry point in the group ``scotoma.<kinds>``::

    [project.entry-points."scotoma.detectors"]
    plates = "my_package:PlateDetector"

A duplicate name is an error; an unknown name suggests the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from scotoma.core.errors import SettingsError, UnknownNameError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one kind.

    Args:
        kind: The kind in the singular, as it reads in messages: ``"detector"``.
        group: Entry point group that plugins join; default ``scotoma.<kind>s``.

    Example:
        >>> fills = Registry("fill")
        >>> fills.register("solid")(str.upper)
        <method 'upper' of 'str' objects>
        >>> fills.get("solit")
        Traceback (most recent call last):
            ...
        scotoma.core.errors.UnknownNameError: no fill named 'solit'; did you mean 'solid'?
    """

    def __init__(self, kind: str, *, group: str | None = None) -> None:
        self.kind = kind
        self.group = group or f"scotoma.{kind}s"
        self._built_in: dict[str, T] = {}
        self._deferred: dict[str, EntryPoint] = {}
        self._plugins: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument under ``name``."""

        def enter(thing: T) -> T:
            self._check_new(name)
            self._built_in[name] = thing
            return thing

        return enter

    def defer(self, name: str, value: str) -> None:
        """Enter what ``"module:attribute"`` names, which is imported when somebody gets it."""
        self._check_new(name)
        self._deferred[name] = EntryPoint(name, value, self.group)

    def names(self) -> list[str]:
        """Return all names, sorted, plugins included (their code is not loaded)."""
        return sorted({*self._built_in, *self._deferred, *self._find_plugins()})

    def get(self, name: str) -> T:
        """Return the thing called ``name``.

        Raises:
            UnknownNameError: Nothing has that name.
        """
        if name in self._built_in:
            return self._built_in[name]
        points = {**self._find_plugins(), **self._deferred}
        if name in points:
            thing: T = points[name].load()
            return thing
        raise UnknownNameError(self.kind, name, self.names())

    def _check_new(self, name: str) -> None:
        if name in self._built_in or name in self._deferred:
            raise SettingsError(f"a {self.kind} named {name!r} is already registered")

    def _find_plugins(self) -> dict[str, EntryPoint]:
        if self._plugins is None:
            found: dict[str, EntryPoint] = {}
            for point in entry_points(group=self.group):
                if point.name in {*self._built_in, *self._deferred, *found}:
                    raise SettingsError(
                        f"two {self.kind}s are named {point.name!r} (one from {point.value}); "
                        "uninstall or rename one"
                    )
                found[point.name] = point
            self._plugins = found
        return self._plugins
