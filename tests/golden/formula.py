"""Numbers that Python and C++ compute alike, so that fixtures need not store weights.

uniform(name, shape): element i (row-major) is u = (splitmix64(fnv1a64(name) + (i + 1) * GOLDEN) >> 40) * 2^-24, scaled to
[low, high) in f64. The same code in C++ is tests/harness/golden.h; tests/test_golden_networks.cpp compares first
values of both.
"""

import numpy as np

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def uniform(name, shape, low=-1.0, high=1.0):
    count = int(np.prod(shape, dtype=np.int64))
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64) * 2.0**-24
    return (low + (high - low) * u).reshape(shape)


def parameter(name, shape):
    """Weights of a plausible size: kaiming-uniform convolutions, batch norm near 1 and 0. Rounded to f32."""
    if len(shape) == 4:
        bound = (6.0 / (shape[1] * shape[2] * shape[3])) ** 0.5
        values = uniform(name, shape, -bound, bound)
    elif len(shape) == 2:
        bound = (3.0 / shape[1]) ** 0.5
        values = uniform(name, shape, -bound, bound)
    elif name.endswith("weight"):
        values = uniform(name, shape, 0.75, 1.25)
    else:
        values = uniform(name, shape, -0.1, 0.1)
    return values.astype(np.float32)


def projection(name, values):
    """One number that depends on every element: the dot product with a fixed random direction."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return float(flat @ uniform("projection:" + name, flat.shape))
