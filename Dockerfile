FROM python:3.12-slim AS build
COPY requirements-redis.lock requirements-build.lock /src/
RUN python -m venv /app \
 && /app/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /src/requirements-redis.lock \
 && python -m pip install --no-cache-dir --require-hashes --only-binary :all: -r /src/requirements-build.lock
COPY pyproject.toml README.md LICENSE /src/
COPY app /src/app
COPY providers /src/providers
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels /src \
 && /app/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
 && /app/bin/pip uninstall --yes pip \
 && /app/bin/python -m compileall -q /app/lib

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /data imagegate && install -d -o imagegate /data
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 \
    IMAGEGATE_HOST=0.0.0.0 IMAGEGATE_PORT=8000 IMAGEGATE_DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=10s --start-period=10s \
  CMD ["python", "-I", "-S", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['IMAGEGATE_PORT'] + '/healthz', timeout=2)"]
CMD ["imagegate", "serve"]
