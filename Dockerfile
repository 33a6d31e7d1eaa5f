# athwe for training and for `athwe serve`.
#
#   docker build -t athwe .
#   docker run --rm -v "$PWD:/work" athwe train --dataset demo
#   docker run --rm -v "$PWD:/work" -p 127.0.0.1:8000:8000 athwe serve --run last --host 0.0.0.0 --api-key-file keys.txt
#
# With CUDA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130, and docker run --gpus all.
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY athwe_core athwe_core
COPY athwe_cli athwe_cli
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" torch==2.13.0 \
    && pip install --no-cache-dir -c constraints.txt ".[serve]" \
    && useradd --create-home --uid 1000 athwe

USER 1000
WORKDIR /work
EXPOSE 8000
ENTRYPOINT ["athwe"]
CMD ["--help"]
