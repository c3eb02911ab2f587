"""The labels and names by which the fleet is found, and a model's name as a label and as a Service, without collision.

A model's name may have 100 characters, upper case and underscores. A label key may have 63 of nearly the same
characters; a Service's name is lower case and has no underscores.
"""

from __future__ import annotations

import hashlib
import re

POOL_LABEL = "triton-placement/pool"
"""On a pool's Deployment and on its pods: the pool's name."""
MANAGED_LABEL = "app.kubernetes.io/managed-by"
MODEL_ANNOTATION = "triton-placement/model"
"""On what is made for a model: its name."""
GATE = "triton-placement/carrying"
"""The pods' readiness gate: True while requests are sent to a copy of theirs."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""On each pod: how many models are routed to it, so that whoever lowers the count takes the emptiest."""
LEAVING_COST = -1000
"""Of an emptied pod that is to go: below every other."""

_SHORT, _LONG = "model.triton-placement/", "long-model.triton-placement/"
_READY = "ready"
_KEY_CHARS, _HEAD_CHARS, _HASH_CHARS = 63, 44, 18
"""44 characters of the name, ``_`` and 18 of its hash make a key of 63; the rest, at most 56, is in the value."""
_PLAIN_SERVICE = re.compile(r"[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?")


def model_label(model: str) -> tuple[str, str]:
    """The label (key, value) of a pod to which the model's requests are sent.

    A name of up to 63 characters is the key: ``model.triton-placement/resnet50: ready``. A longer one is split: its
    head and a hash of all of it are the key, under a prefix of its own, the rest is in the value.
    """
    if len(model) <= _KEY_CHARS:
        return _SHORT + model, _READY
    return f"{_LONG}{model[:_HEAD_CHARS]}_{_digest(model, _HASH_CHARS)}", f"{_READY}.{model[_HEAD_CHARS:]}"


def labelled_model(key: str, value: str) -> str | None:
    """The model that a pod's label names; None: no label of ours, or not one that ``model_label`` would write."""
    if key.startswith(_SHORT):
        model = key.removeprefix(_SHORT)
    elif key.startswith(_LONG):
        model = key.removeprefix(_LONG)[:_HEAD_CHARS] + value.removeprefix(f"{_READY}.")
    else:
        return None
    return model if model_label(model) == (key, value) else None


def service_name(model: str) -> str:
    """The model's Service: ``model-resnet50``; a name that a Service cannot have is spelt out as far as it goes and
    told apart by a hash, after two hyphens, which no plain name has there: ``model--ocr-cls-1f0c...``."""
    if _PLAIN_SERVICE.fullmatch(model):
        return f"model-{model}"
    spelt = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40].strip("-")
    return f"model--{spelt}-{_digest(model, 12)}"


def _digest(text: str, chars: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:chars]
