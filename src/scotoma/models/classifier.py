"""A classifier: a network, how it is fed, and what its classes are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scotoma.core.errors import ImageError, ModelError, ReleaseError
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.release_form import ReleaseForm, check_preprocessing

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from scotoma.core.protocols import Release
    from scotoma.models.blueprint import Blueprint

__all__ = ["Classifier"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network behind its own documented preprocessing.

    Args:
        spec: As the user named it.
        name: Short, for tables, for example ``mobilenetv2_100``.
        network: ``(B, 3, H, W)`` normalized float32 to ``(B, K)`` logits; a frozen
            ``nn.Module`` in evaluation mode where ``differentiable``.
        preprocessing: From a picture to what the network reads.
        classes: Name of each logit, where known.
        differentiable: Whether gradients flow from the logits to the inputs.
        device: Where the network lies.
        reads: Which releases the network reads instead of pictures; None for an ordinary one.
        blueprint: How to build the network anew, where that is known.
        labels_only: The logits say which class comes first and nothing else.

    Example::

        classifier = load_classifier("timm:local-dir:models/mobilenetv2_100")
        logits = classifier.logits(classifier.read(picture)[None])
        print(classifier.class_name(int(logits.argmax())))
    """

    spec: str
    name: str
    network: Callable[[Tensor], Tensor]
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    differentiable: bool
    device: str = "cpu"
    reads: ReleaseForm | None = None
    blueprint: Blueprint | None = None
    labels_only: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` that the network takes: a picture's, or a release's."""
        return self.reads.shape if self.reads else self.preprocessing.input_size

    def read(self, picture: Image.Image) -> Tensor:
        """Return the picture as the network reads it: ``(3, H, W)`` float32, normalized.

        Grayscale, palette and other modes become RGB first, transparency is dropped.

        Raises:
            ModelError: The network reads releases, and would make nonsense of a picture.
        """
        if self.reads is not None:
            raise ModelError(
                f"expected a release of {self.reads} for {self.name}, got a picture; "
                "encrypt it first, or name the model that was adapted"
            )
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        return self.preprocessing.transform(picture)

    def open_release(self, release: Release) -> Tensor:
        """Return a release as the network reads it: ``(B, C, H, W)`` float32.

        Args:
            release: Made for this model: same scheme, key, dataset, settings, size and
                preprocessing. A key-less scheme's may also be read by a network that names
                the scheme in an attribute ``reads``.

        Raises:
            ReleaseError: It was made for another model.
        """
        if self.reads is not None:
            self.reads.check(release, self.name)
        else:
            self._check_keyless(release)
        check_preprocessing(self.preprocessing, release, self.name)
        return release.data.float()

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the ``(B, K)`` float32 logits of a batch, on the CPU; no gradients are kept.

        Args:
            inputs: ``(B, 3, H, W)`` float32, normalized, of the size that the network takes.

        Raises:
            ImageError: Inputs of another shape or type.
            ModelError: The answer is not one row of finite numbers per picture.
        """
        import torch

        expected = self.input_shape
        if inputs.ndim != 4 or len(inputs) == 0 or not self._takes(tuple(inputs.shape[1:])):
            raise ImageError(
                f"expected inputs (B, {', '.join(map(str, expected))}) for {self.name}, "
                f"got {tuple(inputs.shape)}"
            )
        if inputs.dtype != torch.float32:
            raise ImageError(f"expected float32 inputs for {self.name}, got {inputs.dtype}")
        with torch.no_grad():
            # One memory layout, so that a caller's does not decide how kernels round.
            logits = self.network(inputs.to(self.device).contiguous())
        return self._checked(logits, len(inputs))

    def class_name(self, label: int) -> str:
        """Return the name of a logit, or its index as text where names are not known."""
        if self.classes is not None and 0 <= label < len(self.classes):
            return self.classes[label]
        return str(label)

    def _check_keyless(self, release: Release) -> None:
        """Raise unless the network itself names the release's scheme and patches."""
        form = ReleaseForm.of(release)
        reads = getattr(self.network, "reads", ())
        if form.scheme not in reads:
            advice = "adapt it first: scotoma adapt" if form.key_id else "train one that does"
            raise ReleaseError(
                f"expected a model that reads releases of {form}, got {self.name}, which reads "
                f"{', '.join(sorted(reads)) or 'pictures only'}; {advice}"
            )
        sides = getattr(getattr(self.network, "patch_embed", None), "patch_size", None)
        block = form.settings.get("block")
        if sides is not None and tuple(sides) != (block, block):
            raise ReleaseError(
                f"expected patches of {sides[0]}×{sides[1]} pixels for {self.name}, got a release "
                f"of {block}×{block}; encrypt with --block {sides[0]}"
            )

    def _takes(self, shape: tuple[int, ...]) -> bool:
        if shape == self.input_shape:
            return True
        # Networks that read mixed releases take pictures too, of twice the sides; they check.
        return self.reads is None and "mix" in getattr(self.network, "reads", ())

    def _checked(self, logits: object, count: int) -> Tensor:
        import torch
        from torch import Tensor

        if not isinstance(logits, Tensor):
            raise ModelError(
                f"expected one tensor of logits from {self.name}, got a {type(logits).__name__}; "
                "export the model so that it returns its logits alone"
            )
        if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 1:
            raise ModelError(
                f"expected logits ({count}, K) from {self.name}, got {tuple(logits.shape)}; "
                "only classifiers of whole pictures can be used"
            )
        if not logits.is_floating_point() or not bool(torch.isfinite(logits).all()):
            raise ModelError(
                f"expected finite logits from {self.name}, got {logits.dtype} with "
                f"{int((~torch.isfinite(logits)).sum())} of {logits.numel()} not finite; "
                "check that weights and preprocessing belong together"
            )
        return logits.float().cpu()
