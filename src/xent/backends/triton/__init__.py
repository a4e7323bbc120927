"""Kernels for GPUs: `launch` is the backend, `states` the idea of its sums."""
