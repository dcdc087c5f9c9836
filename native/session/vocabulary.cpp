#include "session/vocabulary.h"

#include <algorithm>
#include <utility>

namespace nosa {

Result<Vocabulary> Vocabulary::create(std::string bytes, std::vector<uint32_t> offsets) {
  const bool is_table = !offsets.empty() && offsets.front() == 0 &&
                        offsets.back() == bytes.size() && std::ranges::is_sorted(offsets);
  if (!is_table) return Status::invalid_argument("The offsets are not those of the tokens' bytes.");
  return Vocabulary(std::move(bytes), std::move(offsets));
}

Vocabulary::Vocabulary(std::string bytes, std::vector<uint32_t> offsets)
    : bytes_(std::move(bytes)), offsets_(std::move(offsets)) {
  for (uint32_t id = 0; id < size(); ++id) {
    const std::string_view written = this->bytes(id);
    if (written.size() != 1) continue;
    std::optional<uint32_t>& known = byte_tokens_[uint8_t(written[0])];
    if (!known) known = id;
  }
}

}  // namespace nosa
