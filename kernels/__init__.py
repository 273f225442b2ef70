"""The Triton kernels and their launchers, one file for each operator."""
