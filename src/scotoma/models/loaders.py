"""Models of our own making, and torchvision's architectures with weights from a file."""

from __future__ import annotations

from pathlib import Path

from scotoma.core.errors import ModelError, SettingsError, UnknownNameError
from scotoma.models import adapted, saved
from scotoma.models.assembly import assemble, file_label, freeze, nearest, split_file
from scotoma.models.blueprint import Blueprint
from scotoma.models.classifier import Classifier
from scotoma.models.config import find_config, read_config
from scotoma.models.preprocessing import Preprocessing
from scotoma.models.weights import fit_weights, read_weights

__all__ = ["EMBEDDED", "TORCHVISION", "load_embedded", "load_saved", "load_torchvision"]

_FOLDER = Path(__file__).parent / "embedded"

EMBEDDED = {
    "": _FOLDER / "convmixer_cifar10.safetensors",
    "pevit": _FOLDER / "pevit_cifar10.safetensors",
    "vit": _FOLDER / "vit_cifar10.safetensors",
}
"""What ships with the package, by what follows ``embedded:``."""

TORCHVISION = Preprocessing(interpolation="bilinear")
"""torchvision's standard: shorter side to 256, crop 224, bilinear, ImageNet mean and std."""


def load_embedded(spec: str, target: str, device: str) -> Classifier:
    """Return a small model that ships with the package.

    Raises:
        SettingsError: No such model, or a colon with nothing after it.
        ModelError: The installation lacks the file.
    """
    if target not in EMBEDDED or spec.endswith(":"):
        forms = [f"embedded:{name}" if name else "embedded" for name in EMBEDDED]
        raise SettingsError(
            f"expected {', '.join(forms)}, got {spec!r}; for a file: scotoma:{target or 'FILE'}"
        )
    path = EMBEDDED[target]
    if not path.is_file():
        raise ModelError(
            f"expected the embedded model at {path}, but this installation came without it; "
            "reinstall scotoma, or name a model, for example timm:mobilenetv2_100"
        )
    return _classifier(spec, spec, path, device)


def load_saved(spec: str, target: str, device: str) -> Classifier:
    """Return a model that ``scotoma train`` or ``scotoma adapt`` wrote.

    Raises:
        ModelError: The file is missing, damaged, or not one of ours.
    """
    path = Path(target).expanduser()
    if adapted.is_adapted(path):
        return adapted.load_adapted(spec, path, device)
    return _classifier(spec, file_label(path), path, device)


def _classifier(spec: str, name: str, path: Path, device: str) -> Classifier:
    network, model = saved.load(path)
    blueprint = Blueprint("scotoma", model.architecture, model.arguments)
    return assemble(
        spec,
        name,
        freeze(network, device),
        model.preprocessing,
        {"classes": model.classes},
        differentiable=True,
        device=device,
        blueprint=blueprint,
    )


def load_torchvision(spec: str, target: str, device: str) -> Classifier:
    """Return a torchvision architecture with the weights of a file.

    Preprocessing is :data:`TORCHVISION` unless a JSON beside the file says otherwise.

    Raises:
        UnknownNameError: torchvision has no classifier of that name.
        ModelError: The weights do not fit.
    """
    import torchvision

    name, path = split_file(spec, target)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UnknownNameError("torchvision model", name, nearest(name, known))
    weights = read_weights(path)
    config_path = find_config(path)
    config = read_config(config_path) if config_path else {}
    # These two warn about, and spend minutes on, an initialization that is overwritten here.
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    count = config.get("num_classes", 1000)
    try:
        network = torchvision.models.get_model(name, weights=None, num_classes=count, **quick)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"expected num_classes in {config_path} as a whole number, got {count!r}: {error}"
        ) from error
    fit_weights(network, weights, path, name)
    preprocessing = Preprocessing.from_config({**TORCHVISION.to_config(), **_flat(config)})
    label = file_label(path)
    return assemble(
        spec,
        name if label == name else f"{name}@{label}",
        freeze(network, device),
        preprocessing,
        config,
        differentiable=True,
        device=device,
        blueprint=Blueprint("torchvision", name, {"num_classes": count, **quick}),
    )


def _flat(config: dict[str, object]) -> dict[str, object]:
    nested = config.get("pretrained_cfg", config)
    return nested if isinstance(nested, dict) else {}
