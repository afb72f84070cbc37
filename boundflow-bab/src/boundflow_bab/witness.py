"""Counterexamples are believed only where the network itself, run in float32, agrees."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.verdict import Counterexample
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType
from boundflow_core.property import Property

__all__ = ["Witness", "within"]

Array = NDArray[Any]


class Witness:
    """Runs candidates through the network: by onnxruntime where it is installed and the network is an ONNX file.

    Args:
        graph: the network.
        prop: what its counterexamples violate.
        path: the file that it was read from, if any.
    """

    def __init__(self, graph: PrimalGraph, prop: Property, path: str | Path | None = None) -> None:
        self._graph, self._prop = graph, prop
        onnx = path is not None and str(path).endswith(".onnx") and find_spec("onnxruntime") is not None
        self._path = str(path) if onnx else None
        self._session: Any = None

    @property
    def source(self) -> str:
        """Who runs the network."""
        return "onnxruntime" if self._path is not None else "reference"

    def judge(self, x: Array, lower: Array, upper: Array) -> Counterexample | None:
        """The candidate ``x`` [*input], moved into its box as float32, if it violates the property there."""
        point = within(x, lower, upper)
        y = self._outputs(point)
        # The box in float32: where an end has no float32 of its own, the nearest one stands for it.
        exact = np.clip(point.astype(np.float64), lower, upper)
        if not self._prop.is_counterexample(exact, y):
            return None
        return Counterexample(point.reshape(-1), y.reshape(-1), self.source)

    def _outputs(self, point: Array) -> Array:
        if self._path is None:
            return np.asarray(evaluate_graph(self._graph, point[None], DType.FLOAT32)[0])
        if self._session is None:
            self._session = _open(self._path)
        (node,) = self._session.get_inputs()[:1]
        shape = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in node.shape]
        feed = point.reshape(shape) if np.prod(shape) == point.size else point[None]
        return np.asarray(self._session.run(None, {node.name: feed})[0])


def within(x: Array, lower: Array, upper: Array) -> Array:
    """The float32 number nearest to each of ``x`` that lies between ``lower`` and ``upper`` (float64); where there is
    none between them, the one nearest to them."""
    low, high = _toward(lower, np.inf), _toward(upper, -np.inf)
    point = np.clip(x.astype(np.float32), low, np.maximum(low, high))
    return np.where(low <= high, point, ((lower + upper) / 2).astype(np.float32)).astype(np.float32)


def _toward(x: Array, direction: float) -> Array:
    """``x`` in float32, rounded towards ``direction``."""
    cast = x.astype(np.float32)
    wrong = cast.astype(np.float64) < x if direction > 0 else cast.astype(np.float64) > x
    return np.where(wrong, np.nextafter(cast, np.float32(direction)), cast).astype(np.float32)


def _open(path: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
