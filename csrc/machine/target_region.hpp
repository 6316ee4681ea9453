// Compiles what follows for more than the baseline: functions of one file share intrinsics and must be inlined into
// each other, which a GTE_TARGET on each of them does not allow for templates. Include the standard headers before the
// region begins, so that none of their functions is compiled for more than every CPU has.
#pragma once

#define GTE_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define GTE_REGION_BEGIN(features) \
    GTE_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define GTE_REGION_END GTE_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define GTE_REGION_BEGIN(features) _Pragma("GCC push_options") GTE_PRAGMA(GCC target(features))
#define GTE_REGION_END _Pragma("GCC pop_options")
#else
#define GTE_REGION_BEGIN(features)
#define GTE_REGION_END
#endif

// Before a loop of a few constant steps over an array of registers: unrolled early, so that GCC keeps them out of
// memory.
#if defined(__clang__)
#define GTE_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define GTE_UNROLL _Pragma("GCC unroll 16")
#else
#define GTE_UNROLL
#endif
