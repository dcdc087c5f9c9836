#!/usr/bin/env bash
# Builds the CUDA part for the GPU of this machine, holds it to the CPU, and measures it. Needs CMake, a C++ compiler and
# nvcc (NVCC names it; else the one on PATH); no Node.
#
#   bench/gpu/run.sh BUILD_FOLDER [options and benchmarks of gpu_bench]
#
# Without benchmarks: gather, decode-8b and many. COMPILED=1 takes what is in BUILD_FOLDER already, where there is nothing to build with.
set -euo pipefail

build=${1:?a folder to build in}
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ -z "${COMPILED:-}" ]; then
  nvcc=${NVCC:-$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")}
  target=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)

  generator=()
  if command -v ninja > /dev/null; then generator=(-G Ninja); fi
  cmake -S "$root" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DNOSA_CUDA=ON -DNOSA_TESTS=OFF \
    -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES="$target-real" > "$build.cmake.log"
  cmake --build "$build" --parallel --target nosa_cuda_library cuda_backend memory_plan same_tokens gpu_bench > "$build.build.log"
fi

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
"$build/test/cuda/memory_plan"
"$build/test/cuda/cuda_backend" "$build/libnosa_cuda.so"
"$build/test/cuda/same_tokens" --steps "${NOSA_SAME_TOKENS_STEPS:-2000}"
if [ $# -eq 0 ]; then set -- gather decode-8b many; fi
"$build/bench/gpu/gpu_bench" "$@"
