# The service as an image. To try it on this machine alone:
#
#   docker build --tag channel-choice .
#   docker run --publish 127.0.0.1:50051:50051 --env CHANNEL_CHOICE_ALLOW_PLAINTEXT=true --volume channel-choice:/data channel-choice
#
# BASE_IMAGE is any Debian or Ubuntu with Python 3.11 and its venv module; pin it by digest where builds are to repeat.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
COPY requirements/uv.lock requirements/serve.lock /build/
RUN python3 -m venv /build/uv \
    && /build/uv/bin/pip install --no-cache-dir --require-hashes --requirement /build/uv.lock \
    && python3 -m venv --without-pip /opt/venv \
    && /build/uv/bin/uv pip install --no-cache --python /opt/venv/bin/python --require-hashes --requirement /build/serve.lock
# The fast kernels are compiled here; without them LightGBM and numpy do the same, slower.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY models /app/models
COPY service /app/service
COPY training /app/training
RUN for kernel in /app/models/*.c; do \
        cc -O3 -ffp-contract=off -shared -fPIC -o "/app/models/lib$(basename "$kernel" .c).so" "$kernel" || exit 1; \
    done && /opt/venv/bin/python -m compileall -q /app

FROM ${BASE_IMAGE}
# LightGBM needs OpenMP. Its version is the base image's to say: Debian keeps no old ones that could be asked for again.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
# The code belongs to root, so that the service cannot change it.
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
# Loopback cannot be reached from outside a container, so the address is every interface. Whether that is safe only its operator
# knows, so the image does not say it for them: the service starts with TLS (CHANNEL_CHOICE_TLS_CERTIFICATE_FILE, _TLS_KEY_FILE,
# and _TOKENS_FILE or _TLS_CLIENT_CA_FILE), or with CHANNEL_CHOICE_ALLOW_PLAINTEXT=true where the network around it is trusted, such
# as a port published on loopback or a mesh that encrypts. Give settings as variables, not as options: the health check reads them.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CHANNEL_CHOICE_ADDRESS=0.0.0.0:50051 \
    CHANNEL_CHOICE_DATABASE_URL=sqlite:////data/channel_choice.db \
    CHANNEL_CHOICE_BUNDLE_CACHE=/data/bundles \
    CHANNEL_CHOICE_LOG_FORMAT=json
# The database, and beside it the key of identities: without that key all customers are forgotten, so keep both.
VOLUME ["/data"]
EXPOSE 50051
USER 10001:10001
# SIGTERM drains: no new calls, those in flight end, what was accepted is on disk.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["python", "-m", "service.healthcheck"]
ENTRYPOINT ["python", "-m", "service"]
