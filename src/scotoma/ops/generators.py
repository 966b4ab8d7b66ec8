"""Random generators whose whole state is filled, for what must not be guessed.

``Generator.manual_seed`` takes 64 bits and uses 32 of them: a secret drawn from such a generator
is found by trying 2^32 seeds, which takes a day of one core and minutes of a GPU.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Generator

__all__ = ["seeded_generator"]

_DOMAIN = b"scotoma generator 1\0"
# A CPU generator's state: its seed, two numbers for how many words are left and whether there is
# a seed, the place of the next word, then the Mersenne Twister's words of 32 bits, each in 64.
_START, _WORDS = 24, 624
_PROBE = 5489
_FACTOR = 1812433253  # of Knuth's recurrence, by which a seed becomes the first words


def seeded_generator(secret: bytes) -> Generator:
    """Return a generator on the CPU that only ``secret`` gives, as hard to guess as it is.

    Args:
        secret: Any number of bytes; 32 random ones for numbers that nobody can guess.

    Raises:
        RuntimeError: This version of torch keeps its generators' state in another form.

    Security:
        A Mersenne Twister gives its state away to who sees some thousand of its numbers. The
        order of a picture's patches shows fewer; take a new generator for each picture.

    Example:
        >>> import secrets
        >>> order = torch.randperm(196, generator=seeded_generator(secrets.token_bytes(32)))
    """
    generator = Generator().manual_seed(_PROBE)
    state = generator.get_state()
    words = state[_START : _START + 8 * _WORDS].view(torch.int64)
    _check_form(words.tolist())
    stream = hashlib.shake_256(_DOMAIN + secret).digest(4 * _WORDS)
    fresh = torch.frombuffer(bytearray(stream), dtype=torch.uint8).view(_WORDS, 4).long()
    words.copy_((fresh << torch.tensor([0, 8, 16, 24])).sum(1))
    generator.set_state(state)
    return generator


def _check_form(words: list[int]) -> None:
    """Raise unless these are the words that the probe's seed gives: another form is another guess.

    Filling the wrong places would leave the generator as guessable as it was.
    """
    first, second = words[0], words[1]
    expected = (_FACTOR * (first ^ (first >> 30)) + 1) % 2**32
    if first != _PROBE or second != expected:
        raise RuntimeError(
            f"expected torch to keep {_WORDS} words of state from byte {_START} of a generator on, "
            f"got another form in torch {torch.__version__}; install torch as in constraints.txt"
        )
