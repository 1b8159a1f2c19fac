"""Small networks in integers, which give the same numbers on every machine.

BITSTREAM: all of it. Weights are integers in units of 2^-12, activations in units of 2^-8. They are multiplied as
float64 matrices, which is exact in any order of additions while sums stay below 2^53; `check` sees to that.
"""

import numpy as np

from difflate.errors import ModelError

WEIGHT_BITS, ACTIVATION_BITS = 12, 8
ONE = 1 << ACTIVATION_BITS
"""1.0 as an activation."""
ACTIVATION_MAX = (1 << 20) - 1
_EXACT = 2.0**53


def to_weights(values: np.ndarray) -> np.ndarray:
    """int16, same shape: ``values`` in units of 2^-12. Raises ModelError for those beyond ± 8."""
    fixed = np.rint(np.asarray(values, np.float64) * (1 << WEIGHT_BITS))
    if not np.isfinite(fixed).all() or np.abs(fixed).max(initial=0) > 32767:
        raise ModelError("a weight of the entropy model is beyond 8 or not finite; train it with a lower lr")
    return fixed.astype(np.int16)


def to_biases(values: np.ndarray) -> np.ndarray:
    """int32, same shape: ``values`` in units of 2^-20, in which products of weights and activations are."""
    fixed = np.rint(np.asarray(values, np.float64) * (1 << (WEIGHT_BITS + ACTIVATION_BITS)))
    if not np.isfinite(fixed).all() or np.abs(fixed).max(initial=0) >= 2**31:
        raise ModelError("a bias of the entropy model is beyond 2048 or not finite; train it with a lower lr")
    return fixed.astype(np.int32)


def from_weights(fixed: np.ndarray) -> np.ndarray:
    """float64, same shape: the values that `to_weights` gives ``fixed`` for."""
    return np.asarray(fixed, np.float64) / (1 << WEIGHT_BITS)


def from_biases(fixed: np.ndarray) -> np.ndarray:
    """float64, same shape: the values that `to_biases` gives ``fixed`` for."""
    return np.asarray(fixed, np.float64) / (1 << (WEIGHT_BITS + ACTIVATION_BITS))


def check(weights: np.ndarray, biases: np.ndarray | None = None) -> None:
    """Raises ModelError if a sum of ``weights: (inputs, outputs)`` times activations could be inexact in float64."""
    largest = np.abs(weights.astype(np.float64)).sum(axis=0).max() * (ACTIVATION_MAX + 1)
    largest += 0 if biases is None else np.abs(biases.astype(np.float64)).max()
    if not largest < _EXACT / 8:  # eight such sums are added at most
        raise ModelError("a layer of the entropy model is too large for exact arithmetic; get the model folder again")


def shift(sums: np.ndarray) -> np.ndarray:
    """``sums`` in units of 2^-20 as activations in units of 2^-8, rounded half up; in place, float64."""
    sums += 1 << (WEIGHT_BITS - 1)
    sums *= 2.0**-WEIGHT_BITS
    return np.floor(sums, out=sums)


def relu(sums: np.ndarray) -> np.ndarray:
    """Activations, 0 to `ACTIVATION_MAX`, of ``sums`` in units of 2^-20; in place, float64."""
    return np.clip(shift(sums), 0, ACTIVATION_MAX, out=sums)


def conv3x3(x: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """(h - 2, w - 2, outputs) sums of ``x: (h, w, c)`` float64 and ``weights: (9·c, outputs)``.

    Weights are in the order of the window's rows, its columns, the channels.
    """
    height, width = x.shape[0] - 2, x.shape[1] - 2
    windows = [x[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    columns = np.concatenate(windows, axis=2).reshape(height * width, -1)
    sums = columns @ weights
    sums += biases
    return sums.reshape(height, width, -1)


def pixel_shuffle(x: np.ndarray) -> np.ndarray:
    """(2h, 2w, c) of ``x: (h, w, 4c)``, as torch's with channels first."""
    height, width, channels = x.shape
    x = x.reshape(height, width, channels // 4, 2, 2).transpose(0, 3, 1, 4, 2)
    return x.reshape(2 * height, 2 * width, channels // 4)
