// The kernels against plain double arithmetic, without Python: what an emulator of another CPU and the thread sanitizer
// run. The tests beside this file say more; this one needs a compiler only. Prints each failure and ends with their
// count.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "encoder/pool.hpp"
#include "machine/fused.hpp"
#include "machine/half.hpp"
#include "search/checksum.hpp"
#include "search/kernels/kernels.hpp"
#include "search/row_types.hpp"
#include "search/topk.hpp"

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

int failures = 0;
int checks = 0;

void check(bool holds, const std::string& what) {
    ++checks;
    if (!holds) {
        ++failures;
        std::printf("FAILED %s\n", what.c_str());
    }
}

std::vector<float> random_values(unsigned seed, size_t count) {
    std::mt19937 generator(seed);
    std::vector<float> values(count);
    for (float& value : values) {
        value = static_cast<float>(static_cast<int>(generator() % 2001) - 1000) / 64.0f;
    }
    return values;
}

struct Stored {
    gte::RowType type;
    size_t dim;
    size_t count;
    std::vector<char> rows;
    std::vector<float> scales;

    gte::Rows view() const {
        gte::Rows view;
        view.type = type;
        view.data = rows.data();
        view.row_stride = static_cast<ptrdiff_t>(gte::row_words(type, dim) * 4);
        view.dim = dim;
        view.scales = scales.data();
        view.count = count;
        view.stored_count = count;
        return view;
    }
};

Stored store(gte::RowType type, const std::vector<float>& values, size_t count, size_t dim) {
    Stored stored{type, dim, count, std::vector<char>(count * gte::row_words(type, dim) * 4),
                  std::vector<float>(count)};
    gte::encode_rows(type, values.data(), count, dim, stored.rows.data(), stored.scales.data());
    return stored;
}

std::vector<double> stored_values(gte::RowType type, const char* row, size_t dim) {
    std::vector<double> values(dim);
    for (size_t i = 0; i < dim; ++i) {
        float single;
        uint16_t half;
        uint32_t word;
        switch (type) {
            case gte::RowType::float32:
                std::memcpy(&single, row + 4 * i, 4);
                values[i] = single;
                break;
            case gte::RowType::float16:
                std::memcpy(&half, row + 2 * i, 2);
                values[i] = std::ldexp(half & 0x3ff, -24);
                if (((half >> 10) & 0x1f) != 0) {
                    values[i] = std::ldexp((half & 0x3ff) + 1024, ((half >> 10) & 0x1f) - 25);
                }
                values[i] = (half & 0x8000) ? -values[i] : values[i];
                break;
            case gte::RowType::int8:
                values[i] = static_cast<signed char>(row[i]);
                break;
            case gte::RowType::binary:
                std::memcpy(&word, row + i / 32 * 4, 4);
                values[i] = (word >> (i % 32)) & 1 ? -1 : 1;
                break;
        }
    }
    return values;
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
    double dot = 0, a_square = 0, b_square = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        dot += a[i] * b[i];
        a_square += a[i] * a[i];
        b_square += b[i] * b[i];
    }
    return dot / std::sqrt(a_square * b_square);
}

struct Found {
    std::vector<float> scores;
    std::vector<int64_t> indices;
};

bool equal(const Found& a, const Found& b) {
    return a.indices == b.indices && std::memcmp(a.scores.data(), b.scores.data(), 4 * a.scores.size()) == 0;
}

Found find(const gte::Kernels& kernels, const gte::Rows& rows, const std::vector<float>& queries, size_t query_count,
           size_t k, size_t threads) {
    Found found{std::vector<float>(query_count * k), std::vector<int64_t>(query_count * k)};
    gte::Stop stop;
    const int64_t bad_row = gte::search(kernels, rows, queries.data(), query_count, k, threads, stop,
                                        found.scores.data(), found.indices.data());
    check(bad_row == -1, "no bad row");
    return found;
}

