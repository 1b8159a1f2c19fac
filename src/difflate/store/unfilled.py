"""Models built for weights that are about to be read: no random numbers, and no more memory than the weights take."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from difflate.errors import LimitExceeded

_RANDOM = frozenset({torch.rand, torch.randn})
_ALLOCATES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.eye, *_RANDOM})
_DRAWS = frozenset({Tensor.uniform_, Tensor.normal_})
_FILLS = frozenset({Tensor.zero_, Tensor.fill_})


class Unfilled(TorchFunctionMode):
    """While it is entered, parameters hold whatever is in their memory, and new tensors so many numbers at most.

    The state of the global generator of random numbers stays as it is.

    A configuration from anywhere cannot order gigabytes, or a billion layers, before its model is compared with its
    weights. On the "meta" device building would cost no memory at all, but some operations there import torch's
    compiler, which takes five times as long as reading a model.
    """

    def __init__(self, numbers: int):
        """``numbers``: that new tensors may hold in all. Above it, building raises LimitExceeded."""
        super().__init__()
        self._left = numbers

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        if func in _DRAWS and kwargs.get("generator") is None:
            return args[0]
        if args and isinstance(args[0], Parameter):
            if func in _FILLS:
                return args[0]
            if func is Tensor.to and kwargs.get("memory_format") is not None:  # as `Module.to` calls it
                return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
        if func in _RANDOM and "generator" not in kwargs:
            func = torch.zeros
        if func in _ALLOCATES:
            self._left -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if self._left < 0:
                raise LimitExceeded("it asks for more than they hold")
        return func(*args, **kwargs)
