#!/usr/bin/env bash
# Runs the suite at either end of the versions that pyproject.toml allows, each in a virtual environment outside of the
# repository that is kept for the next time (PyPI's wheels of torch for Linux bring CUDA: 3 to 6 GB each).
#
#   tests/versions.sh lowest|newest [arguments of pytest]      PYTHON=python3.10 chooses the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."
end=${1:?lowest or newest}; shift
case $end in
  lowest) versions=(torch==2.6.0 torchvision==0.21.0 lightning==2.4.0 torchmetrics==1.4.0 "numpy==1.26.*") ;;
  newest) versions=(--upgrade torch torchvision lightning torchmetrics numpy) ;;
  *) echo "lowest or newest, not $end" >&2; exit 2 ;;
esac
environment=${VENVS:-$HOME/.cache/lightning_tricks}/$end
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
"$environment/bin/python" -m pip install --quiet "${versions[@]}" matplotlib rich tensorboard "jsonargparse[signatures]" \
  scikit-learn pytest pytest-xdist
PYTHONPATH=$PWD OMP_NUM_THREADS=1 "$environment/bin/python" -m pytest "$@"
