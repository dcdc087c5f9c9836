#pragma once

#include <cmath>

namespace nosa::reference {

/// gate / (1 + exp(-gate)) * up, in double precision.
inline double silu_mul(double gate, double up) { return gate / (1.0 + std::exp(-gate)) * up; }

}  // namespace nosa::reference
