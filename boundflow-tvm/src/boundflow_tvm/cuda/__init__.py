"""Kernels for CUDA: elementwise chains with a reduction, and the step of linear bounds through an activation.

Large products and convolutions are left to cuBLAS and cuDNN, which torch calls.
"""
