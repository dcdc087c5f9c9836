#include "backends/cpu/cpuid.h"

#if defined(NOSA_CPU_X86)
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif
#if defined(NOSA_CPU_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <cstdint>
#include <string>

namespace nosa::cpu {
namespace {

#if defined(NOSA_CPU_X86)

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r{};
#if defined(_MSC_VER)
  int values[4];
  __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
  r = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]),
       static_cast<uint32_t>(values[2]), static_cast<uint32_t>(values[3])};
#else
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
  return r;
}

/// The register sets that the operating system saves. REQUIRES: the processor has OSXSAVE.
uint64_t saved_registers() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
#endif
}

constexpr bool has_all(uint64_t bits, uint64_t wanted) { return (bits & wanted) == wanted; }

constexpr uint64_t bit(int n) { return uint64_t{1} << n; }

struct Features {
  bool avx2 = false;
  bool avx512 = false;
};

Features detect() {
  Features found;
  const Registers basic = cpuid(1, 0);
  constexpr uint64_t osxsave_avx_fma_f16c = bit(27) | bit(28) | bit(12) | bit(29);
  if (cpuid(0, 0).eax < 7 || !has_all(basic.ecx, osxsave_avx_fma_f16c)) return found;
  constexpr uint64_t ymm = 0x6;
  constexpr uint64_t zmm = 0xe6;
  const uint64_t saved = saved_registers();
  const Registers extended = cpuid(7, 0);
  found.avx2 = has_all(saved, ymm) && has_all(extended.ebx, bit(5));
  constexpr uint64_t f_dq_bw_vl = bit(16) | bit(17) | bit(30) | bit(31);
  constexpr uint64_t vbmi_vnni = bit(1) | bit(11);
  constexpr uint64_t bf16 = bit(5);
  found.avx512 = found.avx2 && has_all(saved, zmm) && has_all(extended.ebx, f_dq_bw_vl) &&
                 has_all(extended.ecx, vbmi_vnni) && has_all(cpuid(7, 1).eax, bf16);
  return found;
}

#endif

#if defined(NOSA_CPU_ARM)

bool has_dot_product() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;  // Every 64-bit ARM machine that macOS and Windows 11 run on has it.
#endif
}

#endif

Status lacking(const char* what) {
  return Status::unsupported(std::string("this processor or build has no ") + what +
                             " kernels; choose another");
}

}  // namespace

CpuFacts cpu_facts() {
  CpuFacts facts;
#if defined(NOSA_CPU_X86)
  if (cpuid(0x80000000u, 0).eax >= 0x80000004u) {
    for (uint32_t leaf = 0x80000002u; leaf <= 0x80000004u; ++leaf) {
      const Registers r = cpuid(leaf, 0);
      for (const uint32_t word : {r.eax, r.ebx, r.ecx, r.edx}) {
        for (int shift = 0; shift < 32; shift += 8) {
          const char letter = char(word >> shift & 0xff);
          if (letter != 0) facts.brand += letter;
        }
      }
    }
    facts.brand.erase(facts.brand.find_last_not_of(' ') + 1);
    facts.brand.erase(0, facts.brand.find_first_not_of(' '));
  }
  const Features features = detect();
  if (features.avx2) facts.features = {"avx2", "fma", "f16c"};
  if (features.avx512) {
    for (const char* name : {"avx512f", "avx512vbmi", "avx512vnni", "avx512bf16"}) {
      facts.features.emplace_back(name);
    }
  }
#elif defined(NOSA_CPU_ARM)
  facts.features = {"neon"};
  if (has_dot_product()) facts.features.emplace_back("dotprod");
#endif
  return facts;
}

Result<const Ops*> choose_ops(KernelChoice choice) {
  [[maybe_unused]] const bool best = choice == KernelChoice::kBest;
#if defined(NOSA_CPU_X86)
  const Features features = detect();
  if ((best || choice == KernelChoice::kAvx512) && features.avx512) return &ops_avx512();
  if ((best || choice == KernelChoice::kAvx2) && features.avx2) return &ops_avx2();
#endif
#if defined(NOSA_CPU_ARM)
  if ((best || choice == KernelChoice::kNeon) && has_dot_product()) return &ops_neon();
#endif
  switch (choice) {
    case KernelChoice::kBest:
    case KernelChoice::kGeneric:
      return &ops_generic();
    case KernelChoice::kAvx2:
      return lacking("AVX2");
    case KernelChoice::kAvx512:
      return lacking("AVX-512");
    case KernelChoice::kNeon:
      return lacking("NEON");
  }
  return lacking("such");
}

}  // namespace nosa::cpu
