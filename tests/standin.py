"""A GPU that is not there: tensors that say they are on ``cuda:0`` and live on the CPU, and a list of every wait for it.

On a GPU the host runs ahead of the device, until it asks for a number that the device has yet to compute. Which operations
ask is known of each of them (:data:`WAITS`), and so is which copies block; so it shows without a GPU. The numbers are real:
whatever depends on them goes its real way, and what comes out can be compared with the CPU.

Gradients are not taken here, for autograd's engine asks the driver for the device; the meta device serves for them, where
any look at a number is an error.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda:0")
_ROOT = Path(__file__).resolve().parent.parent
_aten = torch.ops.aten

# Operations whose CUDA kernels hand a number to the host, or whose result has a size that only the device knows.
WAITS = {
    _aten._local_scalar_dense: "item",
    _aten.is_nonzero: "item",
    _aten.equal: "equal",
    _aten.nonzero: "nonzero",
    _aten.masked_select: "masked_select",
    _aten.bincount: "bincount",
    _aten._unique2: "unique",
    _aten.unique_consecutive: "unique",
    _aten.unique_dim: "unique",
    _aten.repeat_interleave: "repeat_interleave",
    _aten._linalg_check_errors: "linalg",
}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
# These take a lone number, or indexes, from the CPU along with tensors of the device.
_MIXED = _INDEXING | {_aten._to_copy, _aten.copy_}


@dataclass(frozen=True)
class Wait:
    """What the host waited for, and the innermost line of the library that made it."""

    what: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.what} in {self.file}:{self.line} ({self.function})"


class Pretended(Tensor):
    """A tensor that says it is on ``cuda:0``; its numbers are those of the tensor ``held``, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Pretended":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CUDA,
            requires_grad=held.requires_grad,
        )
        made.held = held.detach()
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Pretended({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the GPU that is not there was used outside of it")


@dataclass
class Device(TorchDispatchMode):
    """The mode in which such tensors can be used, and the waits that were seen in it."""

    waits: list[Wait] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)  # data pointers

    def __post_init__(self) -> None:
        super().__init__()
        # Where torch looks for a mode of fake tensors, before it would start CUDA.
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # type: ignore[attr-defined]
        self._kept: list[Tensor] = []  # so that no other tensor takes a pinned one's place in memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        there = [value for value in given if isinstance(value, Pretended)]
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        on_device = bool(there) if target is None else target.type == "cuda"
        self._look(packet, args, kwargs, there, target)
        here = [value for value in given if not isinstance(value, Pretended) and value.ndim]
        if there and here and packet not in _MIXED:
            raise RuntimeError(f"{func}: tensors of the CPU and of the GPU in one operation")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        if packet is _aten._to_copy:
            kwargs.pop("non_blocking", None)
        held_args, held_kwargs = tree_map(lambda x: x.held if isinstance(x, Pretended) else x, (args, kwargs))
        out = func(*held_args, **held_kwargs)
        if not on_device:
            return out
        if packet in (_aten.copy_, _aten.lift_fresh) and not isinstance(args[0], Pretended):
            return out  # a copy to the CPU
        if packet is _aten._local_scalar_dense:
            return out
        if packet is _aten._to_copy and any(out is value.held for value in there):
            out = out.clone()
        out = tree_map(lambda x: Pretended(x) if type(x) is Tensor else x, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if there else out

    def _look(self, packet: Any, args: Any, kwargs: Any, there: list[Pretended], target: Any) -> None:
        if packet in (_aten._to_copy, _aten.copy_):
            if packet is _aten._to_copy:
                source, goes_there = args[0], bool(there) if target is None else target.type == "cuda"
                eager = kwargs.get("non_blocking", False)
            else:
                source, goes_there = args[1], isinstance(args[0], Pretended)
                eager = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            if isinstance(source, Pretended) and not goes_there:
                self._note("copy to the host")
            elif not isinstance(source, Pretended) and goes_there and not (packet is _aten.copy_ and source.ndim == 0):
                if not eager:
                    self._note("blocking copy to the device")
                elif source.data_ptr() not in self.pinned:
                    self._note("copy of pageable memory to the device")
        elif not there:
            return
        elif packet in WAITS:
            if packet is not _aten.repeat_interleave or kwargs.get("output_size") is None:
                self._note(WAITS[packet])
        elif packet in _INDEXING:
            indexes = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indexes):
                self._note("indexing by a mask")
            if any(not isinstance(index, Pretended) for index in indexes):
                self._note("blocking copy to the device")

    def _note(self, what: str) -> None:
        for frame in reversed(traceback.extract_stack(sys._getframe(1))):
            path = Path(frame.filename)
            if _ROOT / "lsc" in path.parents:
                self.waits.append(Wait(what, str(path.relative_to(_ROOT)), frame.lineno or 0, frame.name))
                return
        self.waits.append(Wait(what, "torch", 0, ""))

    def module(self, module: nn.Module) -> nn.Module:
        """Bring a module's parameters and buffers there, in place."""
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None and not isinstance(value, Pretended):
                    part._parameters[name] = nn.Parameter(Pretended(value.detach()), value.requires_grad)
            for name, value in part._buffers.items():
                if value is not None and not isinstance(value, Pretended):
                    part._buffers[name] = Pretended(value)
        return module

    def pin(self, tensor: Tensor) -> Tensor:
        """What ``Tensor.pin_memory`` does here: the tensor is marked."""
        self.pinned.add(tensor.data_ptr())
        self._kept.append(tensor)
        return tensor

    def waits_of(self, work: Callable[[], object]) -> list[Wait]:
        """The waits of a call, in order."""
        before = len(self.waits)
        work()
        return self.waits[before:]


@contextmanager
def pretended_gpu() -> Iterator[Device]:
    """A device within which tensors may be made on ``cuda:0``, pinned and moved; streams do nothing."""
    device = Device()
    lifts = torch._C._only_lift_cpu_tensors()  # type: ignore[attr-defined]
    stream = mock.MagicMock()
    torch._C._ensureCUDADeviceGuardSet()  # type: ignore[attr-defined]  # where there is no driver, guards of the device do nothing
    replaced: list[tuple[Any, str, Any]] = [
        (Tensor, "pin_memory", lambda tensor: device.pin(tensor)),
        (Pretended, "record_stream", lambda *_: None),
        (torch.cuda, "is_bf16_supported", lambda *_: True),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "Stream", lambda *_, **__: stream),
        (torch.cuda, "Event", lambda *_, **__: stream),
        (torch.cuda, "current_stream", lambda *_: stream),
        (torch.cuda, "stream", lambda *_: mock.MagicMock()),
    ]
    patches = [mock.patch.object(thing, name, new, create=True) for thing, name, new in replaced]
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
    try:
        for patch in patches:
            patch.start()
        # The CPU has no kernels of cuDNN, nor of fused attention with the GPU's layout.
        with torch.backends.cudnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), device, torch.no_grad():
            yield device
    finally:
        forget_copies()
        torch._C._set_only_lift_cpu_tensors(lifts)  # type: ignore[attr-defined]
        for patch in reversed(patches):
            patch.stop()


def forget_copies() -> None:
    """Empty the caches of what the library copies to a device once: what lies on this one is of no use elsewhere."""
    rooms = ("lsc.systems.", "lsc.centers.", "lsc.objectives.", "lsc.data.")
    for module in [value for name, value in sys.modules.items() if name.startswith(rooms)]:
        for function in vars(module).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()
