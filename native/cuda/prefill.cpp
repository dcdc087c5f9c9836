#include "cuda/prefill.h"
namespace nosa::cuda {
struct Prefill::Buffers {};
Prefill::Prefill(const DeviceModel& model) : model_(model) {}
Prefill::~Prefill() = default;
Result<std::unique_ptr<Prefill>> Prefill::create(const DeviceModel& model, int, int) { return std::unique_ptr<Prefill>(new Prefill(model)); }
size_t Prefill::bytes_for(const ModelShape&, int, int) { return 0; }
Status Prefill::compute(const PrefillChunk&, PagePool&, PageArena&, cudaStream_t) { return Status::unsupported("no prefill yet"); }
}
