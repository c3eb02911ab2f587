"""Model names as labels and Service names, and back."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config import NAME
from tasks.fleets.kubernetes.names import labelled_model, model_label, service_name

LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LONG = "a" * 63

names = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=100).filter(
    lambda name: re.fullmatch(NAME, name) is not None
)


@pytest.mark.parametrize(
    ("model", "label", "service"),
    [
        ("resnet50", "model.triton-placement/resnet50=ready", "model-resnet50"),
        ("ocr_cls", "model.triton-placement/ocr_cls=ready", "model--ocr-cls-2c0a4a8a1a5d"),
        ("Ocr.Cls", "model.triton-placement/Ocr.Cls=ready", "model--ocr-cls-c9e2e6c3d4f5"),
        (LONG, f"model.triton-placement/{LONG}=ready", None),
    ],
)
def test_a_name_is_readable_where_it_can_be(model: str, label: str, service: str | None) -> None:
    assert "=".join(model_label(model)) == label
    if service is not None:
        assert service_name(model)[:-12] == service[:-12] or service_name(model) == service


def test_a_long_name_is_split_between_key_and_value() -> None:
    """100 characters: 44 and a hash in the key, 56 in the value, where 63 are allowed."""
    model = "x" * 44 + "_" * 2 + "y" * 54
    key, value = model_label(model)
    assert key.startswith("long-model.triton-placement/" + "x" * 44 + "_")
    assert value == "ready." + "__" + "y" * 54
    assert labelled_model(key, value) == model


@given(names)
def test_every_name_is_a_valid_label_and_service_and_comes_back(model: str) -> None:
    key, value = model_label(model)
    prefix, _, name = key.partition("/")
    assert re.fullmatch(r"[a-z.-]+", prefix)
    assert LABEL.fullmatch(name)
    assert LABEL.fullmatch(value)
    assert labelled_model(key, value) == model
    assert DNS_LABEL.fullmatch(service_name(model))


@given(names, names)
def test_two_names_never_share_a_label_or_a_service(one: str, other: str) -> None:
    if one != other:
        assert model_label(one) != model_label(other)
        assert model_label(one)[0] != model_label(other)[0]
        assert service_name(one) != service_name(other)


@pytest.mark.parametrize(
    ("key", "value"),
    [("app", "ready"), ("model.triton-placement/echo", "edited"), ("long-model.triton-placement/echo", "ready.x")],
)
def test_other_labels_name_no_model(key: str, value: str) -> None:
    assert labelled_model(key, value) is None
