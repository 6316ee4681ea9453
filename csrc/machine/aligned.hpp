// Arrays that begin at a line of the cache, so that no register is loaded from two lines.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace gte {

template <typename T>
struct LineAllocator {
    using value_type = T;
    static constexpr std::align_val_t line{64};

    LineAllocator() = default;
    template <typename U>
    LineAllocator(const LineAllocator<U>&) {}

    T* allocate(size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), line)); }
    void deallocate(T* data, size_t) { ::operator delete(data, line); }

    template <typename U>
    bool operator==(const LineAllocator<U>&) const {
        return true;
    }
    template <typename U>
    bool operator!=(const LineAllocator<U>&) const {
        return false;
    }
};

template <typename T>
using Aligned = std::vector<T, LineAllocator<T>>;

}  // namespace gte
