// A few threads that sleep until a search needs them.
//
// A run hands out slots; the caller works too, and takes back the slots that nobody has started, so a run never waits
// for a busy pool and many callers may run at once. Idle threads block on a condition variable: no spinning. After
// fork() the child, which has none of the parent's threads, starts with an empty pool.
#pragma once

#include <cstddef>

namespace gte {

// Calls work(context, slot) once for slots 0 .. slot_count-1 at most: a slot that no thread had time to start is left
// out, slot 0 is always run, by the caller. The work of a run must therefore be drawn from a shared counter, not from
// the slot. Returns when every started call has returned. work must not throw.
void run_on_pool(size_t slot_count, void (*work)(void* context, size_t slot), void* context);

}  // namespace gte
