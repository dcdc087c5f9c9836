#pragma once

#include <cstdio>
#include <cstdlib>

namespace nosa {

/// Prints where and what, then aborts. Our own mistakes only; the world's are a Status.
[[noreturn]] inline void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s\n", file, line, condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace nosa

/// Aborts when a condition that only a bug of ours can break does not hold.
#define CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::nosa::check_failed(__FILE__, __LINE__, #condition))

/// As CHECK, in debug builds only: for hot loops. The condition is always compiled.
#ifdef NDEBUG
#define DCHECK(condition) static_cast<void>(sizeof((condition) ? 1 : 0))
#else
#define DCHECK(condition) CHECK(condition)
#endif
