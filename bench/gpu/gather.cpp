// Figure 1: random blocks out of pinned host memory by gather_blocks, against one large copy.
#include <algorithm>
#include <numeric>
#include <random>

#include "bench.h"
#include "kernels/gather_blocks.h"

namespace nosa::bench {
namespace {

constexpr size_t extent_bytes = 32 << 10;
constexpr int n_pages = 131072;  // 4 GiB
constexpr int n_lists = 30;      // Of different blocks, so that nothing is in a cache.

}  // namespace

void gather(Figures& figures, const Ceilings& ceilings) {
  auto host = must(cuda::PinnedBuffer::create(size_t(n_pages) * extent_bytes, "blocks"), "gather");
  fill_random(host.host(), host.bytes());
  std::mt19937 random{std::random_device{}()};
  cudaStream_t stream;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "gather");
  for (const int n : {1, 4, 16, 64, 256, 1024}) {
    const int n_heads = n >= 2 ? 2 : 1;
    const int n_seqs = std::max(1, n / 16);
    const int per_list = n / (n_heads * n_seqs);
    std::vector<int32_t> pages(size_t(n_lists) * size_t(n));
    for (int32_t& page : pages) page = int32_t(random() % n_pages);
    std::vector<int32_t> slots(static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) slots[size_t(i)] = i % per_list;
    std::vector<int32_t> lanes(static_cast<size_t>(n_seqs));
    std::iota(lanes.begin(), lanes.end(), 0);
    const std::vector<int32_t> counts(size_t(n_seqs) * size_t(n_heads), per_list);
    const auto put = [&](const std::vector<int32_t>& values) {
      auto buffer = must(cuda::DeviceBuffer::create(values.size() * 4, "a list"), "gather");
      must(cudaMemcpy(buffer.data(), values.data(), values.size() * 4, cudaMemcpyHostToDevice), "gather");
      return buffer;
    };
    const auto d_pages = put(pages), d_slots = put(slots), d_lanes = put(lanes), d_counts = put(counts);
    auto target = must(cuda::DeviceBuffer::create(size_t(n) * extent_bytes, "slots"), "gather");

    cuda::GatherBlocksParams params = {};
    params.lanes = d_lanes.as<int32_t>();
    params.load_slots = d_slots.as<int32_t>();
    params.n_loads = d_counts.as<int32_t>();
    params.pages = {host.device(), 0, 0, extent_bytes};
    params.slots = {target.data(), size_t(n_heads) * size_t(per_list) * extent_bytes, size_t(per_list) * extent_bytes, extent_bytes};
    params.extent_bytes = extent_bytes;
    params.n_seqs = n_seqs;
    params.n_kv_heads = n_heads;
    params.n_loads_max = per_list;
    const auto launch = [&](int list) {
      params.load_pages = d_pages.as<int32_t>() + size_t(list) * size_t(n);
      must(cuda::gather_blocks(params, stream), "gather");
    };
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin), "gather");
    must(cudaEventCreate(&end), "gather");
    // All lists one after the other in a graph, as a step has its gathers.
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "gather");
    for (int list = 0; list < n_lists; ++list) launch(list);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamEndCapture(stream, &graph), "gather");
    must(cudaGraphInstantiate(&exec, graph, 0), "gather");
    std::vector<float> times;
    for (int i = 0; i < 12; ++i) {
      must(cudaEventRecord(begin, stream), "gather");
      must(cudaGraphLaunch(exec, stream), "gather");
      must(cudaEventRecord(end, stream), "gather");
      must(cudaEventSynchronize(end), "gather");
      float ms = 0.0f;
      must(cudaEventElapsedTime(&ms, begin, end), "gather");
      if (i >= 2) times.push_back(ms);
    }
    must(cudaGraphExecDestroy(exec), "gather");
    must(cudaGraphDestroy(graph), "gather");
    std::ranges::sort(times);
    const double seconds = times[times.size() / 2] / 1e3 / n_lists;
    const double rate = double(n) * double(extent_bytes) / seconds;
    // The last list is what the slots hold now.
    std::vector<std::byte> got(size_t(n) * extent_bytes);
    must(cudaMemcpy(got.data(), target.data(), got.size(), cudaMemcpyDeviceToHost), "gather");
    for (int i = 0; i < n; ++i) {
      const std::byte* want = host.host() + size_t(pages[size_t(n_lists - 1) * size_t(n) + size_t(i)]) * extent_bytes;
      if (!std::equal(want, want + extent_bytes, got.data() + size_t(i) * extent_bytes)) fail("gather fetched other bytes");
    }
    figures.begin("gather").add("blocks", n).add("block KiB", 32).add("us", seconds * 1e6).add("GB/s", rate / 1e9)
        .add("of the pinned copy", rate / ceilings.pinned_to_device).end();
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
  }
  cudaStreamDestroy(stream);
}

}  // namespace nosa::bench
