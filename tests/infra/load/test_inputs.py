"""Inference requests from a model's metadata: the binary form, plausible values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from infra.load.inputs import HEAD_LENGTH, payload


def tensors(*inputs: tuple[str, str, list[int]]) -> dict[str, tuple[list[int], Any]]:
    """Shape and values by input, read back as a server reads them."""
    made = payload({"inputs": [{"name": n, "datatype": t, "shape": s} for n, t, s in inputs]})
    head_length = int(made.headers[HEAD_LENGTH])
    offset, read = head_length, {}
    for tensor in json.loads(made.body[:head_length])["inputs"]:
        blob = made.body[offset : offset + tensor["parameters"]["binary_data_size"]]
        offset += len(blob)
        kinds = {"FP32": "<f4", "INT64": "<i8", "INT32": "<i4", "UINT8": "u1", "BOOL": "?"}
        values = np.frombuffer(blob, kinds[tensor["datatype"]]).reshape(tensor["shape"])
        read[tensor["name"]] = (tensor["shape"], values)
    assert offset == len(made.body)
    return read


def test_a_picture_is_uniform_between_zero_and_one() -> None:
    shape, values = tensors(("data_0", "FP32", [1, 3, 224, 224]))["data_0"]
    assert shape == [1, 3, 224, 224]
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() <= 1


def test_tokens_their_mask_and_their_types() -> None:
    names = ("input_ids", "attention_mask", "token_type_ids")
    read = tensors(*((name, "INT64", [1, 64]) for name in names))
    ids, mask, types = (read[name][1] for name in names)
    assert 0 <= ids.min() < ids.max() < 30_000
    assert (mask == 1).all()
    assert (types == 0).all()


def test_sound_has_a_rate_and_a_state_that_starts_at_zero() -> None:
    read = tensors(("input", "FP32", [1, 576]), ("state", "FP32", [2, 1, 128]), ("sr", "INT64", [1]))
    assert read["sr"][1].tolist() == [16_000]
    assert (read["state"][1] == 0).all()


def test_bytes_and_free_sizes() -> None:
    read = tensors(("bytes", "INT32", [-1, 2048]), ("pixels", "UINT8", [-1, -1, 3]), ("flag", "BOOL", [1]))
    assert read["bytes"][0] == [1, 2048]
    assert read["bytes"][1].max() < 256
    assert read["pixels"][0] == [1, 64, 3]


def test_text_has_its_length_before_it() -> None:
    made = payload({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [2]}]})
    blob = made.body[int(made.headers[HEAD_LENGTH]) :]
    # two texts of 19 bytes, each after 4 bytes that say so
    assert len(blob) == 2 * (4 + 19)
    assert blob[:4] == b"\x13\0\0\0"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, "names no inputs"),
        ({"inputs": [{"name": "x", "datatype": "BF16", "shape": [1]}]}, "input x has data type BF16; known are BYTES"),
    ],
)
def test_what_is_not_known_is_named(metadata: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        payload(metadata)
