#pragma once

#include <string>
#include <vector>

#include "backends/cpu/ops.h"
#include "core/status.h"

namespace nosa::cpu {

/// Which implementation of the inner loops to run.
enum class KernelChoice {
  kBest,  ///< The fastest that this processor runs.
  kGeneric,
  kAvx2,
  kAvx512,
  kNeon,
};

/// What the status shows of the processor.
struct CpuFacts {
  std::string brand;                  ///< "AMD EPYC 9R14", or empty where it cannot be asked.
  std::vector<std::string> features;  ///< Instruction sets that matter here: "avx2", "avx512vnni".
};
CpuFacts cpu_facts();

/// The table of a choice. Fails with kUnsupported when it was not built in, or this processor or
/// its operating system lacks the instructions.
Result<const Ops*> choose_ops(KernelChoice choice);

}  // namespace nosa::cpu
