"""What is evaluated: every protection as one thing that takes pictures in [0, 1].

::

    Encrypted   a scheme of encryption: pictures are normalized first
    Filled      regions painted over by a fill, and maybe searched so that decisions stay
    Encoded     what a split network's camera sends
    Plain       nothing: the upper bound of what can leak

Each is a :class:`~scotoma.core.protocols.Protection` whose ``protect`` reads pictures as
they are, so that the loop, the oracles and the attackers' simulations share one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.core.protocols import Release
from scotoma.evaluate.reading import refuse_key
from scotoma.evaluate.records import Choice

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key
    from scotoma.models.classifier import Classifier
    from scotoma.models.preprocessing import Preprocessing
    from scotoma.protections.encrypt.encryption import Encryption
    from scotoma.protections.encrypt.settings import EncryptSettings

__all__ = [
    "PLAIN",
    "Encrypted",
    "Plain",
    "Subject",
    "describe",
    "open_subject",
    "read_settings",
    "subject_names",
]

PLAIN = "none"
"""Name of the subject that protects nothing."""


class Subject(Protocol):
    """A protection that says how it was chosen."""

    @property
    def choice(self) -> Choice:
        """Name and settings, for records."""

    @property
    def keyed(self) -> bool:
        """Whether :meth:`protect` and :meth:`adapt` need a key."""

    def protect(
        self, images: Tensor, key: Key | None = None, *, generator: Generator | None = None
    ) -> Release:
        """Return the release of ``(B, 3, H, W)`` float32 pictures in [0, 1]."""

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return a model that reads releases; the given one stays as it is."""


class Encrypted:
    """A scheme of encryption on pictures that are not normalized yet.

    Args:
        settings: Scheme and its options.
        preprocessing: Of the model that reads the releases: its mean and standard deviation
            are applied; None leaves pictures as they are.
    """

    def __init__(
        self, settings: EncryptSettings, preprocessing: Preprocessing | None = None
    ) -> None:
        from scotoma.protections.encrypt.encryption import open_protection

        self.settings = settings
        self.preprocessing = preprocessing
        self._protection: Encryption = open_protection(settings, preprocessing)

    def __repr__(self) -> str:
        return f"Encrypted({self.settings})"

    @property
    def choice(self) -> Choice:
        """Scheme and settings."""
        return Choice(self.settings.scheme, self.settings.to_config())

    @property
    def keyed(self) -> bool:
        """Whether the scheme has a key."""
        return self._protection.keyed

    def protect(
        self, images: Tensor, key: Key | None = None, *, generator: Generator | None = None
    ) -> Release:
        """Normalize and encrypt; see :class:`Subject`."""
        from scotoma.evaluate.reading import normalize

        inputs = normalize(images, self.preprocessing)
        fresh = generator if self._protection.fresh else None
        return self._protection.protect(inputs, key, generator=fresh)

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return a model that reads the releases; see :class:`Subject`."""
        return self._protection.adapt(model, key)


class Plain:
    """Pictures as they are.

    Args:
        preprocessing: Of the model that reads them; None: it reads them as they are.
    """

    keyed = False

    def __init__(self, preprocessing: Preprocessing | None = None) -> None:
        self.preprocessing = preprocessing

    @property
    def choice(self) -> Choice:
        """``none``."""
        return Choice(PLAIN)

    def protect(
        self,
        images: Tensor,
        key: Key | None = None,
        *,
        generator: Generator | None = None,  # noqa: ARG002
    ) -> Release:
        """Return the pictures; see :class:`Subject`."""
        from scotoma.evaluate.groups import check_pictures

        refuse_key(key, PLAIN)
        check_pictures(images)
        size = list(images.shape[1:])
        metadata: dict[str, Any] = {
            "scheme": PLAIN,
            "settings": {},
            "input_size": size,
            "mean": None,
            "std": None,
        }
        return Release(images.clone(), metadata)

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return the model behind its normalization; see :class:`Subject`."""
        refuse_key(key, PLAIN)
        from scotoma.evaluate.reading import normalized

        return normalized(model, self.preprocessing)


def subject_names() -> list[str]:
    """Return the names of all that :func:`open_subject` opens, plugins included."""
    from scotoma.ops.fills import fills
    from scotoma.protections.encode.split import SCHEME
    from scotoma.protections.encrypt.schemes import schemes

    return sorted({PLAIN, SCHEME, *schemes.names(), *fills.names()})


def open_subject(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    models: Sequence[Classifier] = (),
) -> Subject:
    """Return the subject of a name: a scheme of encryption, a fill, ``split`` or ``none``.

    Args:
        name: In the registry of schemes or of fills.
        settings: A scheme's options as in :class:`.EncryptSettings`; of a fill, the fields of
            :class:`.filled.FillSettings`; of a split, its ``file``.
        preprocessing: Of the model that reads releases.
        models: A fill with ``adapt = "gradient"`` keeps their decisions; a split file may lack
            the plain network, which is the first of them.

    Raises:
        UnknownNameError: No such name; the message suggests the nearest.
        SettingsError: Settings that it does not have, or out of range.
    """
    made = read_settings(name, settings)
    if made is None:
        return Plain(preprocessing)
    if hasattr(made, "scheme"):
        return Encrypted(made, preprocessing)
    if hasattr(made, "file"):
        from scotoma.evaluate.encoded import Encoded

        return Encoded(made, tuple(models))
    from scotoma.evaluate.filled import Filled

    return Filled(made, preprocessing, models)


def read_settings(name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """Return the settings of a subject of that name; None for ``none``.

    Raises:
        UnknownNameError: No such name or setting; the message suggests the nearest.
        SettingsError: Settings out of range.
    """
    from scotoma.ops.fills import fills
    from scotoma.protections.encode.split import SCHEME
    from scotoma.protections.encrypt.schemes import schemes

    options = dict(settings or {})
    if name == PLAIN:
        if options:
            raise SettingsError(f"expected no settings for 'none', got {', '.join(options)}")
        return None
    if name in schemes.names():
        from scotoma.protections.encrypt.settings import EncryptSettings

        return _make(EncryptSettings, {"scheme": name, **options}, name)
    if name in fills.names():
        from scotoma.evaluate.filled import FillSettings

        return _make(FillSettings, {"fill": name, **options}, name)
    if name == SCHEME:
        from scotoma.evaluate.encoded import SplitSettings

        return _make(SplitSettings, options, name)
    raise UnknownNameError("protection", name, subject_names())


def describe(protection: object) -> Choice:
    """Return how a protection was chosen; its class and nothing more where it does not say."""
    choice = getattr(protection, "choice", None)
    return choice if isinstance(choice, Choice) else Choice(type(protection).__name__)


def _make(kind: Any, options: dict[str, Any], name: str) -> Any:
    """Build settings from plain data, lists as tuples; an unknown one gets a suggestion."""
    known = kind.__dataclass_fields__
    for option in options:
        if option not in known:
            raise UnknownNameError(f"setting of {name!r}", option, known)
    plain = {
        key: tuple(value) if isinstance(value, list) else value for key, value in options.items()
    }
    try:
        return kind(**plain)
    except TypeError as error:
        raise SettingsError(f"expected settings that {name!r} takes, got: {error}") from error
