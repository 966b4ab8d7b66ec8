"""What an attacker may ask and not look into.

An oracle answers with the key, so Python must have the key somewhere. It is a local
variable of a thread that nothing refers to: no attribute, closure or argument list leads
from the oracle to it.

Security:
    This keeps an attack honest, not locked in. Code that runs in one process with a key can
    read all of its memory (``sys._current_frames``, ``gc.get_objects``, ``ctypes``). Run
    attacks that you do not trust in a process of their own, on release files:
    ``scotoma attack``.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from scotoma.core.errors import SecretError

if TYPE_CHECKING:
    from torch import Tensor

    from scotoma.core.protocols import Release

__all__ = ["Oracle"]


class Oracle:
    """A function that can be called and not opened; a context manager that ends its thread.

    Args:
        answer: Makes a release of pictures; only the thread keeps it.
    """

    __slots__ = ("_answers", "_questions")

    def __init__(self, answer: Callable[[Tensor], Release]) -> None:
        self._questions: SimpleQueue[Any] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        # A threading.Thread would hold its arguments where threading.enumerate() finds them.
        _thread.start_new_thread(_serve, (answer, self._questions, self._answers))

    def __call__(self, images: Tensor) -> Release:
        """Return the release of ``(N, 3, H, W)`` pictures in [0, 1].

        Raises:
            ScotomaError: Pictures that cannot be protected.
        """
        self._questions.put((images.detach().clone(),))
        done, found = self._answers.get()
        if not done:
            raise found
        release: Release = found
        return release

    def close(self) -> None:
        """End the thread; the oracle answers no more."""
        self._questions.put(None)

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise SecretError("expected an oracle to stay where it is, got an attempt to copy it")


def _serve(
    answer: Callable[[Tensor], Release], questions: SimpleQueue[Any], answers: SimpleQueue[Any]
) -> None:
    while (question := questions.get()) is not None:
        try:
            answers.put((True, answer(*question)))
        except Exception as error:  # whoever asked gets it, without the frames that hold the key
            error.__traceback__ = error.__context__ = error.__cause__ = None
            answers.put((False, error))
    answer = questions = None  # type: ignore[assignment]
    answers.put((False, RuntimeError("expected an oracle that is open, got one already closed")))
