#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nosa {

/// XXH64 of `bytes` (the public xxHash specification, 64-bit variant): fast enough to check saved
/// blocks on every load, and good enough to notice damage. Not a defence against forgery.
uint64_t xxh64(std::span<const std::byte> bytes, uint64_t seed = 0);

}  // namespace nosa
