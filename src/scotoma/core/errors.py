"""Every error that Scotoma raises on purpose.

::

    ScotomaError
     ├── SettingsError (ValueError)     a setting, option or name that cannot be used
     │    └── UnknownNameError          no such model, fill, detector, ...; suggests the nearest
     ├── ImageError (ValueError)        a tensor or array that is not a picture as expected
     ├── CipherKeyError (ValueError)    a key or passphrase that is wrong, missing or misused
     │    └── WrongPassphraseError      it does not open the key file
     ├── FileError (OSError)            a file that cannot be read or written as asked
     │    ├── KeyFileError              no key file, a damaged or altered one, or one open to others
     │    ├── UnreadableImageError      truncated, empty, mislabelled, animated, too large, ...
     │    └── UnsafePathError           writing there would hurt an original or another output
     ├── RegionError (ValueError)       a region, mask or annotation that does not fit its picture
     ├── CodingError (ValueError)       coded bytes that are damaged, or values that cannot be coded
     ├── ReleaseError (ValueError)      a release that is damaged, or not for this key or model
     │    └── BitstreamError            a stream of latents that is damaged, foreign or cut off
     ├── NotGrantedError (PermissionError)  an attack reads what its threat model does not grant
     ├── NotApplicableError (ValueError)    an attack that has no hold on this kind of release
     ├── ScoreError (ValueError)        a score that a search cannot use: NaN, infinite, missing
     ├── SecretError (TypeError)        a secret was about to be copied, pickled or serialized
     ├── ModelError (RuntimeError)      a model that cannot be loaded or does not behave
     │    ├── UnsupportedModelError     a model whose structure a method cannot work on
     │    └── SilentModelError          a remote model that does not answer; ends the run
     └── MissingExtraError (ImportError)  an optional dependency is not installed

Each message says what was expected, what came, and what to do. A command line
face catches :class:`ScotomaError` once; anything else is our own bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BitstreamError",
    "CipherKeyError",
    "CodingError",
    "FileError",
    "ImageError",
    "KeyFileError",
    "MissingExtraError",
    "ModelError",
    "NotApplicableError",
    "NotGrantedError",
    "RegionError",
    "ReleaseError",
    "ScoreError",
    "ScotomaError",
    "SecretError",
    "SettingsError",
    "SilentModelError",
    "UnknownNameError",
    "UnreadableImageError",
    "UnsafePathError",
    "UnsupportedModelError",
    "WrongPassphraseError",
]


class ScotomaError(Exception):
    """Base of every error raised on purpose."""


class SettingsError(ScotomaError, ValueError):
    """A setting, option or name that cannot be used."""


class UnknownNameError(SettingsError):
    """A name that no registry holds; the message suggests the nearest ones.

    Args:
        kind: What was looked for, for example ``"fill"``.
        name: The name as given.
        known: All valid names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        super().__init__(f"no {kind} named {name!r}; {hint}")
        self.kind = kind
        self.name = name
        self.suggestion = near[0] if near else None


class ImageError(ScotomaError, ValueError):
    """A tensor or array that is not a picture of the expected shape, dtype or range."""


class CipherKeyError(ScotomaError, ValueError):
    """A key or passphrase that is wrong, missing or misused; never says what the secret is."""


class WrongPassphraseError(CipherKeyError):
    """The passphrase does not open the key file."""


class FileError(ScotomaError, OSError):
    """A file that cannot be read or written as asked."""


class KeyFileError(FileError):
    """A file that is no key file, or a damaged, altered or carelessly shared one."""


class UnreadableImageError(FileError):
    """A file that is not one whole, still, decodable picture of reasonable size."""


class UnsafePathError(FileError):
    """Writing there would overwrite an original or another input's output."""


class RegionError(ScotomaError, ValueError):
    """A region, mask or annotation that does not fit its picture."""


class CodingError(ScotomaError, ValueError):
    """Coded bytes that are damaged or cut off, or values that cannot be coded."""


class ReleaseError(ScotomaError, ValueError):
    """A release that is damaged, altered, foreign, or that does not fit the key or the model."""


class BitstreamError(ReleaseError):
    """A bitstream that is damaged, cut off, reordered, foreign, or of another split."""


class NotGrantedError(ScotomaError, PermissionError):
    """An attack reads what its threat model does not grant."""


class NotApplicableError(ScotomaError, ValueError):
    """An attack that has no hold on this kind of release; the message says why."""


class ScoreError(ScotomaError, ValueError):
    """A score that a search cannot use: NaN, infinite, or too few of them."""


class SecretError(ScotomaError, TypeError):
    """A secret was about to be copied, pickled or serialized."""


class ModelError(ScotomaError, RuntimeError):
    """A model that cannot be loaded, or whose answer has an unexpected form."""


class UnsupportedModelError(ModelError):
    """A model whose structure a method cannot work on; the message gives the specific reason."""


class SilentModelError(ModelError):
    """A remote model that does not answer: no fault of a picture, so the whole run stops."""


class MissingExtraError(ScotomaError, ImportError):
    """An optional dependency is not installed.

    Args:
        purpose: What needs it, for example ``"detecting faces"``.
        package: The import that failed.
        extra: The extra of this package that brings it.
        alone: The package asks for others that are not wanted here, so the extra brings what it
            does need, and it is installed by itself.
    """

    def __init__(self, purpose: str, package: str, extra: str, *, alone: bool = False) -> None:
        also = f" && pip install --no-deps {package}" if alone else ""
        super().__init__(
            f"{purpose} needs {package}, which is not installed; "
            f"run: pip install 'scotoma[{extra}]'{also}"
        )
