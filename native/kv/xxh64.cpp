#include "kv/xxh64.h"

#include <bit>
#include <cstring>

namespace nosa {
namespace {

constexpr uint64_t prime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t prime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t prime3 = 0x165667B19E3779F9u;
constexpr uint64_t prime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t prime5 = 0x27D4EB2F165667C5u;

static_assert(std::endian::native == std::endian::little, "words are read as they lie in memory");

template <typename T>
uint64_t read(const std::byte* at) {
  T word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint64_t round(uint64_t lane, uint64_t word) {
  return std::rotl(lane + word * prime2, 31) * prime1;
}

uint64_t merge(uint64_t hash, uint64_t lane) {
  return (hash ^ round(0, lane)) * prime1 + prime4;
}

}  // namespace

uint64_t xxh64(std::span<const std::byte> bytes, uint64_t seed) {
  const std::byte* at = bytes.data();
  size_t n_left = bytes.size();
  uint64_t hash;
  if (n_left >= 32) {
    uint64_t a = seed + prime1 + prime2;
    uint64_t b = seed + prime2;
    uint64_t c = seed;
    uint64_t d = seed - prime1;
    for (; n_left >= 32; at += 32, n_left -= 32) {
      a = round(a, read<uint64_t>(at));
      b = round(b, read<uint64_t>(at + 8));
      c = round(c, read<uint64_t>(at + 16));
      d = round(d, read<uint64_t>(at + 24));
    }
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d);
  } else {
    hash = seed + prime5;
  }
  hash += bytes.size();

  for (; n_left >= 8; at += 8, n_left -= 8) {
    hash = std::rotl(hash ^ round(0, read<uint64_t>(at)), 27) * prime1 + prime4;
  }
  if (n_left >= 4) {
    hash = std::rotl(hash ^ read<uint32_t>(at) * prime1, 23) * prime2 + prime3;
    at += 4;
    n_left -= 4;
  }
  for (; n_left > 0; ++at, --n_left) {
    hash = std::rotl(hash ^ read<uint8_t>(at) * prime5, 11) * prime1;
  }
  hash = (hash ^ hash >> 33) * prime2;
  hash = (hash ^ hash >> 29) * prime3;
  return hash ^ hash >> 32;
}

}  // namespace nosa
