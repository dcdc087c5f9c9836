#pragma once

namespace nosa::cuda {

/// gate / (1 + exp(-gate)) up. For a very negative gate exp is infinite and the quotient zero, as it should be.
__device__ inline float gated(float gate, float up) { return gate / (1.0f + __expf(-gate)) * up; }

}  // namespace nosa::cuda
