// Read bandwidth of memory in GB/s: the best of several passes in which each thread sums its share of one array.
// c++ -O3 -pthread read_bandwidth.cpp; arguments: threads, megabytes.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

int main(int, char** arguments) {
    const size_t thread_count = std::strtoul(arguments[1], nullptr, 10);
    const size_t share = std::strtoul(arguments[2], nullptr, 10) * (1 << 20) / 8 / thread_count / 32 * 32;
    const std::vector<uint64_t> words(share * thread_count, 3);
    std::vector<uint64_t> sums(thread_count * 64);
    double best_seconds = 1e9;
    for (int pass = 0; pass < 12; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<std::thread> threads;
        for (size_t t = 0; t < thread_count; ++t) {
            threads.emplace_back([&, t] {
                uint64_t lanes[32] = {};
                for (const uint64_t *word = words.data() + t * share, *end = word + share; word != end; word += 32) {
                    for (size_t lane = 0; lane < 32; ++lane) {
                        lanes[lane] += word[lane];
                    }
                }
                for (const uint64_t lane : lanes) {
                    sums[t * 64] += lane;
                }
            });
        }
        for (std::thread& thread : threads) {
            thread.join();
        }
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        best_seconds = std::min(best_seconds, elapsed.count());
    }
    std::printf("%.2f\n", static_cast<double>(share * thread_count * 8) / best_seconds / 1e9);
    return sums[0] == 0;
}
