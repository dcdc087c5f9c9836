#pragma once

#include <cstdint>

namespace nosa {

/// Says which tokens may be drawn next.
class TokenFilter {
 public:
  virtual ~TokenFilter() = default;

  virtual bool accepts(uint32_t id) = 0;

  /// One that it accepts.
  virtual uint32_t some() = 0;
};

}  // namespace nosa
