#include "backends/cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <vector>

#include "contracts/backend_contract.h"

namespace nosa::test {
namespace {

using cpu::CpuBackend;
using cpu::KernelChoice;

BackendSubject subject(const std::string& name, KernelChoice kernels, bool exact, double error) {
  return {.name = name,
          .create = [=](int n_threads) -> std::unique_ptr<Backend> {
            auto backend =
                CpuBackend::create({.n_threads = n_threads, .kernels = kernels, .exact = exact});
            CHECK(backend.ok());
            return std::move(backend).value();
          },
          .quantises_input = !exact,
          .attention_error = error};
}

/// Every table that this machine can run; the others are left out, as they cannot be tested here.
std::vector<BackendSubject> subjects() {
  std::vector<BackendSubject> all;
  const auto add = [&](const std::string& name, KernelChoice kernels, double error) {
    if (!cpu::choose_ops(kernels).ok()) return;
    all.push_back(subject(name, kernels, false, error));
    all.push_back(subject(name + "Exact", kernels, true, 2e-6));
  };
  add("Generic", KernelChoice::kGeneric, 2e-6);
  add("Avx2", KernelChoice::kAvx2, 2e-6);
  add("Avx512", KernelChoice::kAvx512, 4e-3);
  add("Neon", KernelChoice::kNeon, 2e-6);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cpu, BackendContract, testing::ValuesIn(subjects()), subject_name);

TEST(CpuBackend, RefusesAThreadCountThatMakesNoSense) {
  EXPECT_EQ(CpuBackend::create({.n_threads = 0}).status().code(), StatusCode::kInvalidArgument);
}

TEST(CpuBackend, NamesItsInstructionSet) {
  auto backend = CpuBackend::create({.kernels = KernelChoice::kGeneric, .exact = true});
  ASSERT_TRUE(backend.ok());
  EXPECT_EQ(backend.value()->name(), "CPU generic exact");
}

}  // namespace
}  // namespace nosa::test
