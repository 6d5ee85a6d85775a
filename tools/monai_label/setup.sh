#!/bin/sh
# Make an environment for MONAI Label and this package: setup.sh FOLDER [PYTHON], PYTHON being 3.11.
# docs/monai_label.md says why each step is needed.
set -eu

folder=$1
python=${2:-python3.11}
here=$(cd "$(dirname "$0")" && pwd)
pip="$folder/bin/python -m pip --disable-pip-version-check install"

"$python" -c 'import sys; sys.exit(None if sys.version_info[:2] == (3, 11) else
    f"{sys.executable}: MONAI Label 0.8.5 was tried on Python 3.11 only. Give it: setup.sh FOLDER python3.11")'
"$python" -m venv "$folder"
# A CPU build is enough; with an index of your own give it in PIP_INDEX_URL or PIP_EXTRA_INDEX_URL.
$pip torch==2.13.0
$pip "setuptools<81" wheel
# Built against the torch that is there: in a build environment of its own it would download another one, for CUDA.
SAM2_BUILD_CUDA=0 $pip --no-build-isolation --no-deps sam2==1.1.0
$pip -r "$here/requirements.txt"
# The torchvision of torch 2.13.0 on PyPI is built for CUDA and cannot be imported beside a CPU build of torch.
$pip --no-deps torchvision==0.16.2
# pydicom-seg asks for less than 4, but works; this package needs 4. The last version of the kind that both know.
$pip --no-deps jsonschema==4.17.3
$pip --no-deps -e "$here/../.."
"$folder/bin/python" -W ignore -c 'import monailabel, mixstyleflow_monai.engines.fine_tuning, pydicom_seg'
