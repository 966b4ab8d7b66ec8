"""What has to be known besides the weights to build an adapted network again from a plain one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from scotoma.core.errors import ModelError
from scotoma.models.stem_layer import BlockStem, BlockStemSettings
from scotoma.models.stems import copy_sharing

__all__ = ["restore_stems", "stem_layout"]

Layout = dict[str, dict[str, Any]]


def stem_layout(adapted: nn.Module) -> Layout:
    """Return the public geometry of each :class:`BlockStem`, by dotted path; plain data.

    A network whose stems were patch embeddings of as many channels as before has none: its
    weights fit the ordinary architecture.
    """
    return {
        name: module.settings.to_config()
        for name, module in adapted.named_modules()
        if isinstance(module, BlockStem)
    }


def restore_stems(network: nn.Module, layout: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """Return the network with empty stems as in ``layout``; weights are to be loaded.

    Args:
        network: The ordinary architecture; not changed.
        layout: Of :func:`stem_layout`, from JSON too.

    Raises:
        ModelError: A path that the network does not have, or settings that are none.

    Example:
        >>> import torch
        >>> plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
        >>> from scotoma.models.block_stem import adapt_stems
        >>> adapted = adapt_stems(plain, (3, 8, 8), 2, torch.eye(12).double()[None, None])
        >>> again = restore_stems(plain, stem_layout(adapted))
        >>> again.load_state_dict(adapted.state_dict())
        <All keys matched successfully>
    """
    pairs = []
    for name, config in layout.items():
        try:
            module = network.get_submodule(name)
        except AttributeError as error:
            raise ModelError(
                f"expected a network with a module {name!r}, got a {type(network).__name__} "
                "without; the layout belongs to another architecture"
            ) from error
        pairs.append((module, BlockStem(BlockStemSettings.from_config(config))))
    return copy_sharing(network, pairs)
