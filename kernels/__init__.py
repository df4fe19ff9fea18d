"""Triton kernels and their launchers, one file for each operation; imports torch and triton only.

Imported as `fastpose.kernels`.
"""
