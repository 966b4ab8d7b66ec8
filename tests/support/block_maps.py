"""Random block maps, a slow and obvious encryption, and weights that make logits differ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["encrypt_blocks", "random_maps", "randomize", "relative_error"]


def random_maps(
    block: int,
    *,
    channels: int = 3,
    extra: int = 0,
    period: tuple[int, int] = (1, 1),
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return maps with orthonormal columns and their left inverses, float64.

    Returns:
        ``(P_h, P_w, C'*M*M, C*M*M)`` and ``(P_h, P_w, C*M*M, C'*M*M)``, ``C'`` = C + extra.
    """
    size, wide = channels * block**2, (channels + extra) * block**2
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(*period, wide, size, generator=generator, dtype=torch.float64)
    forward = torch.linalg.qr(gaussian).Q
    return forward, forward.mT


def encrypt_blocks(images: Tensor, forward: Tensor, block: int) -> Tensor:
    """Multiply block after block by its map; sides are filled up with zeros first."""
    rows, columns = forward.shape[:2]
    images = F.pad(images, (0, -images.shape[3] % block, 0, -images.shape[2] % block))
    blocks = F.pixel_unshuffle(images, block)
    mixed = blocks.new_zeros(len(blocks), forward.shape[2], *blocks.shape[2:])
    for i in range(blocks.shape[2]):
        for j in range(blocks.shape[3]):
            one = forward[i % rows, j % columns].to(blocks.dtype)
            mixed[:, :, i, j] = blocks[:, :, i, j] @ one.T
    return F.pixel_shuffle(mixed, block)


def randomize(network: nn.Module, *, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a random value, zero-initialized ones too; in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                scale = max(parameter[0].numel(), 1) ** -0.5
                parameter.normal_(generator=generator).mul_(scale)
            elif name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1, generator=generator)
            else:
                parameter.uniform_(0.6, 1.4, generator=generator)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.1, 0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.6, 1.4, generator=generator)
    return network.eval()


def relative_error(answers: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest centred value of ``expected``."""
    scale = (expected - expected.mean()).abs().max()
    return float((answers - expected).abs().max() / scale)
