// CRC-32C (Castagnoli, as in iSCSI, ext4 and Btrfs) of a file's blocks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "machine/stop.hpp"

namespace gte {

// `checksum` is 0 at first, then the result for the bytes before. The CPU's instruction where it has one, else a table.
uint32_t crc32c(uint32_t checksum, const void* data, size_t byte_count);
uint32_t crc32c_portable(uint32_t checksum, const void* data, size_t byte_count);

// How many blocks the bytes have, the last of which may be shorter. block_bytes is at least 1.
size_t block_count(size_t byte_count, size_t block_bytes);

// checksums: [block_count].
void block_checksums(const char* data, size_t byte_count, size_t block_bytes, size_t thread_count, Stop& stop,
                     uint32_t* checksums);

}  // namespace gte
