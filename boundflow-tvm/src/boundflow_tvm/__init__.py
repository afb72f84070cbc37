"""Compiled kernels for BoundFlow: executor `tvm`, with its templates, code generator and cache of compiled code."""
