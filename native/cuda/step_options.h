#pragma once

#include "kv/selection.h"

namespace nosa::cuda {

/// How the queries of all lanes attend. With Policy::kFull the cache must be resident: every block is read at every step.
struct StepOptions {
  Policy policy = Policy::kNosa;
  SelectionBudget budget;
  bool keeps_choices = false;  ///< For tests: what each layer chose stays until the next step.

  bool operator==(const StepOptions&) const = default;
};

}  // namespace nosa::cuda
