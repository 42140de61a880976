"""Mends what jax2onnx writes: weights stay outside loops, and nothing is left over."""

from collections.abc import Iterator
from typing import Any

# ONNX's own messages: ModelProto, GraphProto, NodeProto. The package is there only in an extra.
Graph = Any
Node = Any

# A body has the iteration's number and a condition before its states, and gives a condition first;
# the loop itself has the number of iterations and a condition before them.
_NUM_BEFORE_INPUTS = 2
_NUM_BEFORE_OUTPUTS = 1


def tidy(model: Any) -> None:
    """Takes constants out of the states of loops, then drops initializers that nobody uses.

    Scan's constants become states that a body hands on unchanged, and a runtime may copy them at
    every layer: all weights of the encoder.
    """
    for graph in _graphs(model.graph):
        for node in graph.node:
            if node.op_type == 'Loop':
                _take_constants_out(node, graph)
    for graph in _graphs(model.graph):
        used = {name for inner in _graphs(graph) for node in inner.node for name in node.input}
        used |= {output.name for output in graph.output}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)


def _graphs(graph: Graph) -> Iterator[Graph]:
    """A graph and all within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField('g'):
                yield from _graphs(attribute.g)


def _take_constants_out(loop: Node, graph: Graph) -> None:
    """Lets the body of a loop read from outside what it would hand on unchanged."""
    body = next(attribute.g for attribute in loop.attribute if attribute.name == 'body')
    read = {name for inner in _graphs(graph) for node in inner.node for name in node.input}
    read |= {output.name for output in graph.output}
    for state in reversed(range(len(loop.input) - _NUM_BEFORE_INPUTS)):
        inside = body.input[_NUM_BEFORE_INPUTS + state].name
        handed_on = body.output[_NUM_BEFORE_OUTPUTS + state].name
        makers = [node for node in body.node if handed_on in node.output]
        is_constant = handed_on == inside or (
            len(makers) == 1
            and makers[0].op_type == 'Identity'
            and list(makers[0].input) == [inside]
        )
        # What comes out of the loop is what went in; nobody asks for it where it is a weight.
        if not is_constant or loop.output[state] in read:
            continue
        for maker in makers:
            body.node.remove(maker)
        for inner in _graphs(body):
            for node in inner.node:
                for place, name in enumerate(node.input):
                    if name == inside:
                        node.input[place] = loop.input[_NUM_BEFORE_INPUTS + state]
        del body.input[_NUM_BEFORE_INPUTS + state]
        del body.output[_NUM_BEFORE_OUTPUTS + state]
        del loop.input[_NUM_BEFORE_INPUTS + state]
        del loop.output[state]
