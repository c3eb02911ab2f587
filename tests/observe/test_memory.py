"""What is in use of a GPU, which process is which model's, and what each copy of a running server takes."""

from __future__ import annotations

import pytest

from tasks.observe.memory import gpu_used_bytes, model_of

METRICS = """
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1500000000.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 500000000.000000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 16000000000.000000
"""
STUB = "/opt/backends/python/triton_python_backend_stub"


@pytest.mark.parametrize(("page", "used"), [(METRICS, 2_000_000_000), ("nv_cpu_utilization 0.3\n", None), ("", None)])
def test_gpu_memory_is_read_from_the_metrics_page(page: str, used: int | None) -> None:
    assert gpu_used_bytes(page) == used


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ([STUB, "/state/repository/vad/1/model.py", "triton_python_backend_shm_region_1", "1048576"], "vad"),
        ([STUB, "/repo/with.dots-and_more/12/model.py", ""], "with.dots-and_more"),
        (["/opt/bin/tritonserver", "/state/repository/vad/1/model.py"], None),
        ([STUB], None),
        ([STUB, "model.py"], None),
        ([""], None),
    ],
)
def test_the_model_of_a_stub(command: list[str], model: str | None) -> None:
    assert model_of(command) == model
