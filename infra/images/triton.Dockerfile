# syntax=docker/dockerfile:1
# Triton as this project runs it: not as root, nothing loaded until it is told to, its server's state never in its image.
#   docker build -f infra/images/triton.Dockerfile -t triton-placement/triton:0.1.0 .
#
# 26.06 or later: model control can load code, and NVIDIA closed CVE-2026-24207 and CVE-2026-47606 there (CVE-2023-31036 and
# CVE-2025-23316 before). The control endpoints ask for a secret and the gRPC port is closed to others besides.
ARG TRITON=26.06-py3
FROM nvcr.io/nvidia/tritonserver:${TRITON}
ENV HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
# The image's own user triton-server
USER 1000:1000
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
ENTRYPOINT ["tritonserver", "--model-control-mode=explicit", "--strict-readiness=false", "--metrics-interval-ms=1000"]
CMD ["--model-repository=/repository", "--exit-timeout-secs=30"]
