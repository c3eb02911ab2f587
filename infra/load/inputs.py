"""Inference requests in Triton's binary form: a JSON head, then each tensor's bytes. Made once a model and reused, so
that the client's own CPU stays small.

The form: https://github.com/kserve/open-inference-protocol (Binary Tensor Data extension).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES: Mapping[str, str] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip
FREE_SIZE = 64
"""For a dimension of any size, the first (the batch, which is 1) apart."""
HEAD_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Payload:
    """One inference request, ready to be sent."""

    body: bytes
    headers: Mapping[str, str]


def payload(metadata: Mapping[str, Any]) -> Payload:
    """An inference request for a model, from its metadata (``GET /v2/models/NAME``).

    Raises:
        ValueError: the metadata has no inputs, or a data type that the protocol does not know.
    """
    if not metadata.get("inputs"):
        raise ValueError("its metadata names no inputs")
    heads, blobs = [], []
    for tensor in metadata["inputs"]:
        name, datatype, dims = str(tensor["name"]), str(tensor["datatype"]), [int(dim) for dim in tensor["shape"]]
        shape = [dim if dim >= 0 else (1 if i == 0 else FREE_SIZE) for i, dim in enumerate(dims)]
        blob = _bytes(name, datatype, shape)
        parameters = {"binary_data_size": len(blob)}
        heads.append({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
        blobs.append(blob)
    head = json.dumps({"inputs": heads, "parameters": {"binary_data_output": True}}).encode()
    headers = {HEAD_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return Payload(b"".join([head, *blobs]), headers)


def _bytes(name: str, datatype: str, shape: Sequence[int]) -> bytes:
    if datatype == "BYTES":
        text = b"the quick brown fox"
        return (struct.pack("<I", len(text)) + text) * int(np.prod(shape))
    if datatype not in DTYPES:
        raise ValueError(f"its input {name} has data type {datatype}; known are BYTES, {', '.join(DTYPES)}")
    return _values(name, np.dtype(DTYPES[datatype]).newbyteorder("<"), shape).tobytes()


def _values(name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """Plausible values, by what inputs of that name are in the models that people serve."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if dtype.kind == "f":
        # a recurrent model's state starts at zero; pictures and sound are scaled to [0, 1]
        return (np.zeros(shape) if "state" in name else random.uniform(0.0, 1.0, shape)).astype(dtype)
    if dtype.kind == "b" or "mask" in name:
        return np.ones(shape, dtype)
    if "type_ids" in name:
        return np.zeros(shape, dtype)
    if name in ("sr", "sample_rate"):
        return np.full(shape, 16_000, dtype)
    if "ids" in name and dtype.itemsize >= 4:
        # the smallest vocabulary in common use (BERT's) has 30,522 entries
        return random.integers(0, 30_000, shape).astype(dtype)
    return random.integers(0, min(256, np.iinfo(dtype).max), shape).astype(dtype)
