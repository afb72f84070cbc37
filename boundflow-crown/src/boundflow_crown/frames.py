"""Where the windows of rows lie: static geometry, in numbers of elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boundflow_core.ir.types import Attrs

__all__ = ["Frame"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """Windows of one size, whose origin follows from the position of the row's neuron.

    The window of the neuron at row y and column x covers ``size`` rows of a map from ``scale * y + offset`` on, and
    columns likewise. Parts of it may lie outside of the map.

    Attributes:
        grid: height and width of the map that the neurons are from.
        scale, offset, size: per axis.
    """

    grid: Pair
    scale: Pair = (1, 1)
    offset: Pair = (0, 0)
    size: Pair = (1, 1)

    @property
    def attrs(self) -> dict[str, Pair]:
        return {"grid": self.grid, "scale": self.scale, "offset": self.offset, "size": self.size}

    @staticmethod
    def of(attrs: Attrs) -> Frame:
        return Frame(attrs["grid"], attrs["scale"], attrs["offset"], attrs["size"])

    def below_conv(self, attrs: Attrs, kernel: Sequence[int]) -> Frame:
        """Windows of a convolution's input that windows of its result read."""
        stride, dilation, padding = attrs["stride"], attrs["dilation"], attrs["padding"]
        return Frame(
            self.grid,
            _pair(stride[a] * self.scale[a] for a in (0, 1)),
            _pair(stride[a] * self.offset[a] - padding[a] for a in (0, 1)),
            _pair((self.size[a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1 for a in (0, 1)),
        )

    def moved(self, by: Sequence[int]) -> Frame:
        """The same windows in a map whose origin lies ``by`` further on."""
        return Frame(self.grid, self.scale, _pair(self.offset[a] - by[a] for a in (0, 1)), self.size)

    def union(self, other: Frame) -> Frame | None:
        """The least windows that hold both, or None where they move apart from one position to the next."""
        if (self.grid, self.scale) != (other.grid, other.scale):
            return None
        first = _pair(min(self.offset[a], other.offset[a]) for a in (0, 1))
        last = _pair(max(self.offset[a] + self.size[a], other.offset[a] + other.size[a]) for a in (0, 1))
        return Frame(self.grid, self.scale, first, _pair(last[a] - first[a] for a in (0, 1)))

    def outside(self, extent: Sequence[int]) -> tuple[Pair, Pair]:
        """How far windows reach out of a map of ``extent``, before its first and after its last row and column."""
        low = _pair(max(0, -self.offset[a]) for a in (0, 1))
        last = _pair(self.scale[a] * (self.grid[a] - 1) + self.offset[a] + self.size[a] for a in (0, 1))
        return low, _pair(max(0, last[a] - extent[a]) for a in (0, 1))

    def inside(self, extent: Sequence[int]) -> bool:
        """Whether no window reaches out of a map of ``extent``."""
        return self.outside(extent) == ((0, 0), (0, 0))

    def share(self, extent: Sequence[int]) -> float:
        """The area of a window as a part of the map's."""
        return self.size[0] * self.size[1] / max(1, extent[0] * extent[1])


def _pair(numbers: Iterable[int]) -> Pair:
    first, second = numbers
    return first, second
