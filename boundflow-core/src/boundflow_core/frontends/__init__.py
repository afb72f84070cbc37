"""Frontends: what turns a network of some other library into a :class:`~boundflow_core.ir.primal.PrimalGraph`.

Every frontend goes the same way. It walks the source network with a
:class:`~boundflow_core.ir.primal_builder.PrimalBuilder`, translating each operator by a table of converters; what the
normalized set has no operator for is written in several by :mod:`boundflow_core.frontends.compose`, which all frontends
share, so that one network gives one graph whichever way it came. Shapes are the network's own at this stage, a leading
batch axis of 1 included; at the end ``boundflow_core.normalize.normalize`` removes that axis and cleans up.
"""
