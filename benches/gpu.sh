#!/usr/bin/env bash
# Measures on one GPU of compute capability 9.0, such as an H200, in three steps on up to three machines:
#
#   benches/gpu.sh build FOLDER   with nvcc, without a GPU: the binding and llama-server for sm_90 (an hour on two cores)
#   benches/gpu.sh try FOLDER     without a GPU: the build loads, lists no device, and answers on the CPU
#   benches/gpu.sh run FOLDER     with the GPU, without a network: random models of 1 and 8 B, then the table
#
# `run` ends within ten minutes and writes $OUT (default: FOLDER/results). FOLDER has less than 60 MB after `build`.
# SHAPES="one eight", ROWS, ROUNDS and SECONDS_LEFT change what is measured; SHAPES=tenth tries the script on a CPU.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
step=${1:-} folder=${2:-}
if [[ -z $folder || ! $step =~ ^(build|try|run)$ ]]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
flags="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90 -DGGML_RPC=ON -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON"
export PYTHONPATH=$folder/site:$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

build() {
  command -v nvcc >/dev/null || { echo "error: there is no nvcc: install the CUDA toolkit" >&2; exit 1; }
  local version
  version=$("$python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
  # The stub of the driver's library stands in for the one that a machine with a GPU has.
  # nvcc may be a script that starts another one, so nvcc itself names the folder of its toolkit.
  local toolkit stubs
  toolkit=$(realpath "$(nvcc --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')")
  stubs=$(find -L "$toolkit" -path '*/stubs/libcuda.so' -printf '%h' -quit)
  [[ -n $stubs ]] || { echo "error: $toolkit has no stubs/libcuda.so: install cuda-driver-dev" >&2; exit 1; }
  [[ -n $(find -L "$toolkit" -name 'libcublas.so*' -print -quit) ]] ||
    { echo "error: $toolkit has no cuBLAS: install libcublas-dev" >&2; exit 1; }
  LIBRARY_PATH="$stubs${LIBRARY_PATH:+:$LIBRARY_PATH}" CMAKE_ARGS="$flags" CMAKE_BUILD_PARALLEL_LEVEL="${JOBS:-$(nproc)}" \
    "$python" -m pip wheel --no-deps --no-binary llama-cpp-python --no-cache-dir --wheel-dir "$folder" \
    "llama-cpp-python==$version" >"$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log" >&2; exit 1; }
  LIBRARY_PATH="$stubs${LIBRARY_PATH:+:$LIBRARY_PATH}" CMAKE_ARGS="$flags -DBUILD_SHARED_LIBS=OFF" \
    "$here/benches/build_peer.sh" "$folder/peer"
  strip "$folder/peer/build/bin/llama-server" -o "$folder/llama-server"
  cp "$folder"/peer/source-*/vendor/llama.cpp/models/ggml-vocab-qwen2.gguf "$folder/vocabulary.gguf"
  rm -rf "$folder/peer"
  du -sh "$folder"
}

unpack() { # the binding of FOLDER before any other one
  [[ -d $folder/site/llama_cpp ]] && return
  local wheel
  wheel=$(find "$folder" -maxdepth 1 -name 'llama_cpp_python-*.whl' | head -n 1)
  if [[ -n $wheel ]]; then
    "$python" -m zipfile -e "$wheel" "$folder/site"
  else
    echo "note: $folder has no wheel of the binding; the installed one is measured" >&2
  fi
}

devices() { "$python" -m mullama.engines.llamacpp.binding.devices; }

answer() ( # one greedy answer of the built-in model, as text
  cd "$MULLAMA_STATE_DIR" # a folder without a manifest
  "$python" -m mullama run builtin:tiny "What is the capital of France?" --temperature 0 --max-tokens 16 </dev/null
)

state() { # a state folder of its own, so that no other server is used
  MULLAMA_STATE_DIR=$(mktemp -d)
  export MULLAMA_STATE_DIR
  trap '"$python" -m mullama stop --yes >/dev/null 2>&1 || true; rm -rf "$MULLAMA_STATE_DIR"' EXIT
}

try() {
  unpack
  state
  [[ $(devices) == *'"devices": []'* ]] || { echo "error: the build lists a device: $(devices)" >&2; exit 1; }
  answer
  echo "the build loads, lists no device, and answers on the CPU"
}

run() {
  local out=${OUT:-$folder/results} until=$((SECONDS + ${SECONDS_LEFT:-570})) shape model vocabulary
  mkdir -p "$out"
  unpack
  state
  { uname -a; nproc; nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1; devices; } \
    >"$out/machine.txt" || true
  cat "$out/machine.txt"
  if command -v nvidia-smi >/dev/null && [[ $(devices) == *'"devices": []'* ]]; then
    echo "error: there is a GPU, and llama.cpp does not list it" >&2
    exit 1
  fi
  answer | tee "$out/answer.txt"
  vocabulary=$folder/vocabulary.gguf
  [[ -f $vocabulary ]] || vocabulary=$here/mullama/sources/builtin_models/tiny.gguf
  for shape in ${SHAPES:-one eight}; do
    model=${TMPDIR:-/tmp}/mullama-$shape-q8_0.gguf
    [[ -f $model ]] || "$python" -m benches.model "$vocabulary" "$model" --shape "$shape" --quantised
    # The engine alone: time of a token outside the decode, and tokens per second.
    timeout "$((until - SECONDS > 1 ? until - SECONDS : 1))" \
      "$python" -m benches.engine_overhead "$model" --threads 1 2>&1 | tee "$out/overhead-$shape.txt" || true
    if [[ -x $folder/llama-server ]] && ((until - SECONDS > 60)); then
      timeout "$((until - SECONDS))" "$python" -m benches --peer "$folder/llama-server" --model "$model" \
        --rows "${ROWS:-plain,prefix}" --rounds "${ROUNDS:-3}" --json "$out/rows-$shape.json" 2>&1 |
        tee "$out/rows-$shape.txt" || true
    fi
  done
  echo "results: $out"
}

"$step"
