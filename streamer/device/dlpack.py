"""Memory shared with other libraries through DLPack, read and made with ctypes: an address, no copy, no new dependency.

Source: dlpack.h 0.8 (DLManagedTensor, the unversioned form, which every producer still offers).
"""

import ctypes
from dataclasses import dataclass
from typing import Any

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType

_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_Destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, _Destructor)
_raw_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)

_lent: dict[int, tuple[Any, ...]] = {}  # what exported tensors keep alive, by the address of their struct


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Samples of somebody else; valid while this lives."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # bytes
    device_type: int
    device_id: int
    owner: Any  # keeps the memory alive


def shared(source: Any) -> Shared:
    """What `source.__dlpack__()` offers, which must be uint8. Raises ValueError."""
    capsule = source.__dlpack__()
    address = _api.PyCapsule_GetPointer(capsule, _NAME)
    tensor = ctypes.cast(address, ctypes.POINTER(_Managed)).contents.tensor
    if (tensor.code, tensor.bits, tensor.lanes) != (1, 8, 1):
        raise ValueError(f"samples of DLPack type {tensor.code}/{tensor.bits} instead of uint8")
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if tensor.strides:
        strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim))
    else:
        strides = tuple(_product(shape[axis + 1 :]) for axis in range(len(shape)))
    owner = (source, capsule)  # the capsule was not consumed: it frees the tensor when it goes
    return Shared(
        (tensor.data or 0) + tensor.byte_offset, shape, strides, tensor.device_type, tensor.device_id, owner
    )


def capsule(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...], device: tuple[int, int], owner: Any
) -> Any:
    """A DLPack capsule over uint8 memory at `address`; `owner` lives until its consumer lets go.

    `strides` in bytes, `device` is (type, id).
    """
    shape_array = (ctypes.c_int64 * len(shape))(*shape)
    stride_array = (ctypes.c_int64 * len(shape))(*strides)
    managed = _Managed()
    managed.tensor = _Tensor(address, *device, len(shape), 1, 8, 1, shape_array, stride_array, 0)
    managed.deleter = _forget
    place = ctypes.addressof(managed)
    _lent[place] = (managed, shape_array, stride_array, owner)
    return _api.PyCapsule_New(place, _NAME, _unused)


def _let_go(managed: Any) -> None:
    _lent.pop(ctypes.addressof(managed.contents), None)


def _dropped(raw: int) -> None:  # a capsule: if nobody consumed it, its tensor goes with it
    if _raw_is_valid(raw, _NAME):
        _lent.pop(_raw_pointer(raw, _NAME), None)


_forget, _unused = _Deleter(_let_go), _Destructor(_dropped)
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _product(sides: tuple[int, ...]) -> int:
    total = 1
    for side in sides:
        total *= side
    return total
