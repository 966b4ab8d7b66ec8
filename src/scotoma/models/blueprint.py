"""How to build a network anew: by name and plain arguments, so that a file can say it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scotoma.core.errors import ModelError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Blueprint"]

# What of a timm configuration decides the architecture that timm builds.
_TIMM_FIELDS = ("fixed_input_size", "global_pool", "input_size", "num_classes")
_READS_FILES = (
    "cache_dir",
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
)


@dataclass(frozen=True)
class Blueprint:
    """A library's architecture and its arguments.

    Args:
        family: ``scotoma``, ``timm`` or ``torchvision``.
        architecture: Name in that library.
        arguments: Plain data.
    """

    family: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_timm(cls, network: nn.Module, arguments: Mapping[str, Any]) -> Blueprint:
        """Return the blueprint of a network that timm built.

        Args:
            network: As timm made it.
            arguments: What timm was given besides a configuration.
        """
        config: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        fields = {name: config[name] for name in _TIMM_FIELDS if config.get(name) is not None}
        fields["num_classes"] = network.num_classes
        architecture = str(config["architecture"])
        return cls("timm", architecture, {"model_args": dict(arguments), "config": fields})

    def build(self, *, most: int | None = None) -> nn.Module:
        """Return the untrained network in evaluation mode.

        Args:
            most: Parameters that it may have; building ends at the first one beyond, so that a
                hostile description takes no more memory than its file accounts for.

        Raises:
            UnknownNameError: No such family or architecture.
            ModelError: The arguments do not fit it, or it is larger than ``most``.
        """
        if self.family not in _BUILDERS:
            raise UnknownNameError("family of networks", self.family, _BUILDERS)
        try:
            with _no_more_than(most):
                network = _BUILDERS[self.family](self.architecture, self.arguments)
        except (UnknownNameError, ModelError):
            raise
        except Exception as error:  # the libraries' errors have no common base
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ModelError(
                f"expected {self.family} to build {self.architecture!r}, got: {reason}; "
                "install the version that the model was adapted with"
            ) from error
        return network.eval().requires_grad_(False)

    def to_config(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_config` reads back.

        Raises:
            ModelError: Arguments that JSON cannot hold.
        """
        try:
            arguments = json.loads(json.dumps(dict(self.arguments), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"expected arguments of {self.architecture} that JSON can hold, got: {error}"
            ) from error
        return {
            "family": self.family,
            "architecture": self.architecture,
            "arguments": arguments,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Blueprint:
        """Read what :meth:`to_config` wrote.

        Raises:
            ModelError: It is something else.
        """
        try:
            found = cls(
                str(config["family"]), str(config["architecture"]), dict(config["arguments"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"expected a network's blueprint, got {config!r}") from error
        return found


def _build_scotoma(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    from scotoma.models import saved

    return saved.build(architecture, arguments)


def _build_timm(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(architecture):
        raise UnknownNameError("timm model", architecture, timm.list_models())
    config, model_args = arguments["config"], arguments["model_args"]
    # What makes timm read other files has no business in a blueprint, which may come from anyone.
    foreign = (config.keys() - set(_TIMM_FIELDS)) | (model_args.keys() & set(_READS_FILES))
    if foreign:
        raise ModelError(
            f"expected arguments that decide an architecture, got {', '.join(sorted(foreign))}; "
            "adapt the model again"
        )
    network: nn.Module = timm.create_model(
        architecture,
        pretrained=False,
        pretrained_cfg_overlay=config,
        **model_args,
    )
    return network


def _build_torchvision(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise UnknownNameError("torchvision model", architecture, known)
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **arguments)
    return network


@contextmanager
def _no_more_than(most: int | None) -> Iterator[None]:
    """End whatever builds a network at the parameter that makes it too large.

    Memory is taken when it is first written, which is after a parameter is registered.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    if most is None:
        yield
        return
    total = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > most:
            raise ModelError(
                f"expected a network of at most {most:,} parameters, as the file holds, got more "
                f"at {type(module).__name__}.{name}; adapt the model again"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


_BUILDERS: dict[str, Callable[[str, Mapping[str, Any]], nn.Module]] = {
    "scotoma": _build_scotoma,
    "timm": _build_timm,
    "torchvision": _build_torchvision,
}
