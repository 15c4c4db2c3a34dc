#!/usr/bin/env bash
# Builds llama-server and llama-quantize from the llama.cpp tree inside the sdist of the installed llama-cpp-python, with
# the flags of .ci/install, so that only the code around the library is compared. It takes some ten minutes on two
# cores; a second run continues. CMAKE_ARGS
# adds flags. Usage: build_peer.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=$here/.venv/bin/python
mkdir -p "$1" && cd "$1"

version=$("$python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
if [[ ! -d source-$version ]]; then
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest . "llama-cpp-python==$version"
  mkdir unpacked
  tar -xzf llama_cpp_python-"$version".tar.gz -C unpacked --strip-components=1
  mv unpacked "source-$version"
fi

flags=""
if [[ $(uname -m) == x86_64 ]]; then
  for flag in -mno-amx-tile -mno-amx-int8 -mno-amx-bf16 -mno-avx512fp16; do
    if "${CC:-cc}" "$flag" -E -x c /dev/null >/dev/null 2>&1; then flags+=" $flag"; fi
  done
fi
CFLAGS="${CFLAGS:-}$flags" CXXFLAGS="${CXXFLAGS:-}$flags" cmake -S "source-$version/vendor/llama.cpp" -B build \
  -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF ${CMAKE_ARGS:-} \
  >configure.log
cmake --build build --parallel "${JOBS:-$(nproc)}" --target llama-server llama-quantize >build.log
ls "$PWD/build/bin/llama-server" "$PWD/build/bin/llama-quantize"
