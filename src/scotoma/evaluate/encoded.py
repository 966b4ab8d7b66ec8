"""A split network as what is evaluated: pictures in, what leaves the camera out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from scotoma.core.errors import ImageError, SettingsError
from scotoma.evaluate.reading import normalize, refuse_key
from scotoma.evaluate.records import Choice
from scotoma.protections.encode.split import SCHEME, SplitProtection

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from scotoma.core.keys import Key
    from scotoma.core.protocols import Release
    from scotoma.models.classifier import Classifier
    from scotoma.models.split_model import SplitModel

__all__ = ["Encoded", "SplitSettings"]


@dataclass(frozen=True)
class SplitSettings:
    """Which split network.

    Args:
        file: As ``scotoma train split`` wrote it; relative to where you run, as models are.

    Raises:
        SettingsError: No file is named.
    """

    file: str = ""

    def __post_init__(self) -> None:
        if not self.file:
            raise SettingsError(
                f"expected file = SPLIT.safetensors for {SCHEME!r}, got none; make one with "
                "scotoma train split"
            )


class Encoded:
    """A split network on pictures that are not normalized yet.

    Args:
        settings: Its file.
        models: The plain network, for a file that does not hold it.

    Raises:
        ModelError: Missing, damaged, no split network, or its plain network is missing.
    """

    keyed = False

    def __init__(self, settings: SplitSettings, models: tuple[Classifier, ...] = ()) -> None:
        self.settings = settings
        path = Path(settings.file).expanduser()
        stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
        self.model = _load(path, stamp, models[0] if models else None)
        self._protection = SplitProtection(self.model)

    @property
    def choice(self) -> Choice:
        """``split`` and its file."""
        return Choice(SCHEME, {"file": self.settings.file})

    def protect(
        self, images: Tensor, key: Key | None = None, *, generator: Generator | None = None
    ) -> Release:
        """Normalize and encode; see :class:`.subjects.Subject`.

        Raises:
            ImageError: Pictures of another size than the network reads.
        """
        refuse_key(key, SCHEME)
        preprocessing = self.model.description.preprocessing
        if images.ndim != 4 or tuple(images.shape[1:]) != preprocessing.input_size:
            raise ImageError(
                f"expected pictures of {preprocessing.input_size}, which this split network "
                f"reads, got {tuple(images.shape[1:])}; set size in [data.LABEL]"
            )
        inputs = normalize(images, preprocessing)
        return self._protection.protect(inputs, generator=generator)

    def adapt(self, model: nn.Module, key: Key | None = None) -> nn.Module:
        """Return the server's half; see :class:`.subjects.Subject`."""
        return self._protection.adapt(model, key)

    def written_bits(self, release: Release) -> int:
        """Return the size of a release as a stream of the entropy coder."""
        from scotoma.images.bitstream import LatentWriter

        sink = BytesIO()
        with LatentWriter(sink, self.model.latent_shape, model=self.model.coder) as writer:
            for frame in release.data.byte().numpy():
                writer.write(frame)
        return 8 * len(sink.getvalue())


@lru_cache(maxsize=1)
def _load(path: Path, stamp: tuple[int, int], classifier: Classifier | None) -> SplitModel:  # noqa: ARG001
    """Open a split file, which takes seconds, once for all cells of a table."""
    from torch import nn

    from scotoma.models.split_model import load_split

    network = None if classifier is None else classifier.network
    return load_split(path, network=network if isinstance(network, nn.Module) else None)
