#include "cuda/head.h"

#include "core/check.h"
#include "cuda/cuda_status.h"
#include "cuda/step_buffers.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"

namespace nosa::cuda {
namespace {

constexpr const char* computing = "Computing scores on the GPU";

}  // namespace

Status enqueue_logits(const DeviceModel& model, const float* hidden, int n_rows, const HeadScratch& to, cudaStream_t stream) {
  const ModelShape& shape = model.shape();
  const Operand in{to.normed, linear_operand(model.output().dtype), n_rows, shape.n_embd};
  NOSA_CUDA_TRY(rms_norm({hidden, model.output_norm(), shape.rms_eps, in, nullptr}, stream), computing);
  LinearParams product = {};
  product.targets[0] = {model.output(), nullptr, to.logits};
  product.n_targets = 1;
  product.x = in;
  product.scratch = to.product;
  NOSA_CUDA_TRY(linear(product, stream), computing);
  return {};
}

struct Head::Buffers {
  float* hidden = nullptr;      // [rows_max, n_embd]
  std::byte* normed = nullptr;  // Operand [rows_max, n_embd]
  float* logits = nullptr;      // [rows_max, n_vocab]
  float* scratch = nullptr;
  DeviceBuffer memory;

  BufferPlan plan(const ModelShape& shape) {
    BufferPlan plan;
    plan.add(hidden, size_t(rows_max) * size_t(shape.n_embd));
    plan.add(normed, operand_bytes(OperandType::kF16, rows_max, shape.n_embd) + operand_bytes(OperandType::kQ8, rows_max, shape.n_embd));
    plan.add(logits, size_t(rows_max) * size_t(shape.n_vocab));
    plan.add(scratch, linear_scratch_bytes(rows_max, shape.n_vocab) / sizeof(float));
    return plan;
  }
};

Head::Head(const DeviceModel& model) : model_(model), buffers_(std::make_unique<Buffers>()) {}
Head::~Head() = default;

size_t Head::bytes_for(const ModelShape& shape) { return Buffers().plan(shape).bytes(); }

Result<std::unique_ptr<Head>> Head::create(const DeviceModel& model) {
  std::unique_ptr<Head> head(new Head(model));
  Result<DeviceBuffer> memory = head->buffers_->plan(model.shape()).take("the scores of tokens");
  if (!memory.ok()) return memory.status();
  head->buffers_->memory = *std::move(memory);
  return head;
}

Status Head::compute(const float* hidden, int n_rows, float* logits, cudaStream_t stream) {
  CHECK(n_rows >= 1 && n_rows <= rows_max);
  const ModelShape& shape = model_.shape();
  const Buffers& b = *buffers_;
  NOSA_CUDA_TRY(cudaMemcpyAsync(b.hidden, hidden, size_t(n_rows) * size_t(shape.n_embd) * sizeof(float), cudaMemcpyHostToDevice, stream),
                computing);
  NOSA_TRY(enqueue_logits(model_, b.hidden, n_rows, {b.normed, b.logits, b.scratch}, stream));
  NOSA_CUDA_TRY(cudaMemcpyAsync(logits, b.logits, size_t(n_rows) * size_t(shape.n_vocab) * sizeof(float), cudaMemcpyDeviceToHost, stream),
                computing);
  return to_status(cudaStreamSynchronize(stream), computing);
}

}  // namespace nosa::cuda
