// Which instruction sets this CPU and its operating system offer, found at run time.
//
// The extension is compiled for the baseline of its architecture; a function that uses more carries GTE_TARGET and is
// only reached through a table (dot.hpp) that was chosen by this probe.
#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#define GTE_X86 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define GTE_ARM 1
#endif

// MSVC emits every intrinsic without being asked; GCC and Clang want the function marked.
#if defined(_MSC_VER) && !defined(__clang__)
#define GTE_TARGET(features)
#define GTE_INLINE __forceinline
#else
#define GTE_TARGET(features) __attribute__((target(features)))
#define GTE_INLINE inline __attribute__((always_inline))
#endif

// Linux gives a process AMX's registers when it asks for them; Clang 12 and GCC 11 know its instructions.
#if defined(GTE_X86) && defined(__linux__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define GTE_AMX 1
#endif

#define GTE_AVX2 GTE_TARGET("avx2,fma,f16c,popcnt")
#define GTE_AVX512 GTE_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")
#define GTE_AVX512VNNI GTE_TARGET("avx512vnni,avx512vpopcntdq,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")
#if defined(__clang__) && __clang_major__ >= 14  // where crc32 is a feature of its own
#define GTE_X86_CRC GTE_TARGET("sse4.2,crc32")
#else
#define GTE_X86_CRC GTE_TARGET("sse4.2")
#endif
#if defined(__clang__)
#define GTE_NEON_DOT GTE_TARGET("dotprod")
#define GTE_ARM_CRC GTE_TARGET("crc")
#else
#define GTE_NEON_DOT GTE_TARGET("arch=armv8.2-a+dotprod")
#define GTE_ARM_CRC GTE_TARGET("+crc")
#endif

namespace gte {

struct CpuFeatures {
    bool avx2;         // AVX2, FMA, F16C and POPCNT
    bool avx512;       // AVX-512 F, BW, DQ and VL
    bool avx512vnni;   // the above with VNNI and VPOPCNTDQ
    bool avx512bytes;  // avx512 with VNNI, which CPUs have that lack VPOPCNTDQ
    bool avxvnni;      // avx2 with the VNNI of CPUs that have no AVX-512
    bool amx;          // avx512bytes with the 8-bit products of AMX, which a process has to ask for
    bool neon_dot;     // the dot product of ARMv8.2
    bool crc32c;       // the CRC-32C instructions of SSE4.2 or ARMv8.1
};

const CpuFeatures& cpu_features();

// Whether AMX may be used; asks Linux for its registers, for all threads of the process and its children.
bool ask_for_amx();

}  // namespace gte
