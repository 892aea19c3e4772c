"""Sources of the kernels; nothing else in this package imports numba.

Each function builds a function of integers. `fastconv.native.objects.compiled` compiles them by name, or loads earlier compiled
code from disk.
"""
