"""What decides an anonymization run besides its pictures and models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from scotoma import __version__
from scotoma.core.errors import SettingsError, UnknownNameError
from scotoma.images.regions import DetectorSettings
from scotoma.images.write import Encoding
from scotoma.models.classifier import Classifier
from scotoma.ops.fills import DEFAULT_FILL, fills
from scotoma.protections.anonymize.settings import BlackBox, SearchSettings
from scotoma.run.manifest import sha256_of

__all__ = ["AnonymizeSettings"]

_ADAPTATIONS = ("auto", "blackbox", "gradient", "none")


@dataclass(frozen=True)
class AnonymizeSettings:
    """Everything that decides a run besides its pictures and models.

    Args:
        regions: Region SPEC: ``faces``, ``center:F``, ``box:...``, a COCO file, ``none``, ...
        detector: Threshold and growth of detected boxes.
        fill: Name of the naive fill.
        adapt: ``gradient`` and ``blackbox`` search the decisions back, with gradients or with
            scores alone; ``auto`` takes gradients where every model has them; ``none`` only
            reports what the fill does.
        search: Settings of that search.
        blackbox: Further settings where it goes by scores.
        encoding: Format and quality of the written files.
        exemplars: Folder of public pictures to start from; None starts from the fill.
        keep_metadata: Names of metadata that may survive.
        copy_unchanged: Write pictures without a region too, metadata stripped.
        seed: Of everything random.

    Raises:
        UnknownNameError: No such fill or adaptation; the message suggests the nearest.
        SettingsError: A negative seed.
    """

    regions: str = "faces"
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    fill: str = DEFAULT_FILL
    adapt: str = "auto"
    search: SearchSettings = field(default_factory=SearchSettings)
    blackbox: BlackBox = field(default_factory=BlackBox)
    encoding: Encoding = field(default_factory=Encoding)
    exemplars: Path | None = None
    keep_metadata: frozenset[str] = frozenset()
    copy_unchanged: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        fills.get(self.fill)
        if self.adapt not in _ADAPTATIONS:
            raise UnknownNameError("adaptation", self.adapt, _ADAPTATIONS)
        if self.seed < 0:
            raise SettingsError(f"expected a seed of at least 0, got {self.seed}")

    def settled(self, models: Sequence[Classifier]) -> AnonymizeSettings:
        """Return the same with ``auto`` replaced by what it means for these models."""
        if self.adapt != "auto":
            return self
        with_gradients = all(model.differentiable for model in models)
        return replace(self, adapt="gradient" if with_gradients else "blackbox")

    def effective_search(self) -> SearchSettings:
        """Return the search settings, with no steps where no adaptation was asked for."""
        return replace(self.search, max_steps=0) if self.adapt == "none" else self.search

    def fingerprint(
        self,
        models: Sequence[Classifier],
        observers: Sequence[Classifier],
        surrogates: Sequence[Classifier] = (),
    ) -> str:
        """Return 16 hexadecimal digits that change with anything that could change a result.

        That includes what lies in a file of regions, a folder of masks or of exemplars, or a
        file of weights: edited and run again, they must not count as done.

        Raises:
            FileError: One of these files cannot be read.
        """
        plain = asdict(self)
        plain["keep_metadata"] = sorted(self.keep_metadata)
        plain["search"]["keep"] = self.search.keep.text
        plain["models"] = [_model_digest(model) for model in models]
        plain["observers"] = [_model_digest(model) for model in observers]
        plain["surrogates"] = [_model_digest(model) for model in surrogates]
        plain["regions_content"] = _content_digest(Path(self.regions))
        plain["exemplars_content"] = _content_digest(self.exemplars) if self.exemplars else None
        plain["version"] = __version__
        text = json.dumps(plain, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _model_digest(model: Classifier) -> list[str]:
    """Return what tells two models of one name apart: weights, program, preprocessing."""
    import torch

    digest = hashlib.sha256("".join(_file_digests(model.spec)).encode())
    if isinstance(model.network, torch.nn.Module):
        for name, tensor in sorted(model.network.state_dict().items()):
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(content.numpy())
    return [model.spec, repr(model.preprocessing), digest.hexdigest()]


def _file_digests(spec: str) -> list[str]:
    """Return hashes of the files that a model's name names, as in ``python:FILE:FUNCTION``."""
    target = spec.partition(":")[2]
    named = dict.fromkeys((target, target.rpartition(":")[0], target.rpartition("@")[2]))
    files = [Path(name).expanduser() for name in named if name]
    return [sha256_of(file) for file in files if file.is_file()]


def _content_digest(path: Path) -> str | None:
    """Return a hash of a file, or of all files under a folder; None where there is neither."""
    if path.is_file():
        return sha256_of(path)
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(
                f"{file.relative_to(path)}\0{sha256_of(file)}\n".encode("utf-8", "replace")
            )
    return digest.hexdigest()
