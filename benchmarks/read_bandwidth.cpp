// Readers of memory for benchmarks/search.py: each line of the standard input reads an array once in every way that is
// known here, and prints the milliseconds of the fastest as JSON.
// c++ -O3 -march=native -pthread read_bandwidth.cpp; arguments: threads, bytes.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

// The compiler turns the inner loop into vectors of the machine's width.
template <size_t lanes, size_t bytes_ahead>
uint64_t sum(const uint64_t* word, const uint64_t* end) {
    uint64_t sums[lanes] = {};
    for (; word != end; word += lanes) {
        if (bytes_ahead > 0) {
            for (size_t byte = 0; byte < lanes * 8; byte += 64) {
                __builtin_prefetch(reinterpret_cast<const char*>(word) + bytes_ahead + byte);
            }
        }
        for (size_t lane = 0; lane < lanes; ++lane) {
            sums[lane] += word[lane];
        }
    }
    uint64_t total = 0;
    for (const uint64_t lane : sums) {
        total += lane;
    }
    return total;
}

using Sum = uint64_t (*)(const uint64_t* word, const uint64_t* end);
constexpr Sum ways[] = {sum<32, 0>, sum<64, 0>, sum<32, 1024>, sum<32, 4096>, sum<64, 8192>};

double milliseconds(Sum way, const std::vector<uint64_t>& words, size_t thread_count, std::vector<uint64_t>& sums) {
    const size_t share = words.size() / thread_count;
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> threads;
    for (size_t t = 0; t < thread_count; ++t) {
        threads.emplace_back([&, t] { sums[t] += way(words.data() + t * share, words.data() + (t + 1) * share); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    return elapsed.count();
}

}  // namespace

int main(int, char** arguments) {
    const size_t thread_count = std::strtoul(arguments[1], nullptr, 10);
    const size_t share = std::strtoul(arguments[2], nullptr, 10) / 8 / thread_count / 64 * 64;
    const std::vector<uint64_t> words(share * thread_count, 3);
    std::vector<uint64_t> sums(thread_count);
    std::printf("{\"ready\": true}\n");
    std::fflush(stdout);
    char line[256];
    while (std::fgets(line, sizeof line, stdin) != nullptr) {
        double best = 1e9;
        for (const Sum way : ways) {
            best = std::min(best, milliseconds(way, words, thread_count, sums));
        }
        std::printf("{\"milliseconds\": %.4f, \"extra_megabytes\": 0}\n", best);
        std::fflush(stdout);
    }
    return sums[0] == 1;
}
