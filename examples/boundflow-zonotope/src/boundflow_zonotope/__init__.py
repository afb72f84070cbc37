"""Zonotope bounds for BoundFlow: the domain ``zonotope``, the methods ``zonotope`` and ``zonotope-crown``."""
