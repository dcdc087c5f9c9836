#pragma once

namespace nosa {

/// Tokens in one KV block: the unit of selection, storage and transfer.
inline constexpr int kBlockTokens = 64;

/// Compressed keys lie in tiles of so many windows, each [head_dim, kTileWindows]: a query meets the
/// windows of a tile side by side, and no key is ever taken apart.
inline constexpr int kTileWindows = 16;

}  // namespace nosa
