"""BatchRunner: gathers requests of several threads and computes their bounds in one run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.arrays import concatenate, is_torch, like
from boundflow_core.compiled import Bounds, CompiledBounds
from boundflow_core.errors import OptionError
from boundflow_core.ir.constants import as_numpy
from boundflow_core.regions import Box, LpBall, Region
from boundflow_core.specs import LinearSpec

__all__ = ["BatchRunner"]


@dataclass(frozen=True)
class _Request:
    """A region [B, *input] and specification rows, as arrays."""

    region: Region
    spec: LinearSpec | None
    future: Future[Bounds]

    @property
    def sides(self) -> tuple[Any, ...]:
        return (self.region.lower, self.region.upper) if isinstance(self.region, Box) else (self.region.center,)

    @property
    def regions(self) -> int:
        shape = self.sides[0].shape
        return int(shape[0]) if shape else 1


class BatchRunner:
    """Computes bounds for requests that come one by one, many at a time.

    ``submit`` returns a future at once. Requests run when ``max_batch`` regions are waiting, when the oldest has waited
    for ``max_wait`` seconds, or on ``flush``. Requests of one kind (form of the region, number of specification rows,
    element type) run together, others beside them; each gets its own bounds, equal to those of a run of its own up to
    rounding. An error belongs to the request that caused it: where a batch fails, its requests run one by one.

    Args:
        run: what computes the bounds.
        max_batch: regions per run; a larger request runs by itself.
        max_wait: seconds; None to wait for ``max_batch`` or ``flush`` alone.

    Use as a context manager, or ``close`` it: what is waiting is computed then.
    """

    def __init__(self, run: CompiledBounds, max_batch: int = 64, max_wait: float | None = 0.005) -> None:
        if isinstance(max_batch, bool) or not isinstance(max_batch, int) or max_batch < 1:
            raise OptionError(f"max_batch must be a positive integer, not {max_batch!r}")
        if max_wait is not None and not max_wait >= 0:
            raise OptionError(f"max_wait must be a number of seconds or None, not {max_wait!r}")
        self._run, self._max_batch, self._max_wait = run, max_batch, max_wait
        self._waiting: list[_Request] = []
        self._count = 0
        self._timer: threading.Timer | None = None
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, region: Region, spec: LinearSpec | None = None) -> Future[Bounds]:
        """A future of the bounds over ``region``, as the compiled bounds would give them.

        Raises:
            OptionError: the runner is closed.
        """
        request = _Request(_with_batch_axis(region, len(self._run.graph.input_type.shape)), spec, Future())
        ready: list[_Request] = []
        with self._lock:
            if self._closed:
                raise OptionError("this batch runner is closed")
            self._waiting.append(request)
            self._count += request.regions
            if self._count >= self._max_batch:
                ready = self._take()
            elif self._timer is None and self._max_wait is not None:
                self._timer = threading.Timer(self._max_wait, self.flush)
                self._timer.daemon = True
                self._timer.start()
        self._compute(ready)
        return request.future

    def flush(self) -> None:
        """Computes whatever is waiting, in this thread."""
        with self._lock:
            ready = self._take()
        self._compute(ready)

    def close(self) -> None:
        """Computes whatever is waiting and takes no further requests."""
        with self._lock:
            self._closed = True
        self.flush()

    def __enter__(self) -> BatchRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> list[_Request]:
        """All that is waiting; the lock is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ready, self._waiting, self._count = self._waiting, [], 0
        return ready

    def _compute(self, requests: Sequence[_Request]) -> None:
        groups: dict[Any, list[_Request]] = {}
        for request in requests:
            if request.future.set_running_or_notify_cancel():
                groups.setdefault(_kind(request), []).append(request)
        for group in groups.values():
            for batch in _batches(group, self._max_batch):
                self._compute_together(batch)

    def _compute_together(self, batch: Sequence[_Request]) -> None:
        try:
            bounds = self._run(*_joined(batch))
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for request in batch:
                self._compute_together([request])
            return
        first = 0
        for request in batch:
            part = slice(first, first + request.regions) if len(batch) > 1 else slice(None)
            first += request.regions
            # Copies, so that one request's bounds do not keep those of all others in memory.
            request.future.set_result(Bounds(_own(bounds.lower[part]), _own(bounds.upper[part])))


def _batches(requests: Sequence[_Request], most: int) -> list[list[_Request]]:
    """Requests in their order, as many together as have at most ``most`` regions."""
    batches: list[list[_Request]] = []
    count = most
    for request in requests:
        if count + request.regions > most:
            batches.append([])
            count = 0
        batches[-1].append(request)
        count += request.regions
    return batches


def _with_batch_axis(region: Region, rank: int) -> Region:
    """``region`` with arrays, and with a batch axis where it is a single one."""
    if isinstance(region, Box):
        return Box(*(_with_axis(side, rank) for side in (region.lower, region.upper)))
    return LpBall(_with_axis(region.center, rank), region.eps, region.p)


def _with_axis(array: Any, rank: int) -> Any:
    array = array if is_torch(array) else np.asarray(array)
    return array[None] if len(array.shape) == rank else array


def _kind(request: _Request) -> Any:
    """What requests must have in common to be joined."""
    region, spec = request.region, request.spec
    norm = region.p if isinstance(region, LpBall) else None
    sides = tuple((*side.shape[1:], *_array_kind(side)) for side in request.sides)
    rows = None if spec is None else (*spec.C.shape[-2:], *_array_kind(spec.C))
    return type(region), norm, sides, rows


def _array_kind(array: Any) -> tuple[str, ...]:
    return type(array).__name__, str(array.dtype), str(getattr(array, "device", "cpu"))


def _joined(batch: Sequence[_Request]) -> tuple[Region, LinearSpec | None]:
    """One region and one specification for all requests."""
    if len(batch) == 1:
        return batch[0].region, batch[0].spec
    regions = [request.region for request in batch]
    if isinstance(regions[0], Box):
        region: Region = Box(*(concatenate([getattr(one, side) for one in regions], 0) for side in ("lower", "upper")))
    else:
        radii = concatenate([_radii(one) for one in regions if isinstance(one, LpBall)], 0)
        region = LpBall(concatenate([one.center for one in regions if isinstance(one, LpBall)], 0), radii, regions[0].p)
    specs = [request.spec for request in batch]
    if specs[0] is None:
        return region, None
    if all(spec is specs[0] for spec in specs) and len(specs[0].C.shape) == 2:
        return region, specs[0]
    rows = concatenate([_rows(request) for request in batch], 0)
    return region, LinearSpec(rows, concatenate([_offsets(request) for request in batch], 0))


def _radii(ball: LpBall) -> Any:
    """Radius of each region, in float64."""
    eps = as_numpy(ball.eps).astype(np.float64)
    return like(np.array(np.broadcast_to(eps, (int(ball.center.shape[0]),))), ball.center)


def _rows(request: _Request) -> Any:
    """Rows [B, S, n], one set per region."""
    assert request.spec is not None
    rows = request.spec.C
    rows = rows if len(rows.shape) == 3 else rows[None]
    return concatenate([rows] * request.regions, 0) if rows.shape[0] == 1 else rows


def _offsets(request: _Request) -> Any:
    """Offsets [B, S]."""
    assert request.spec is not None
    zeros = _rows(request)[..., 0] * 0
    return zeros if request.spec.offset is None else zeros + like(request.spec.offset, zeros)


def _own(array: Any) -> Any:
    return array.clone() if is_torch(array) else array.copy()
