#include "machine/cpu.hpp"

#include <cstdint>

#if defined(GTE_X86) && defined(_MSC_VER)
#include <intrin.h>
#elif defined(GTE_X86)
#include <cpuid.h>
#endif
#if defined(GTE_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(GTE_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace gte {
namespace {

#if defined(GTE_X86)

struct Registers {
    uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{};
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<uint32_t>(out[0]), static_cast<uint32_t>(out[1]), static_cast<uint32_t>(out[2]),
         static_cast<uint32_t>(out[3])};
#else
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
    return r;
}

// The registers that the operating system saves at a context switch: a CPU with AVX-512 under a kernel without it has
// none.
uint64_t saved_state() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

bool has(uint32_t value, unsigned bit) { return (value >> bit) & 1; }

CpuFeatures probe() {
    CpuFeatures features{};
    const Registers one = cpuid(1, 0);
    features.crc32c = has(one.ecx, 20);
    const bool os_saves_avx_state = has(one.ecx, 27);
    if (!os_saves_avx_state || cpuid(0, 0).eax < 7) {
        return features;
    }
    const Registers seven = cpuid(7, 0);
    const uint64_t state = saved_state();
    const bool ymm_saved = (state & 0x06) == 0x06;
    const bool zmm_saved = (state & 0xe6) == 0xe6;
    const bool fma = has(one.ecx, 12), popcnt = has(one.ecx, 23), f16c = has(one.ecx, 29), avx2 = has(seven.ebx, 5);
    const bool avx512f = has(seven.ebx, 16), dq = has(seven.ebx, 17), bw = has(seven.ebx, 30), vl = has(seven.ebx, 31);
    const bool vnni = has(seven.ecx, 11), vpopcntdq = has(seven.ecx, 14);
    features.avx2 = ymm_saved && avx2 && fma && f16c && popcnt;
    features.avx512 = features.avx2 && zmm_saved && avx512f && dq && bw && vl;
    features.avx512bytes = features.avx512 && vnni;
    features.avx512vnni = features.avx512bytes && vpopcntdq;
    const bool tiles_saved = (state & 0x60000) == 0x60000, amx_tile = has(seven.edx, 24), amx_int8 = has(seven.edx, 25);
    features.amx = features.avx512bytes && tiles_saved && amx_tile && amx_int8;
    features.avxvnni = features.avx2 && has(cpuid(7, 1).eax, 4);
    return features;
}

#elif defined(GTE_ARM)

CpuFeatures probe() {
    CpuFeatures features{};
#if defined(__linux__)
    constexpr unsigned long hwcap_asimddp = 1UL << 20;
    constexpr unsigned long hwcap_crc32 = 1UL << 7;
    features.neon_dot = (getauxval(AT_HWCAP) & hwcap_asimddp) != 0;
    features.crc32c = (getauxval(AT_HWCAP) & hwcap_crc32) != 0;
#elif defined(__APPLE__)
    features.neon_dot = true;  // every Apple core that runs macOS has both
    features.crc32c = true;
#endif
    return features;
}

#else

CpuFeatures probe() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = probe();
    return features;
}

bool ask_for_amx() {
#if defined(GTE_AMX)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return cpu_features().amx && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace gte
