"""Images that machines can read and people can't.

The names here are the interface that stays::

    from pathlib import Path
    import scotoma

    summary = scotoma.anonymize(
        [Path("photos")], Path("out"), [scotoma.load_classifier("embedded")]
    )

They are loaded when they are first used, so that ``import scotoma`` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scotoma.core.errors import ScotomaError
    from scotoma.core.keys import Key
    from scotoma.core.protocols import Release
    from scotoma.images.write import Encoding
    from scotoma.models.spec import load_classifier
    from scotoma.protections.anonymize.settings import SearchSettings, Transfer
    from scotoma.protections.encrypt.encryption import open_protection
    from scotoma.protections.encrypt.settings import EncryptSettings
    from scotoma.protections.encrypt.transforms import Encrypt
    from scotoma.run.anonymize import anonymize
    from scotoma.run.detect import detect
    from scotoma.run.settings import AnonymizeSettings

__all__ = [
    "AnonymizeSettings",
    "Encoding",
    "Encrypt",
    "EncryptSettings",
    "Key",
    "Release",
    "ScotomaError",
    "SearchSettings",
    "Transfer",
    "anonymize",
    "detect",
    "load_classifier",
    "open_protection",
]

_HOMES = {
    "AnonymizeSettings": "run.settings",
    "Encoding": "images.write",
    "Encrypt": "protections.encrypt.transforms",
    "EncryptSettings": "protections.encrypt.settings",
    "Key": "core.keys",
    "Release": "core.protocols",
    "ScotomaError": "core.errors",
    "SearchSettings": "protections.anonymize.settings",
    "Transfer": "protections.anonymize.settings",
    "anonymize": "run.anonymize",
    "detect": "run.detect",
    "load_classifier": "models.spec",
    "open_protection": "protections.encrypt.encryption",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'scotoma' has no attribute {name!r}")
    return getattr(import_module(f"scotoma.{_HOMES[name]}"), name)
