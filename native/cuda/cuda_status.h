#pragma once

#include <cuda_runtime.h>

#include <string>

#include "core/status.h"

namespace nosa::cuda {

/// What a CUDA call said, as a status: `what` names what was being done.
inline Status to_status(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return {};
  const std::string message = std::string(what) + ": " + cudaGetErrorString(error) + ".";
  if (error == cudaErrorMemoryAllocation) return Status::out_of_memory(message);
  return Status::io(message);
}

}  // namespace nosa::cuda

/// Leaves the function with a status unless a CUDA call succeeded.
#define NOSA_CUDA_TRY(call, what)                                            \
  do {                                                                       \
    if (const cudaError_t nosa_error = (call); nosa_error != cudaSuccess)    \
      return ::nosa::cuda::to_status(nosa_error, what);                      \
  } while (false)

/// Leaves the function with a status unless a call that gives one succeeded.
#define NOSA_TRY(call)                                                 \
  do {                                                                 \
    if (::nosa::Status nosa_status = (call); !nosa_status.ok())        \
      return nosa_status;                                              \
  } while (false)
