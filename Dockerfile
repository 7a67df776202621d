# syntax=docker/dockerfile:1
# The collector with its hot path compiled. The first stage has the compiler; the second has neither it nor pip.

FROM python:3.11-slim-bookworm AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/infrasage
ENV PATH=/opt/infrasage/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
# What rarely changes first: these versions, checked by their hashes.
COPY requirements.lock .
RUN pip install --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY adapters adapters
COPY collector collector
COPY proto proto
COPY deploy/package deploy/package
# Without a compiled hot path the image would work, and be several times slower: better that it is not built.
RUN pip install --no-deps --no-build-isolation . \
    && infrasage-collector version | tee /dev/stderr | grep -q '(compiled)' \
    && pip uninstall --yes mypy setuptools types-protobuf pip

FROM python:3.11-slim-bookworm

RUN groupadd --gid 10001 infrasage \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin infrasage \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/infrasage /run/infrasage /run/gateway-secrets \
    && install --directory --owner 10001 --group 10001 --mode 0755 /run/clickhouse-users /run/grafana-secrets
COPY --from=build /opt/infrasage /opt/infrasage
ENV PATH=/opt/infrasage/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INFRASAGE_HOST=0.0.0.0 \
    INFRASAGE_DATA_DIR=/var/lib/infrasage
USER 10001:10001
WORKDIR /var/lib/infrasage
VOLUME /var/lib/infrasage
# HTTP API, OTLP over HTTP, OTLP over gRPC; the writer's health and metrics.
EXPOSE 8080 4318 4317 8081
ENTRYPOINT ["infrasage-collector"]
CMD ["serve"]
