// The encoder on AMX: 16 x 16 sums of 64 products each in one instruction. The floats are AVX-512's.
#include "encoder/encoder.hpp"
#include "machine/cpu.hpp"

#if defined(GTE_AMX)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "machine/target_region.hpp"
GTE_REGION_BEGIN("amx-int8,amx-tile,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#define GTE_INSTRUCTION_SET amx
#include "encoder/lanes/avx512.hpp"

namespace gte {
namespace {

using Code = uint8_t;
constexpr size_t tile_rows = 32, row_step = 16, tile_columns = 2;
constexpr size_t inputs_per_tile = 64, rows_per_tile = 16;

// What `ldtilecfg` reads: all eight tiles are 16 rows of 64 bytes.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes_of_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// GCC does not see that its instructions read memory.
GTE_INLINE void finish_stores() { __asm__ volatile("" ::: "memory"); }

// The weights lie as a tile wants them: 16 rows of 4 inputs x 16 columns. R is 16 or 32.
template <size_t R>
GTE_INLINE void dot_tile(const uint8_t* a, size_t a_stride, const int8_t* b, size_t b_stride, size_t input_count,
                         const int32_t* start, int32_t* out) {
    finish_stores();
    constexpr bool two = R == 2 * rows_per_tile;
    // The same for every row: a stride of 0.
    _tile_loadd(0, start, 0);
    _tile_loadd(1, start + lanes, 0);
    if (two) {
        _tile_loadd(2, start, 0);
        _tile_loadd(3, start + lanes, 0);
    }
    for (size_t i = 0; i < input_count; i += inputs_per_tile) {
        _tile_loadd(4, a + i, a_stride);
        _tile_loadd(6, b + i * lanes, inputs_per_word * lanes);
        _tile_loadd(7, b + b_stride + i * lanes, inputs_per_word * lanes);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        if (two) {
            _tile_loadd(5, a + rows_per_tile * a_stride + i, a_stride);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
    }
    constexpr size_t out_stride = tile_columns * lanes * sizeof(int32_t);
    _tile_stored(0, out, out_stride);
    _tile_stored(1, out + lanes, out_stride);
    if (two) {
        _tile_stored(2, out + rows_per_tile * tile_columns * lanes, out_stride);
        _tile_stored(3, out + rows_per_tile * tile_columns * lanes + lanes, out_stride);
    }
}

}  // namespace
}  // namespace gte

#include "encoder/forward_pass.hpp"

namespace gte {
namespace {

void load_tile_shapes() {
    const TileShapes shapes;
    finish_stores();
    _tile_loadconfig(&shapes);
}

void encode_batch_in_tiles(const Encoder& encoder, Workspace& space, const int32_t* token_ids, const int64_t* starts,
                           size_t text_count, Output output, float* out) {
    load_tile_shapes();
    encode_batch(encoder, space, token_ids, starts, text_count, output, out);
    _tile_release();
}

void help_in_tiles(Crew& crew, size_t member) {
    load_tile_shapes();
    help_with_batch(crew, member);
    _tile_release();
}

}  // namespace

extern const EncoderKernels encoder_amx;
const EncoderKernels encoder_amx = {"amx", sizeof(Code), encode_batch_in_tiles, help_in_tiles};
}  // namespace gte
GTE_REGION_END
#endif
