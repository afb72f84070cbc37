"""Backward linear bounds for BoundFlow: the domain ``linear`` and the methods of the CROWN family."""
