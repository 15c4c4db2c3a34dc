#!/usr/bin/env bash
# Runs tests with llama.cpp's CPU kernels built for other processors: `benches/instruction_sets.sh FOLDER TESTS...`
#
# The kernels of each instruction set add in another order, so they round differently. Tests of texts must hold for
# all of them, and a developer's machine has only one. For each name in SETS (default: all in the table below) this
# builds libggml-cpu from the llama.cpp tree inside the sdist of the installed llama-cpp-python, puts it into a copy of
# the llama_cpp package, and runs pytest on TESTS in an environment that finds this copy first and everything else in
# .venv. Worker processes use the same interpreter and so the same copy. The files in .venv are not changed.
#
# A build takes some minutes on one core (JOBS for more) and is kept in FOLDER. A set that this processor does not have
# is skipped: its tests would die of SIGILL.
#
# Example: SETS="sse42 avx2" benches/instruction_sets.sh ~/.cache/mullama-bench tests/engines tests/clients
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$root/.venv/bin/python
mkdir -p "$1" && cd "$1" && folder=$PWD && shift

# name: the x86-64 options of ggml that are ON, and the flags in /proc/cpuinfo that they need
declare -A options=(
  [sse42]="SSE42" [avx]="SSE42 AVX" [avx2]="SSE42 AVX AVX2 FMA F16C BMI2"
  [avx512]="SSE42 AVX AVX2 FMA F16C BMI2 AVX512" [native]="NATIVE"
)
declare -A needs=(
  [sse42]="sse4_2" [avx]="avx" [avx2]="avx2 fma f16c bmi2"
  [avx512]="avx512f avx512cd avx512vl avx512dq avx512bw" [native]=""
)
every="NATIVE SSE42 AVX AVX2 FMA F16C BMI2 AVX512"

version=$("$python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
installed=$("$python" -c 'import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec("llama_cpp").origin).parent)')
if [[ ! -d source-$version ]]; then
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest . "llama-cpp-python==$version"
  mkdir unpacked
  tar -xzf llama_cpp_python-"$version".tar.gz -C unpacked --strip-components=1
  mv unpacked "source-$version"
fi

build() { # libggml-cpu alone: no other library depends on the instruction set
  local name=$1 option flags=""
  for option in $every; do
    flags+=" -DGGML_$option=$([[ " ${options[$name]} " == *" $option "* ]] && echo ON || echo OFF)"
  done
  # shellcheck disable=SC2086  # one word per flag
  cmake -S "source-$version/vendor/llama.cpp" -B "isa-$name" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
    -DLLAMA_CURL=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DCMAKE_INSTALL_RPATH="\$ORIGIN" \
    -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON $flags >"isa-$name.log" 2>&1
  nice -n 10 cmake --build "isa-$name" --parallel "${JOBS:-1}" --target ggml-cpu >>"isa-$name.log" 2>&1
  mkdir -p "isa-$name/site"
  cp -r "$installed" "isa-$name/site/"
  for file in "isa-$name"/site/llama_cpp/lib/libggml-cpu.*; do cp "isa-$name/bin/libggml-cpu.so" "$file"; done
  "$python" -m venv --without-pip "isa-$name/venv"
  printf '%s\n' "$root" "$folder/isa-$name/site" "${installed%/*}" >"$(echo "isa-$name"/venv/lib/python3*/site-packages)/first.pth"
}

failed=""
for name in ${SETS:-sse42 avx avx2 avx512 native}; do
  for flag in ${needs[$name]}; do
    if ! grep -qw "$flag" /proc/cpuinfo; then
      echo "$name: skipped, this processor has no $flag"
      continue 2
    fi
  done
  build "$name"
  echo "$name: $("isa-$name/venv/bin/python" -c 'import llama_cpp as c; print(c.llama_print_system_info().decode())')"
  (($#)) || continue
  (cd "$root" && "$folder/isa-$name/venv/bin/python" -m pytest -q "$@") || failed+=" $name"
done
if [[ -n $failed ]]; then
  echo "failed with:$failed" >&2
  exit 1
fi
