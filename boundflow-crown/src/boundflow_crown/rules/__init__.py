"""Backward rules: how rows on an operator's result become rows on its operands."""
