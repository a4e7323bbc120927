"""Compiled row statistics for CPUs; numba and numpy are loaded when a room here is first used."""
