# One image for every process; which one it is, the command says: trainer, scorer, replay ...
FROM python:3.11-slim

# The CPU build is a tenth of the size; a GPU image is built with the index of a CUDA version (docker-compose.yml).
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# torch first and alone: it changes least and weighs most
WORKDIR /app
COPY constraints.txt ./
RUN pip install -c constraints.txt --extra-index-url https://pypi.org/simple --index-url "$TORCH_INDEX" torch

COPY pyproject.toml README.md LICENSE ./
COPY consumers consumers
COPY model_store model_store
COPY service service
RUN pip install -c constraints.txt .
# compiled here, for this kind of processor, so that no process waits for a compiler
RUN python -m service.warm

# nothing in here needs to write, nor to be root
RUN useradd --system --no-create-home --uid 10001 tidemill
USER tidemill
WORKDIR /

# /health answers 503 while something does not work, which urlopen raises as an error
ENV TIDEMILL_METRICS_HOST=0.0.0.0 TIDEMILL_METRICS_PORT=9401
EXPOSE 9401 9402
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['TIDEMILL_METRICS_PORT'] + '/health', timeout=4)"]

ENTRYPOINT ["tidemill"]
CMD ["--help"]
