"""Adapt a classifier to releases, prove that it decides as before, write it."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from scotoma.core.errors import (
    FileError,
    ModelError,
    SettingsError,
    UnsafePathError,
    UnsupportedModelError,
)
from scotoma.models.adapted import AdaptedModel, is_adapted, load_adapted, save_adapted
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.release_form import ReleaseForm
from scotoma.protections.encrypt.encryption import Encryption, open_protection
from scotoma.protections.encrypt.settings import EncryptSettings

if TYPE_CHECKING:
    from scotoma.core.keys import Key
    from scotoma.core.protocols import Release

__all__ = ["TOLERANCE", "Adaptation", "Agreement", "adapt", "measure_agreement"]

TOLERANCE = 1e-4
"""Greatest difference of a logit that counts as none, as a fraction of the greatest logit."""

_PICTURES = 4
_LEAST_SPREAD = 10 * TOLERANCE  # else a network that answers always alike would agree


@dataclass(frozen=True)
class Agreement:
    """How an adapted model's logits on releases compare to the plain model's on pictures.

    Args:
        pictures: Random ones, half of them grain and half of them soft.
        max_difference: Greatest difference of a logit, as a fraction of ``logit_scale``.
        logit_scale: Greatest logit of the plain model, in magnitude.
        logit_spread: Greatest difference of a plain logit between two pictures, as such a
            fraction; only far below it is a difference a proof.
        decisions_changed: Pictures of which another class came first.
    """

    pictures: int
    max_difference: float
    logit_scale: float
    logit_spread: float
    decisions_changed: int


@dataclass(frozen=True)
class Adaptation:
    """What was written, and how well it agrees.

    Args:
        model: SPEC of the plain model.
        path: Of the adapted one.
        reads: The releases that it reads.
        agreement: Of the file as written and read back.
        onnx: Path of the ONNX file, where one was asked for.
        onnx_agreement: Of that file in onnxruntime.
    """

    model: str
    path: Path
    reads: ReleaseForm
    agreement: Agreement
    onnx: Path | None = None
    onnx_agreement: Agreement | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "model": self.model,
            "path": str(self.path),
            "reads": self.reads.to_config(),
            "agreement": asdict(self.agreement),
            "onnx": None if self.onnx is None else str(self.onnx),
            "onnx_agreement": None if self.onnx_agreement is None else asdict(self.onnx_agreement),
        }


def adapt(
    classifier: Classifier,
    settings: EncryptSettings,
    path: Path,
    *,
    key: Key | None = None,
    onnx: bool = False,
    seed: int = 0,
) -> Adaptation:
    """Write the model that reads releases as ``classifier`` reads pictures.

    The file is read back and compared to the plain model on random pictures first; one that
    disagrees is not written.

    Args:
        classifier: Of a library's architecture, so that a file can say how to build it.
        settings: As the releases are made.
        path: The file to write, ending in ``.safetensors``.
        key: As the releases are made.
        onnx: Write an ``.onnx`` file beside it.
        seed: Of the random pictures.

    Raises:
        SettingsError: A model that no file of ours can describe.
        CipherKeyError: No key for a keyed scheme, or one for a key-less one.
        ModelError: The model cannot read the scheme, or its adapted form disagrees.
        UnsafePathError: The file would replace one that is no adapted model.
        FileError: It cannot be written.
        MissingExtraError: ONNX was asked for and is not installed.

    Security:
        The file has no key in it. Yet whoever also has the plain weights can solve for the
        cipher, so it goes only to those who may read pictures under this key.
    """
    blueprint = _check_classifier(classifier)
    target = path.with_suffix(".onnx") if onnx else None
    _check_target(path, ".safetensors", classifier)
    if target is not None:
        _check_target(target, ".onnx", classifier)
    protection = open_protection(settings, classifier.preprocessing)
    network = protection.adapt(_module_of(classifier), key)
    release = _protect(protection, _random_pictures(classifier.preprocessing, 1, seed), key, seed)
    model = AdaptedModel(
        blueprint=blueprint,
        preprocessing=classifier.preprocessing,
        classes=classifier.classes,
        reads=ReleaseForm.of(release),
    )
    with _beside(path) as folder:
        part = Path(folder, path.name)
        save_adapted(part, network, model)
        written = load_adapted(f"scotoma:{path}", part, classifier.device)
        agreement = measure_agreement(classifier, written, protection, key, seed=seed)
        _check_agreement(agreement, classifier)
        exported = onnx_agreement = None
        if target is not None:
            exported = Path(folder, target.name)
            onnx_agreement = _export(classifier, written, model, exported, protection, key, seed)
        _put(part, path)
        if exported is not None and target is not None:
            _put(exported, target)
    return Adaptation(classifier.spec, path, model.reads, agreement, target, onnx_agreement)


def measure_agreement(
    plain: Classifier,
    adapted: Classifier,
    protection: Encryption,
    key: Key | None,
    *,
    pictures: int = _PICTURES,
    seed: int = 0,
) -> Agreement:
    """Compare a model on random pictures with its adapted form on their releases."""
    images = _random_pictures(plain.preprocessing, pictures, seed)
    release = _protect(protection, images, key, seed)
    before = torch.cat([plain.logits(image[None]) for image in images])
    after = torch.cat([adapted.logits(data[None]) for data in adapted.open_release(release)])
    scale = float(before.abs().max())
    difference = float((after - before).abs().max())
    spread = float((before.amax(0) - before.amin(0)).max())
    return Agreement(
        pictures=pictures,
        max_difference=difference / scale if scale > 0 else float("nan"),
        logit_scale=scale,
        logit_spread=spread / scale if scale > 0 else 0.0,
        decisions_changed=int((before.argmax(1) != after.argmax(1)).sum()),
    )


def _check_classifier(classifier: Classifier) -> Blueprint:
    if classifier.reads is not None:
        raise SettingsError(
            f"expected a plain model, got {classifier.spec}, which is adapted to {classifier.reads}"
            " already; name the model that it was made from"
        )
    if classifier.blueprint is None:
        raise SettingsError(
            f"expected an architecture that a file can name (embedded, scotoma:, timm:, hf: or "
            f"torchvision:), got {classifier.spec}; adapt it in Python with "
            "scotoma.models.block_stem.adapt_stems"
        )
    return classifier.blueprint


def _module_of(classifier: Classifier) -> nn.Module:
    if not isinstance(classifier.network, nn.Module):
        raise UnsupportedModelError(
            f"expected a torch module, got {classifier.spec}, whose weights cannot be rewritten"
        )
    return classifier.network


def _check_target(path: Path, suffix: str, classifier: Classifier) -> None:
    """Raise unless ``path`` may be written: nothing there, or an adapted model of ours."""
    if path.suffix.lower() != suffix:
        raise FileError(f"expected a name ending in {suffix}, got {path}; rename it")
    if not path.parent.is_dir():
        raise FileError(f"expected an existing folder to write {path.name} to, got {path.parent}")
    if not path.exists():
        return
    try:
        ours = path.is_file() and (suffix == ".onnx" or is_adapted(path))
    except ModelError:
        ours = False
    if suffix == ".onnx":
        from scotoma.models.onnx_export import is_exported

        ours = ours and is_exported(path)
    if not ours:
        raise UnsafePathError(
            f"expected no file at {path}, got one that scotoma adapt did not write "
            f"(perhaps {classifier.spec} itself); choose another name"
        )


def _random_pictures(preprocessing: Preprocessing, count: int, seed: int) -> Tensor:
    """Return pictures, one of grain and one soft in turn, that together no network confuses.

    Grain leaves out nothing that a stem reads; soft pictures differ in what comes after.
    """
    generator = Generator().manual_seed(seed)
    channels, height, width = preprocessing.input_size
    pixels = torch.rand(count, channels, height, width, generator=generator)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    soft = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    pixels[1::2] = soft[1::2]
    mean = torch.tensor(preprocessing.mean)[:, None, None]
    std = torch.tensor(preprocessing.std)[:, None, None]
    return (pixels - mean) / std


def _protect(protection: Encryption, images: Tensor, key: Key | None, seed: int) -> Release:
    return protection.protect(images, key, generator=Generator().manual_seed(seed))


def _check_agreement(agreement: Agreement, classifier: Classifier) -> None:
    if not agreement.logit_spread >= _LEAST_SPREAD:
        raise ModelError(
            f"expected a model whose answers depend on the picture, got {classifier.spec}, whose "
            f"logits for different pictures differ by {agreement.logit_spread:.1e} of their scale; "
            "load trained weights"
        )
    # Written so that NaN fails.
    if not agreement.max_difference <= TOLERANCE:
        raise ModelError(
            f"expected logits within {TOLERANCE:.0e} of their scale after adapting "
            f"{classifier.spec}, got {agreement.max_difference:.1e}; nothing was written, please "
            "report this model"
        )


def _export(
    classifier: Classifier,
    written: Classifier,
    model: AdaptedModel,
    path: Path,
    protection: Encryption,
    key: Key | None,
    seed: int,
) -> Agreement:
    """Write the ONNX form and compare what onnxruntime makes of it."""
    from scotoma.models.onnx_export import export_onnx
    from scotoma.models.onnx_scores import load_onnx

    described = {
        **model.preprocessing.to_config(),
        "classes": None if model.classes is None else list(model.classes),
        "reads": model.reads.to_config(),
    }
    export_onnx(path, _module_of(written), model.reads.shape, described)
    exported = load_onnx(f"onnx:{path}", str(path), "cpu")
    agreement = measure_agreement(classifier, exported, protection, key, seed=seed)
    _check_agreement(agreement, classifier)
    return agreement


def _put(part: Path, path: Path) -> None:
    """Move a file into place, readable by its owner alone: it is to be kept like the key."""
    part.chmod(0o600)
    part.replace(path)


def _beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a hidden folder on the same disk, so that a checked file moves in one step."""
    try:
        return tempfile.TemporaryDirectory(dir=path.parent, prefix=".scotoma-")
    except OSError as error:
        raise FileError(
            f"expected to write to {path.parent}, got {error.strerror or error}; check its "
            "permissions and free space"
        ) from error
