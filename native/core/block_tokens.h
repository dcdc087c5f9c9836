#pragma once

namespace nosa {

/// Tokens in one KV block: the unit of selection, storage and transfer.
inline constexpr int kBlockTokens = 64;

}  // namespace nosa
