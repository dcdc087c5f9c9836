#pragma once

namespace nosa::test {

/// Whether this is a build with sanitizers. It looks for wrong accesses, not for wrong numbers, and is some ten times slower:
/// tests that repeat one thing many times repeat it less often there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace nosa::test