// Every row of every query against double; then the same bits with other threads, and one query alone.
void check_search(const gte::Kernels& kernels, gte::RowType type, size_t dim, size_t count, Found* reference) {
    const size_t query_count = 14;
    const std::string name = std::string(kernels.name) + " type " + std::to_string(static_cast<int>(type)) + " dim " +
                             std::to_string(dim) + " rows " + std::to_string(count);
    const std::vector<float> queries = random_values(1, query_count * dim);
    const Stored stored = store(type, random_values(2, count * dim), count, dim);
    const Found all = find(kernels, stored.view(), queries, query_count, count, 1);
    const gte::RowType query_type = type == gte::RowType::float16 ? gte::RowType::float32 : type;
    const Stored encoded_queries = store(query_type, queries, query_count, dim);
    const size_t row_bytes = gte::row_words(type, dim) * 4, query_bytes = gte::row_words(query_type, dim) * 4;
    for (size_t query = 0; query < query_count; ++query) {
        const auto query_values = stored_values(query_type, encoded_queries.rows.data() + query * query_bytes, dim);
        bool right = true, ordered = true;
        for (size_t i = 0; i < count; ++i) {
            const size_t place = query * count + i;
            const auto row = stored_values(type, stored.rows.data() + all.indices[place] * row_bytes, dim);
            right = right && std::fabs(cosine(query_values, row) - all.scores[place]) < 3e-6;
            ordered = ordered &&
                      (i == 0 || all.scores[place - 1] > all.scores[place] ||
                       (all.scores[place - 1] == all.scores[place] && all.indices[place - 1] < all.indices[place]));
        }
        check(right, name + ": scores of query " + std::to_string(query));
        check(ordered, name + ": order of query " + std::to_string(query));
    }
    check(equal(all, find(kernels, stored.view(), queries, query_count, count, 4)), name + ": four threads");
    const std::vector<float> last(queries.end() - static_cast<ptrdiff_t>(dim), queries.end());
    const Found alone = find(kernels, stored.view(), last, 1, count, 1);
    check(std::equal(alone.indices.begin(), alone.indices.end(), all.indices.end() - static_cast<ptrdiff_t>(count)),
          name + ": one query alone");
    const bool exact_in_every_set = type == gte::RowType::int8 || type == gte::RowType::binary;
    if (exact_in_every_set && !reference->indices.empty()) {
        check(equal(all, *reference), name + ": the bits of the scalar kernels");
    }
    if (reference->indices.empty()) {
        *reference = all;
    }
}

// One query rules panels out before they are scored; a batch scores every row.
void check_one_query(const gte::Kernels& kernels) {
    const size_t count = 1500, query_count = 3;
    for (const gte::RowType type : {gte::RowType::float32, gte::RowType::float16}) {
        for (const size_t dim : {3, 16, 100, 131}) {
            const std::vector<float> queries = random_values(8, query_count * dim);
            std::vector<float> values = random_values(9, count * dim);
            // Half of the rows differ from the first query by little more than rounding.
            for (size_t i = 0; i < values.size() / 2; ++i) {
                values[i] = queries[i % dim] + values[i] * 1e-6f;
            }
            const Stored stored = store(type, values, count, dim);
            for (const size_t k : {1, 5, 60}) {
                const Found all = find(kernels, stored.view(), queries, query_count, k, 1);
                for (size_t query = 0; query < query_count; ++query) {
                    const auto first = queries.begin() + static_cast<ptrdiff_t>(query * dim);
                    const std::vector<float> one(first, first + static_cast<ptrdiff_t>(dim));
                    const Found alone = find(kernels, stored.view(), one, 1, k, 1);
                    const auto place = static_cast<ptrdiff_t>(query * k);
                    check(std::equal(alone.indices.begin(), alone.indices.end(), all.indices.begin() + place) &&
                              std::memcmp(alone.scores.data(), all.scores.data() + place, 4 * k) == 0,
                          std::string(kernels.name) + ": a query alone, dim " + std::to_string(dim) + " k " +
                              std::to_string(k));
                }
            }
        }
    }
}

void check_many_callers(const gte::Kernels& kernels) {
    const size_t dim = 96, count = 20000, k = 9;
    const std::vector<float> queries = random_values(3, 8 * dim);
    for (const gte::RowType type : {gte::RowType::float32, gte::RowType::int8}) {
        const Stored stored = store(type, random_values(4, count * dim), count, dim);
        const Found expected = find(kernels, stored.view(), queries, 8, k, 1);
        std::vector<Found> found(8);
        std::vector<std::thread> callers;
        for (size_t caller = 0; caller < found.size(); ++caller) {
            callers.emplace_back([&, caller] {
                for (int turn = 0; turn < 5; ++turn) {
                    Found result{std::vector<float>(8 * k), std::vector<int64_t>(8 * k)};
                    gte::Stop stop;
                    gte::search(kernels, stored.view(), queries.data(), 8, k, 1 + caller % 4, stop,
                                result.scores.data(), result.indices.data());
                    found[caller] = result;
                }
            });
        }
        for (std::thread& caller : callers) {
            caller.join();
        }
        for (const Found& result : found) {
            check(equal(result, expected), "eight callers at once");
        }
    }
}

void check_candidates(const gte::Kernels& kernels) {
    const size_t dim = 40, count = 500, query_count = 9, k = 4;
    const std::vector<float> queries = random_values(5, query_count * dim);
    const Stored stored = store(gte::RowType::float32, random_values(6, count * dim), count, dim);
    std::vector<uint32_t> candidates;
    for (size_t query = 0; query < query_count; ++query) {
        for (uint32_t i = 0; i < 50; ++i) {
            candidates.push_back(static_cast<uint32_t>(query) + 9 * i);
        }
    }
    Found found{std::vector<float>(query_count * k), std::vector<int64_t>(query_count * k)};
    gte::Stop stop;
    gte::search_candidates(kernels, stored.view(), queries.data(), query_count, candidates.data(), 50, k, 3, stop,
                           found.scores.data(), found.indices.data());
    for (size_t query = 0; query < query_count; ++query) {
        gte::Rows rows = stored.view();
        rows.selected = candidates.data() + 50 * query;
        rows.count = 50;
        const std::vector<float> one(queries.begin() + static_cast<ptrdiff_t>(query * dim),
                                     queries.begin() + static_cast<ptrdiff_t>((query + 1) * dim));
        const Found alone = find(kernels, rows, one, 1, k, 1);
        check(std::equal(alone.indices.begin(), alone.indices.end(),
                         found.indices.begin() + static_cast<ptrdiff_t>(query * k)),
              "candidates of query " + std::to_string(query));
    }
}

