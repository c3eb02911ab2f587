# syntax=docker/dockerfile:1
# The flows: worker, listener and the job that registers them.
#   docker build -f infra/images/flows.Dockerfile -t triton-placement/flows:0.1.0 .

FROM python:3.11-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/flows.txt /tmp/flows.txt
RUN python -m venv /venv \
 && /venv/bin/pip install --require-hashes --only-binary :all: -r /tmp/flows.txt
WORKDIR /app
COPY prefect.yaml ./
COPY flows flows
COPY tasks tasks
# The container's files are read-only, so what Python would cache at its first import is compiled here.
RUN /venv/bin/python -m compileall -q flows tasks

FROM python:3.11-slim-bookworm
# Where a Prefect server of this image keeps its data (infra/compose.yaml)
RUN install -d -o 1000 -g 1000 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PREFECT_HOME=/tmp/prefect \
    PREFECT_LOGGING_EXTRA_LOGGERS=tasks \
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW=ignore \
    DO_NOT_TRACK=1
WORKDIR /app
USER 1000:1000
CMD ["prefect", "worker", "start", "--type", "process", "--pool", "triton-placement", "--install-policy", "never"]
