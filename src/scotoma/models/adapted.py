"""Files of adapted models: an ordinary network whose stem reads releases instead of pictures.

A safetensors file like :mod:`scotoma.models.saved`, format 2. Its header says how to build the
plain network, which of its modules read blocks, and which releases the result reads; the
weights are the adapted ones. There is no key in it, and nothing of it is ever executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError
from scotoma.models import saved
from scotoma.models.assembly import assemble, file_label, freeze
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.release_form import ReleaseForm
from scotoma.models.weights import fit_weights, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from scotoma.models.stem_layer import BlockStemSettings

__all__ = ["FORMAT", "AdaptedModel", "is_adapted", "load_adapted", "save_adapted"]

FORMAT = 2
_SLACK = 1_000_000  # parameters


@dataclass(frozen=True)
class AdaptedModel:
    """What an adapted model's file holds besides its weights.

    Args:
        blueprint: Of the plain network.
        preprocessing: How pictures are read before they are encrypted.
        classes: Name of each logit, where known.
        reads: The releases that it reads.
        stems: By dotted path, the settings of each
            :class:`~scotoma.models.stem_layer.BlockStem`. Rewritten patch embeddings are not
            among them: they are what they were, with other weights.
    """

    blueprint: Blueprint
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    reads: ReleaseForm
    stems: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_config(self) -> dict[str, Any]:
        """Return the file's header."""
        return {
            "format": FORMAT,
            "blueprint": self.blueprint.to_config(),
            "preprocessing": self.preprocessing.to_config(),
            "classes": None if self.classes is None else list(self.classes),
            "reads": self.reads.to_config(),
            "stems": dict(self.stems),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], path: Path) -> AdaptedModel:
        """Read what :meth:`to_config` wrote.

        Raises:
            ModelError: Another format, or a damaged header.
        """
        if config.get("format") != FORMAT:
            raise ModelError(
                f"expected model format {FORMAT} in {path}, got {config.get('format')}; "
                "update scotoma"
            )
        try:
            classes = config["classes"]
            return cls(
                blueprint=Blueprint.from_config(config["blueprint"]),
                preprocessing=Preprocessing.from_config(config["preprocessing"]),
                classes=None if classes is None else tuple(str(name) for name in classes),
                reads=ReleaseForm.from_config(config["reads"]),
                stems={str(name): dict(stem) for name, stem in config["stems"].items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the header of {path} is damaged: {error!r}") from error

    def build(self, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return the network, ready for ``weights`` but not yet with them.

        Args:
            weights: Tell how wide stems are; a header that contradicts them builds nothing.

        Raises:
            ModelError: This version of the libraries builds another network.
        """
        from scotoma.models.stem_layer import BlockStemSettings

        # Stems differ in size, and some networks register a parameter more than once.
        most = 2 * sum(tensor.numel() for tensor in weights.values()) + _SLACK
        network = self.blueprint.build(most=most)
        for name, config in self.stems.items():
            network = _with_stem(network, name, BlockStemSettings.from_config(config), weights)
        _widen(network, weights)
        return network.eval().requires_grad_(False)


def save_adapted(path: Path, network: nn.Module, model: AdaptedModel) -> None:
    """Write an adapted network to ``path`` in one step.

    Args:
        path: The file, ending in ``.safetensors``.
        network: The adapted network.
        model: Its description; ``stems`` are taken from the network.

    Raises:
        FileError: It cannot be written.
        ModelError: A description that JSON cannot hold.

    Security:
        Whoever gets the file and also the plain model's weights can solve for the cipher:
        give it only to who may read pictures under this key. Its mode is 0600.
    """
    from scotoma.models.stem_layer import BlockStem

    stems = {
        name: module.settings.to_config()
        for name, module in network.named_modules()
        if isinstance(module, BlockStem)
    }
    header = {**model.to_config(), "stems": stems}
    saved.write_weights(path, network.state_dict(), header, private=True)


def is_adapted(path: Path) -> bool:
    """Return whether a model file of ours holds an adapted model.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    return bool(saved.read_header(path)["format"] == FORMAT)


def load_adapted(spec: str, path: Path, device: str) -> Classifier:
    """Return the classifier in an adapted model's file; it reads releases, not pictures.

    Args:
        spec: As the user named it.
        path: The file.
        device: Where the network is put.

    Raises:
        ModelError: The file is damaged, or this version of the libraries builds another
            network than the one that was adapted.
    """
    model = AdaptedModel.from_config(saved.read_header(path), path)
    weights = read_weights(path)
    network = model.build(weights)
    fit_weights(network, weights, path, f"adapted {model.blueprint.architecture}")
    frozen = freeze(network, device)
    try:
        return assemble(
            spec,
            file_label(path),
            frozen,
            model.preprocessing,
            {} if model.classes is None else {"classes": model.classes},
            differentiable=True,
            device=device,
            reads=model.reads,
        )
    except ModelError:
        raise
    except Exception as error:  # what a network says of another size has no common base
        raise ModelError(
            f"expected a network in {path} that reads releases {model.reads.shape}, got "
            f"{type(error).__name__}: {error}; adapt the model again"
        ) from error


def _with_stem(
    network: nn.Module, name: str, settings: BlockStemSettings, weights: Mapping[str, Tensor]
) -> nn.Module:
    """Put an empty block stem into its place, once the file is known to hold its weights."""
    import torch

    from scotoma.models.stem_layer import BlockStem

    prefix = f"{name}." if name else ""
    try:
        with torch.device("meta"):  # takes no memory, whatever the header asks for
            shapes = {part: value.shape for part, value in BlockStem(settings).state_dict().items()}
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"expected the settings of a block stem for {name!r}, got {settings}; "
            "adapt the model again"
        ) from error
    for part, shape in shapes.items():
        found = weights.get(prefix + part)
        if found is None or found.shape != shape:
            raise ModelError(
                f"expected a tensor {prefix + part!r} of shape {tuple(shape)}, got "
                f"{'none' if found is None else tuple(found.shape)}; adapt the model again"
            )
    stem = BlockStem(settings)
    if not name:
        return stem
    parent, _, last = name.rpartition(".")
    try:
        holder = network.get_submodule(parent)
        holder.get_submodule(last)
    except AttributeError as error:
        raise ModelError(
            f"expected a module {name!r} in the network, got none; install the version of timm "
            "that the model was adapted with"
        ) from error
    setattr(holder, last, stem)
    return network


def _widen(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let patch embeddings read as many channels as their adapted weights have."""
    import torch
    from torch import nn

    for name, module in network.named_modules():
        found = weights.get(f"{name}.weight" if name else "weight")
        if not isinstance(module, nn.Conv2d) or found is None or module.groups != 1:
            continue
        shape = (module.weight.shape[0], *found.shape[1:2], *module.weight.shape[2:])
        if tuple(found.shape) == shape and found.shape[1] > module.in_channels:
            module.in_channels = found.shape[1]
            module.weight = nn.Parameter(torch.zeros(shape))
