#pragma once

namespace nosa {

/// Asks for the cache line at `address`, which need not be there: for books of many things that lie apart.
/// Always inline, for GCC takes a function that does nothing else for one that does nothing, and drops its calls.
[[gnu::always_inline]] inline void prefetch(const void* address) { __builtin_prefetch(address); }

}  // namespace nosa
