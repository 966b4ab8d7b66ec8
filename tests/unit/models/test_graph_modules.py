"""Exported programs are adapted like the models they were exported from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scotoma.models.block_stem import adapt_stems
from scotoma.models.exported import ExportedNetwork
from scotoma.models.graph_modules import with_convolution_modules


class Padded(nn.Module):
    """Pads by itself, as networks with "same" padding do when they are exported."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2)
        self.second = nn.Conv2d(8, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.first(F.pad(images, (0, 1, 0, 1))))
        return self.second(features).mean((2, 3))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 5, 4, stride=4)
        self.right = nn.Conv2d(3, 5, 3, stride=4, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return (F.relu(self.left(images)) * self.right(images)).mean((2, 3))


def _encrypt(images: Tensor, forward: Tensor, block: int) -> Tensor:
    blocks = F.pixel_unshuffle(images, block)
    return F.pixel_shuffle(torch.einsum("oi,bihw->bohw", forward.float(), blocks), block)


@pytest.mark.parametrize("kind", [Padded, Branches])
def test_an_exported_program_reads_releases(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind().eval().requires_grad_(False)
    images = torch.randn(3, 3, 32, 32)
    program = torch.export.export(
        model, (images,), dynamic_shapes={"images": {0: torch.export.Dim.DYNAMIC}}
    )
    network = ExportedNetwork(program, Path("model.pt2"))
    plain = network(images)
    assert torch.allclose(plain, model(images), atol=1e-6)
    rotation = torch.linalg.qr(torch.randn(192, 192, dtype=torch.float64)).Q
    adapted = adapt_stems(network, (3, 32, 32), 8, rotation.T[None, None].contiguous())
    answers = adapted(_encrypt(images, rotation, 8))
    scale = plain.abs().max()
    assert (answers - plain).abs().max() <= 1e-4 * scale
    assert (adapted(images) - plain).abs().max() > 1e-2 * scale
    assert torch.equal(network(images), plain)

    # With the plain weights beside the adapted ones, anyone could solve for the key.
    first = next(model.parameters())
    held = [*adapted.parameters(), *adapted.buffers()]
    assert not any(t.shape == first.shape and torch.equal(t, first) for t in held)


def test_only_what_reads_the_input_gets_a_module() -> None:
    model = Padded().eval()
    images = torch.randn(2, 3, 16, 16)
    graph = torch.export.export(model, (images,)).module(check_guards=False)
    with_convolution_modules(graph)
    calls = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert calls == ["input_convolution_0"]
    assert torch.equal(graph(images), model(images))
