#!/usr/bin/env bash
# Builds the kernel tests for the GPU of this machine and runs them. Needs nvcc (NVCC names it; else the one on PATH).
#
#   test/kernels/run.sh BUILD_FOLDER [--check] [--sanitize] [--time] [--compile] [TEST...]
#
# Without tests: all. --check compares with the references (the default), --sanitize runs compute-sanitizer's memcheck and
# racecheck over small shapes, --time prints each kernel beside its limit. --compile alone builds them and runs nothing, for the
# GPU that TARGET names (sm_90); COMPILED=1 runs what such a build left, where there is no nvcc.
set -euo pipefail

build=${1:?a folder to build in}
shift
root=$(cd "$(dirname "$0")/../.." && pwd)
export NVCC=${NVCC:-$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")}

phases=()
tests=()
for argument in "$@"; do
  case $argument in
    --*) phases+=("${argument#--}") ;;
    *) tests+=("$argument") ;;
  esac
done
if [ ${#phases[@]} -eq 0 ]; then phases=(check); fi
if [ ${#tests[@]} -eq 0 ]; then
  for file in "$root"/test/kernels/*_test.cu; do tests+=("$(basename "$file" .cu)"); done
fi

# The first lines of a test name the kernels it is linked with.
compile() {
  local test=$1 build=$2 target=$3 sources
  sources=$(sed -n 's|^// link: ||p' "test/kernels/$test.cu")
  "$NVCC" -std=c++20 -O3 --expt-relaxed-constexpr -arch="$target" -cudart static -lineinfo \
    -I. -Ikernels -Inative -Itest/kernels -o "$build/$test" "test/kernels/$test.cu" $sources > "$build/$test.log" 2>&1 ||
    { echo "FAIL $test does not compile"; head -20 "$build/$test.log"; return 1; }
}
export -f compile

mkdir -p "$build"
cd "$root"
failed=0
if [ -z "${COMPILED:-}" ]; then
  target=${TARGET:-sm_$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)}
  printf '%s\n' "${tests[@]}" | xargs -P "$(nproc)" -I{} bash -c 'compile "$@"' compile {} "$build" "$target" || failed=1
fi
if [ "${phases[*]}" = compile ]; then exit $failed; fi
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader

sanitize() {
  local test=$1 tool=$2 build=$3 status=0
  compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/$test" --small > "$build/$test.$tool" 2>&1 || status=$?
  echo "$tool $test: status $status, $(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$build/$test.$tool" | tail -1)"
  return $status
}
export -f sanitize

for phase in "${phases[@]}"; do
  case $phase in
    check) for test in "${tests[@]}"; do "$build/$test" || failed=1; done ;;
    time) for test in "${tests[@]}"; do "$build/$test" --time || failed=1; done ;;
    sanitize)
      for tool in memcheck racecheck; do printf "%s $tool\n" "${tests[@]}"; done |
        xargs -P "$(nproc)" -L1 bash -c 'sanitize "$1" "$2" "$0"' "$build" || failed=1
      ;;
    *) echo "No such phase: $phase" >&2; exit 2 ;;
  esac
done
exit $failed
