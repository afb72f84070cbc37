"""Each kind of corruption, planted by hand in a legal graph or program, is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import Attrs, DType, SymDim, TensorType
from boundflow_core.ir.verify import verify_graph, verify_program


def graph():
    g = PrimalBuilder("g", "x", (3,))
    y = g.op("linear", g.input, np.ones((2, 3)))
    with g.at("second"):
        return g.finish(g.op("add", y, np.ones(2)))


def node(number, **changes):
    old = graph()
    nodes = list(old.nodes)
    nodes[number] = replace(nodes[number], **changes)
    return replace(old, nodes=tuple(nodes))


def extra(op, inputs, output="z", name="z", shape=(2,)):
    from boundflow_core.ir.primal import Node
    from boundflow_core.ir.primal_ops import PRIMAL_OPS

    old = graph()
    new = Node(name, PRIMAL_OPS[op], inputs, output, Attrs(), TensorType(DType.FLOAT32, shape))
    return replace(old, nodes=(*old.nodes, new))


GRAPHS = {
    "nobody reads the results": lambda: extra("relu", ("node",)),
    "two nodes are named": lambda: replace(extra("relu", ("second",), name="second"), output="z"),
    "a second time": lambda: extra("relu", ("node",), output="node"),
    "not defined before": lambda: replace(graph(), nodes=graph().nodes[::-1]),
    "should be a constant": lambda: extra("relu", ("c.1",)),
    "must be a constant": lambda: replace(extra("linear", ("second", "node")), output="z"),
    "declared as": lambda: node(1, type=TensorType(DType.FLOAT32, (5,))),
    "operands of ranks": lambda: node(1, type=TensorType(DType.FLOAT32, (1, 2))),
    "takes": lambda: replace(extra("relu", ("second", "node")), output="z"),
    "the output 'nothing'": lambda: replace(graph(), output="nothing"),
    "reads the constants": lambda: replace(graph(), constants={**graph().constants, "q": frozen(np.ones(1))}),
    "both the input and a constant": lambda: replace(graph(), constants={**graph().constants, "x": frozen(np.ones(3))}),
    "more axes than the result": lambda: replace(
        graph(), constants={**graph().constants, "c.1": frozen(np.ones((1, 2)))}
    ),
    "contracts": lambda: replace(graph(), constants={**graph().constants, "c": frozen(np.ones((2, 4)))}),
}


def test_the_graph_is_legal():
    verify_graph(graph())


@pytest.mark.parametrize("match", GRAPHS)
def test_corrupt_graphs(match):
    with pytest.raises(IRError, match=match):
        verify_graph(GRAPHS[match]())


B = SymDim.of("B")


def program():
    b = Builder(DType.FLOAT64, "p")
    x = b.input("x", (B, 2))
    return b.finish({"y": b.exp(x) + b.constant(np.ones(2))})


def with_op(number, **changes):
    old = program()
    ops = list(old.ops)
    ops[number] = replace(ops[number], **changes)
    return replace(old, ops=tuple(ops))


def dead():
    old = program()
    value = replace(old.ops[0].outputs[0], id=99)
    return replace(old, ops=(*old.ops, replace(old.ops[0], outputs=(value,))))


def wrong_type():
    old = program()
    (value,) = old.ops[1].outputs
    wrong = replace(value, type=TensorType(DType.FLOAT64, (B, 3)))
    return replace(old, ops=(old.ops[0], replace(old.ops[1], outputs=(wrong,))), outputs={"y": wrong})


def twice():
    old = program()
    return replace(old, ops=(old.ops[0], old.ops[0], old.ops[1]))


def constant(array):
    old = program()
    return replace(old, constants=dict.fromkeys(old.constants, frozen(array)))


def unread():
    b = Builder()
    value = b.constant(np.ones(1))
    old = program()
    return replace(old, constants={**old.constants, value: frozen(np.ones(1))})


def both():
    old = program()
    return replace(old, constants={**old.constants, old.inputs[0]: frozen(np.ones(2))})


def hidden(symbol):
    b = Builder()
    x = b.input("x", (2,))
    return b.finish({"y": x + b.reduce_sum(b.broadcast(b.constant(np.ones((1, 2))), (symbol, 2)), (0,))})


def bool_as_int():
    b = Builder()
    value = b.constant(np.array([True]))
    old = b.finish({"y": b.where(value, b.input("x", (1,)), 0.0)})
    return replace(old, constants={v: frozen(np.array([1])) if v is value else c for v, c in old.constants.items()})


PROGRAMS = {
    "not defined before": lambda: replace(program(), ops=program().ops[::-1]),
    "reads %2": lambda: replace(program(), ops=program().ops[1:]),
    "the operands give": wrong_type,
    "a second time": twice,
    "nobody reads the result": dead,
    r"holds a constant of type float64\[3\]": lambda: constant(np.ones(3)),
    "holds a constant of type int64": lambda: constant(np.array([1, 2])),
    "holds a constant of type int64 *": bool_as_int,
    "nobody reads the constants": unread,
    "both an input and a constant": both,
    "outputs .'z'. are not defined": lambda: replace(program(), outputs={"z": dead().ops[-1].outputs[0]}),
    "has no output": lambda: replace(program(), outputs={}),
    "two inputs": lambda: replace(program(), inputs=program().inputs * 2),
    r"symbols .'S'.": lambda: hidden(SymDim.of("S")),
}


def test_the_program_is_legal():
    verify_program(program())


@pytest.mark.parametrize("match", PROGRAMS)
def test_corrupt_programs(match):
    with pytest.raises(IRError, match=match):
        verify_program(PROGRAMS[match]())


def test_a_symbol_that_only_a_product_shows_is_hidden():
    b = Builder()
    with pytest.raises(IRError, match="no dimension of an input"):
        verify_program(b.finish({"y": b.exp(b.input("x", (2 * B,)))}))


@pytest.mark.parametrize("index", [[0, -1], [3]])
def test_gather_outside_of_its_operand(index):
    g = PrimalBuilder("net", "x", (3,))
    graph = g.finish(g.op("gather", g.input, np.array(index), axis=0))
    with pytest.raises(IRError, match="indices outside 0"):
        verify_graph(graph)
