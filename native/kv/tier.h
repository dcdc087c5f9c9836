#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/status.h"

namespace nosa {

/// A place for one extent within a tier.
enum class TierSlot : uint64_t {};

/// One extent on its way into or out of a tier. `bytes` has extent_bytes() and starts on a page.
struct TierTransfer {
  TierSlot slot;
  std::byte* bytes;
};

/// Storage for extents of one size: memory, disk, or a device. Every tier holds the same bytes for
/// the same block, so moving a block never changes an answer.
///
/// Not thread-safe: used by the native worker thread only.
class Tier {
 public:
  virtual ~Tier() = default;

  virtual std::string_view name() const = 0;
  virtual size_t extent_bytes() const = 0;

  /// Slots that are taken.
  virtual size_t n_taken() const = 0;

  /// Takes a free slot, with bytes of no meaning.
  /// Fails with kOutOfMemory or kNoSpace when there is none left.
  virtual Result<TierSlot> take() = 0;

  /// REQUIRES: `slot` is taken.
  virtual void release(TierSlot slot) = 0;

  /// Copies extents in. Fails with kIo or kNoSpace; what the slots of a failed call hold is unknown.
  virtual Status write(std::span<const TierTransfer> transfers) = 0;

  /// Begins to copy extents in while the caller goes on; `bytes` must stay as they are until
  /// finish_writing(). REQUIRES: what was started before is finished.
  virtual void start_writing(std::span<const TierTransfer> transfers) = 0;

  /// Whether finish_writing() would have to wait.
  virtual bool is_writing() const = 0;

  /// Waits for what start_writing() began. Fails as write(). REQUIRES: something was started.
  virtual Status finish_writing() = 0;

  /// Copies extents out. Fails with kIo, or with kCorrupt when what comes back is not what went in.
  virtual Status read(std::span<const TierTransfer> transfers) = 0;

  /// The extent itself, where the processor can reach it; else null.
  virtual std::byte* address(TierSlot slot) = 0;
};

}  // namespace nosa
