"""Many pictures searched at once, each written down as if it were alone.

The life of one picture is a generator: it yields what it wants to know from the
models and is sent the answers. The scheduler holds a pool of lives, collects their
requests in one queue per kind of work, and always runs the fullest queue, so that
batches stay full: a picture that is done leaves at once and the next one enters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from scotoma.core.errors import SilentModelError

__all__ = ["Life", "Request", "run_together"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Request:
    """One item of work for a batch.

    Args:
        queue: Requests with equal queues may run in one batch.
        item: What the batch function is given.
        note: Called with the answer as soon as it is there, before the life has all it asked for.
    """

    queue: Hashable
    item: Any
    note: Callable[[Any], None] | None = None


Life = Generator[Sequence[Request], Sequence[Any], T]


@dataclass(eq=False)
class _Running(Generic[T]):
    life: Life[T]
    weight: int
    answers: list[Any] = field(default_factory=list)
    missing: int = 0


@dataclass(frozen=True, eq=False)
class _Failure:
    """Stands where an answer was expected."""

    error: Exception


def run_together(
    lives: Iterator[tuple[Life[T], int]],
    execute: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
    *,
    batch_size: int,
    pool_size: int,
    pool_weight: int,
) -> Iterator[T]:
    """Run lives to their end and yield what they return, in the order in which they end.

    Args:
        lives: Pairs of a life and its weight (what it costs to hold, for example in pixels);
            pulled only when there is room, so that memory stays flat.
        execute: Answers a batch of items of one queue, in order. Where that fails, the items
            are tried one by one, and a life whose own item fails is thrown the error.
        batch_size: Most items in one batch.
        pool_size: Most lives at a time.
        pool_weight: Most weight at a time; one life is always admitted.
    """
    queues: dict[Hashable, deque[tuple[_Running[T], int, Request]]] = {}
    finished: deque[T] = deque()
    running = 0
    weight = 0
    exhausted = False

    def resume(state: _Running[T], answers: Sequence[Any] | None) -> bool:
        """Send the answers; queue the next requests. False when the life has ended."""
        try:
            failure = next((a for a in answers or () if isinstance(a, _Failure)), None)
            if failure is not None:
                requests = state.life.throw(failure.error)
            else:
                requests = next(state.life) if answers is None else state.life.send(answers)
            while not requests:
                requests = state.life.send(())
        except StopIteration as end:
            finished.append(end.value)
            return False
        state.answers = [None] * len(requests)
        state.missing = len(requests)
        for place, request in enumerate(requests):
            queues.setdefault(request.queue, deque()).append((state, place, request))
        return True

    while True:
        while not exhausted and running < pool_size and (running == 0 or weight < pool_weight):
            entry = next(lives, None)
            if entry is None:
                exhausted = True
                break
            state = _Running(*entry)
            if resume(state, None):
                running += 1
                weight += state.weight
        while finished:
            yield finished.popleft()
        if running == 0:
            if exhausted:
                return
            continue
        name = max(queues, key=lambda key: len(queues[key]))
        batch = [queues[name].popleft() for _ in range(min(batch_size, len(queues[name])))]
        answers = _attempt(execute, name, [request.item for _, _, request in batch])
        for (_, _, request), answer in zip(batch, answers, strict=True):
            if request.note is not None and not isinstance(answer, _Failure):
                request.note(answer)
        for (state, place, _), answer in zip(batch, answers, strict=True):
            state.answers[place] = answer
            state.missing -= 1
            if state.missing == 0 and not resume(state, state.answers):
                running -= 1
                weight -= state.weight


def _attempt(
    execute: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
    queue: Hashable,
    items: Sequence[Any],
) -> Sequence[Any]:
    """Answer a batch; one bad item must not cost the others their answers."""
    try:
        return execute(queue, items)
    except SilentModelError:
        raise  # asking for each alone would only wait longer
    except Exception as error:  # whose it is, only asking each alone can tell
        if len(items) == 1:
            return [_Failure(error)]
    return [_attempt(execute, queue, [item])[0] for item in items]
