#include "search/checksum.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "machine/cpu.hpp"
#include "machine/thread_pool.hpp"

#if defined(GTE_X86)
#include <nmmintrin.h>
#elif defined(GTE_ARM)
#include <arm_acle.h>
#endif

namespace gte {
namespace {

// tables[i][byte]: what `byte` contributes after i more bytes of zeros, so that eight bytes take eight look-ups.
using Tables = std::array<std::array<uint32_t, 256>, 8>;

Tables make_tables() {
    constexpr uint32_t reversed_polynomial = 0x82f63b78u;
    Tables tables{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; ++bit) {
            value = (value >> 1) ^ ((value & 1) ? reversed_polynomial : 0);
        }
        tables[0][byte] = value;
    }
    for (size_t i = 1; i < 8; ++i) {
        for (size_t byte = 0; byte < 256; ++byte) {
            tables[i][byte] = (tables[i - 1][byte] >> 8) ^ tables[0][tables[i - 1][byte] & 0xff];
        }
    }
    return tables;
}

#if defined(GTE_X86)

GTE_X86_CRC uint32_t crc32c_instruction(uint32_t checksum, const void* data, size_t byte_count) {
    const char* bytes = static_cast<const char*>(data);
    uint64_t state = static_cast<uint32_t>(~checksum);
    for (; byte_count >= 8; byte_count -= 8, bytes += 8) {
        uint64_t word;
        std::memcpy(&word, bytes, sizeof word);
        state = _mm_crc32_u64(state, word);
    }
    uint32_t narrow = static_cast<uint32_t>(state);
    for (; byte_count > 0; --byte_count, ++bytes) {
        narrow = _mm_crc32_u8(narrow, static_cast<unsigned char>(*bytes));
    }
    return ~narrow;
}

#elif defined(GTE_ARM)

GTE_ARM_CRC uint32_t crc32c_instruction(uint32_t checksum, const void* data, size_t byte_count) {
    const char* bytes = static_cast<const char*>(data);
    uint32_t state = ~checksum;
    for (; byte_count >= 8; byte_count -= 8, bytes += 8) {
        uint64_t word;
        std::memcpy(&word, bytes, sizeof word);
        state = __crc32cd(state, word);
    }
    for (; byte_count > 0; --byte_count, ++bytes) {
        state = __crc32cb(state, static_cast<unsigned char>(*bytes));
    }
    return ~state;
}

#endif

struct BlockRun {
    const char* data;
    size_t byte_count;
    size_t block_bytes;
    uint32_t* checksums;
    size_t block_count;
    Stop& stop;
    std::atomic<size_t> next_block{0};
};

void work_on_blocks(void* context, size_t slot) {
    BlockRun& run = *static_cast<BlockRun*>(context);
    for (size_t block; (block = run.next_block.fetch_add(1)) < run.block_count && !run.stop.stopped();) {
        const size_t start = block * run.block_bytes;
        run.checksums[block] = crc32c(0, run.data + start, std::min(run.block_bytes, run.byte_count - start));
        if (slot == 0) {
            run.stop.poll();
        }
    }
}

}  // namespace

uint32_t crc32c_portable(uint32_t checksum, const void* data, size_t byte_count) {
    static const Tables tables = make_tables();
    const unsigned char* bytes = static_cast<const unsigned char*>(data);
    uint32_t state = ~checksum;
    for (; byte_count >= 8; byte_count -= 8, bytes += 8) {
        uint32_t next = 0;
        for (size_t i = 0; i < 4; ++i) {
            next ^= tables[7 - i][(bytes[i] ^ (state >> (8 * i))) & 0xff] ^ tables[3 - i][bytes[4 + i]];
        }
        state = next;
    }
    for (; byte_count > 0; --byte_count, ++bytes) {
        state = (state >> 8) ^ tables[0][(state ^ *bytes) & 0xff];
    }
    return ~state;
}

uint32_t crc32c(uint32_t checksum, const void* data, size_t byte_count) {
#if defined(GTE_X86) || defined(GTE_ARM)
    if (cpu_features().crc32c) {
        return crc32c_instruction(checksum, data, byte_count);
    }
#endif
    return crc32c_portable(checksum, data, byte_count);
}

size_t block_count(size_t byte_count, size_t block_bytes) {
    return byte_count / block_bytes + (byte_count % block_bytes != 0);
}

void block_checksums(const char* data, size_t byte_count, size_t block_bytes, size_t thread_count, Stop& stop,
                     uint32_t* checksums) {
    const size_t blocks = block_count(byte_count, block_bytes);
    BlockRun run{data, byte_count, block_bytes, checksums, blocks, stop};
    run_on_pool(std::min(thread_count, blocks), work_on_blocks, &run);
}

}  // namespace gte
