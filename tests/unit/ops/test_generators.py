import secrets

import numpy as np
import pytest
import torch
from torch import Generator

from scotoma.ops import generators
from scotoma.ops.generators import seeded_generator


def draw(generator: Generator, count: int = 2000) -> list[int]:
    return torch.randint(2**16, (count,), generator=generator).tolist()


def test_same_secret_same_numbers() -> None:
    secret = secrets.token_bytes(32)
    assert draw(seeded_generator(secret)) == draw(seeded_generator(secret))
    assert draw(seeded_generator(secret)) != draw(seeded_generator(secret + b"\0"))


def test_numbers_are_those_of_a_mersenne_twister_with_every_word_filled() -> None:
    generator = seeded_generator(b"secret")
    words = generator.get_state()[24 : 24 + 8 * 624].view(torch.int64).numpy()
    assert words.min() >= 0
    assert words.max() < 2**32
    assert len(set(words.tolist())) > 620
    twister = np.random.MT19937()
    twister.state = {
        "bit_generator": "MT19937",
        "state": {"key": words.astype(np.uint32), "pos": 624},
    }
    assert draw(generator) == [int(word) % 2**16 for word in twister.random_raw(2000)]


def test_no_seed_of_torch_gives_them() -> None:
    # The words after a seed follow from the first one; that is what makes 32 bits of it.
    words = seeded_generator(b"secret").get_state()[24:40].view(torch.int64).tolist()
    assert words[1] != (1812433253 * (words[0] ^ (words[0] >> 30)) + 1) % 2**32


def test_refuses_a_state_of_another_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "_START", 32)
    with pytest.raises(RuntimeError, match="another form"):
        seeded_generator(b"secret")