void check_the_rest() {
    check(gte::crc32c(0, "123456789", 9) == 0xe3069283u, "CRC-32C of the standard's example");
    const std::vector<float> bytes = random_values(7, 1000);
    for (size_t length : {0, 1, 7, 8, 9, 63, 3999}) {
        check(gte::crc32c(5, bytes.data(), length) == gte::crc32c_portable(5, bytes.data(), length), "CRC-32C table");
    }
    const std::vector<float> tokens = {1, 2, 3, 4, 5, 9};
    const std::vector<int64_t> mask = {1, 0, 1};
    float mean[2];
    gte::mean_pool(tokens.data(), mask.data(), 1, 3, 2, mean);
    check(mean[0] == 3 && mean[1] == 5.5f, "mean pooling");
    float row[2] = {3, 4};
    gte::normalize_rows(row, 1, 2, row);
    check(row[0] == 0.6f && row[1] == 0.8f, "unit length in place");
    bool halves_return = true;
    for (uint32_t half = 0; half < 0x7c00; ++half) {
        halves_return =
            halves_return && gte::half_from_float(gte::float_from_half(static_cast<uint16_t>(half))) == half;
    }
    check(halves_return, "halves survive the way to float and back");
}

void check_fused_multiply_add() {
    // Rounded to double first, these sums would lie between two floats.
    check(gte::fused_multiply_add(0x1.000002p0f, 0x1.000002p0f, 0x1p-47f) == 0x1.000004p0f, "a product and a little");
    check(gte::fused_multiply_add(0x1.8p0f, 0x1.000002p-1f, 0x1p-80f) == 0x1.800004p-1f, "just above a tie");
    check(gte::fused_multiply_add(0x1.8p0f, 0x1.000002p-1f, -0x1p-80f) == 0x1.800002p-1f, "just below a tie");
    check(gte::fused_multiply_add(0x1p-75f, 0x1p-75f, 0x1p-149f) == 0x1p-148f, "a tie between two of the least floats");
    check(std::isinf(gte::fused_multiply_add(0x1p100f, 0x1p100f, -1.0f)), "above the greatest float");
#if !defined(_WIN32)  // whose libraries differ
    std::mt19937 generator(1);
    const auto any_float = [&generator] {
        const uint32_t bits = static_cast<uint32_t>(generator());
        float value;
        std::memcpy(&value, &bits, sizeof value);
        return value;
    };
    bool equal = true;
    for (int i = 0; i < 1000000; ++i) {
        const float a = any_float(), b = any_float(), c = i % 2 ? any_float() : -a * b;
        const float found = gte::fused_multiply_add(a, b, c), expected = std::fma(a, b, c);
        equal =
            equal && (std::memcmp(&found, &expected, sizeof found) == 0 || (found != found && expected != expected));
    }
    check(equal, "fused multiply-add of any bits");
#endif
}

#if !defined(_WIN32)
void check_fork(const gte::Kernels& kernels) {
    const pid_t child = fork();
    if (child == 0) {
        failures = 0;
        check_many_callers(kernels);
        _exit(failures == 0 ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    check(status == 0, "a forked child searches with threads of its own");
}
#endif

}  // namespace

int main(int argument_count, char** arguments) {
    std::string names;
    for (const size_t dim : {1, 7, 31, 129, 384}) {
        for (const gte::RowType type :
             {gte::RowType::float32, gte::RowType::float16, gte::RowType::int8, gte::RowType::binary}) {
            for (const size_t count : {1, 33, 200}) {
                Found reference;
                for (const gte::Kernels& kernels : gte::available_kernels()) {
                    check_search(kernels, type, dim, count, &reference);
                }
            }
        }
    }
    for (const gte::Kernels& kernels : gte::available_kernels()) {
        names += std::string(" ") + kernels.name;
        check_many_callers(kernels);
        check_candidates(kernels);
        check_one_query(kernels);
    }
    check_the_rest();
    check_fused_multiply_add();
    // The thread sanitizer and emulators do not follow a fork of a process with threads.
    const bool forks = argument_count < 2 || std::strcmp(arguments[1], "--no-fork") != 0;
#if defined(_WIN32)
    static_cast<void>(forks);  // Windows has no fork
#else
    if (forks) {
        check_fork(*gte::find_kernels(""));
    }
#endif
    std::printf("%d checks, %d failures, kernels:%s\n", checks, failures, names.c_str());
    return failures == 0 ? 0 : 1;
}
