#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "core/block_tokens.h"
#include "kv/block.h"
#include "kv/block_table.h"
#include "kv/packed_keys.h"

namespace nosa {

/// What selection needs to know of a sequence without touching its blocks: one compressed key for
/// every complete window of 32 tokens (every 16), and the eviction scores.
///
/// Windows never cross the end of the sequence. A compressed key is the mean of the keys as they
/// are stored (post-RoPE, rounded to the KV type), rounded to the KV type again; a window's
/// eviction score is the mean of its tokens' scores. Both depend on their own tokens alone.
///
/// Layers are filled one after the other, so each has a token count of its own.
/// Copyable: a fork takes its own.
class SideCar {
 public:
  explicit SideCar(const KvShape& shape);

  /// What each token of a long sequence takes, the scores of single tokens among it.
  static double bytes_per_token(const KvShape& shape);

  /// Takes in the tokens of `layer` from n_tokens(layer) up to `n_tokens`.
  ///   table   holds their keys
  ///   scores  eviction scores of the new tokens, [n_kv_heads, n_new]
  void append(int layer, const BlockTable& table, int n_tokens, std::span<const float> scores);

  /// The same with the windows that the tokens complete, where something else has computed them:
  ///   keys           their compressed keys, [n_kv_heads, n new windows, head_dim] in the KV type
  ///   window_scores  [n_kv_heads, n new windows]
  void append(int layer, int n_tokens, std::span<const float> scores, const std::byte* keys,
              std::span<const float> window_scores);

  /// Forgets all tokens from `n_tokens` on, in every layer.
  void truncate(int n_tokens);

  /// Packs the compressed keys, which stay beside: what is saved and grown from is exact. For 16-bit keys;
  /// nothing happens to others. The next token that comes or goes undoes it. REQUIRES: all layers hold the
  /// same tokens.
  void pack();

  int n_tokens(int layer) const { return layers_[layer].n_tokens; }
  int n_windows(int layer) const;

  /// Tiles [head_dim, kTileWindows] in the KV type, aligned to 64 bytes; of the last one, the first
  /// n_windows % kTileWindows columns count, unless it is full.
  const std::byte* compressed_keys(int layer, int kv_head) const;
  /// The same in 8 bits, null unless packed.
  PackedKeysView packed_keys(int layer, int kv_head) const;
  /// [n_windows]
  std::span<const float> window_scores(int layer, int kv_head) const;
  /// [n_tokens]. Readable to the end of the last block.
  std::span<const float> token_scores(int layer, int kv_head) const;

  const KvShape& shape() const { return shape_; }
  size_t bytes() const;

  /// Appends the contents to `out`, key by key. REQUIRES: all layers hold the same tokens.
  void write(std::vector<std::byte>& out) const;

  /// Takes over the contents that write() gave for `n_tokens` tokens; false, and nothing has
  /// changed, when `bytes` has another size.
  bool read(std::span<const std::byte> bytes, int n_tokens);

  /// Appends to `out` what the tokens [from, to) brought: their scores, and the windows they completed.
  /// REQUIRES: every layer holds `to` tokens or more.
  void write_range(int from, int to, std::vector<std::byte>& out) const;

  /// Takes in what write_range() gave for [from, to); false, and nothing has changed, when `bytes` has
  /// another size. REQUIRES: all layers hold `from` tokens.
  bool read_range(std::span<const std::byte> bytes, int from, int to);

 private:
  struct alignas(64) Line {
    std::array<std::byte, 64> bytes = {};
  };
  struct Head {
    std::vector<Line> compressed_keys;  // Tiles, the last one filled up to a line.
    PackedKeys packed_keys;             // Empty unless is_packed_.
    std::vector<float> window_scores;
    std::vector<float> token_scores;  // Whole blocks.
  };
  struct Layer {
    int n_tokens = 0;
    std::vector<Head> heads;
  };

  size_t key_bytes() const { return size_t(shape_.head_dim) * shape_.value_bytes(); }
  size_t lines_for(size_t n_windows) const;
  void write_keys(const Head& head, size_t first, size_t end, std::vector<std::byte>& out) const;
  void read_keys(const std::byte* from, size_t first, size_t end, Head& head) const;
  void append_scores(int layer, int n_tokens, std::span<const float> scores);
  void unpack();
  void append_window(int layer, int kv_head, const BlockTable& table, int window);

  KvShape shape_;
  bool is_packed_ = false;
  std::vector<Layer> layers_;
  std::vector<float> sum_;       // [head_dim], scratch
  std::vector<std::byte> row_;   // One key, likewise
};

}  // namespace nosa
