"""Raises when it is imported, as a plugin does whose own requirements are broken."""

raise RuntimeError("no licence found")
