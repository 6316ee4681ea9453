#include "tokenizer/word_pieces.hpp"

#include <algorithm>
#include <cstring>

namespace gte {
namespace {

constexpr bool is_digit(unsigned char c) { return c >= '0' && c <= '9'; }
constexpr bool is_capital(unsigned char c) { return c >= 'A' && c <= 'Z'; }
constexpr bool is_small(unsigned char c) { return c >= 'a' && c <= 'z'; }

enum class Kind : uint8_t { dropped, space, punctuation, letter };

// As BertNormalizer and BertPreTokenizer see ASCII: control characters vanish, white space and punctuation end a word,
// and each punctuation mark is a word.
Kind kind_of(unsigned char c) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        return Kind::space;
    }
    if (c < 0x20 || c == 0x7f) {
        return Kind::dropped;
    }
    return is_digit(c) || is_capital(c) || is_small(c) ? Kind::letter : Kind::punctuation;
}

// CASE_BOUNDARY of gte_sdk/runtime/word_pieces.py: before the A of createdAt and before the S of HTTPServer.
bool at_case_boundary(std::string_view text, size_t i) {
    if (i == 0 || !is_capital(text[i])) {
        return false;
    }
    const char before = text[i - 1];
    return is_small(before) || is_digit(before) ||
           (is_capital(before) && i + 2 < text.size() && is_small(text[i + 1]) && is_small(text[i + 2]));
}

struct Kinds {
    Kind of[128];

    Kinds() {
        for (unsigned char c = 0; c < 128; ++c) {
            of[c] = kind_of(c);
        }
    }
};

}  // namespace

uint32_t PieceTable::hash(const char* text, size_t length) {
    uint32_t value = 2166136261u;  // FNV-1a
    for (size_t i = 0; i < length; ++i) {
        value = (value ^ static_cast<unsigned char>(text[i])) * 16777619u;
    }
    return value ^ (value >> 15);
}

void PieceTable::insert(std::string_view piece, int32_t id) {
    if (2 * (count_ + 1) > slots_.size()) {
        grow();
    }
    size_t place = hash(piece.data(), piece.size()) & (slots_.size() - 1);
    while (slots_[place].id >= 0) {
        place = (place + 1) & (slots_.size() - 1);
    }
    slots_[place] = {static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(piece.size()), id};
    text_ += piece;
    ++count_;
    longest_ = std::max(longest_, piece.size());
}

void PieceTable::grow() {
    std::vector<Slot> old(slots_.empty() ? 1024 : 2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
        if (slot.id >= 0) {
            size_t place = hash(text_.data() + slot.offset, slot.length) & (slots_.size() - 1);
            while (slots_[place].id >= 0) {
                place = (place + 1) & (slots_.size() - 1);
            }
            slots_[place] = slot;
        }
    }
}

int32_t PieceTable::find(const char* text, size_t length) const {
    if (slots_.empty()) {
        return -1;
    }
    for (size_t place = hash(text, length) & (slots_.size() - 1);; place = (place + 1) & (slots_.size() - 1)) {
        const Slot& slot = slots_[place];
        if (slot.id < 0 || (slot.length == length && std::memcmp(text_.data() + slot.offset, text, length) == 0)) {
            return slot.id;
        }
    }
}

size_t encode_text(const WordPieces& pieces, std::string_view ascii, size_t room, std::vector<int32_t>& ids) {
    static const Kinds kinds;
    std::vector<int32_t> word_ids;
    std::string word;
    size_t token_count = 0;

    const auto add = [&](int32_t id) {
        if (token_count++ < room) {
            ids.push_back(id);
        }
    };
    // The longest piece that the word begins with, then the longest that the rest begins with; a word of which a part
    // is no piece is unknown as a whole.
    const auto end_word = [&] {
        if (word.empty()) {
            return;
        }
        word_ids.clear();
        size_t start = word.size() > pieces.longest_word ? word.size() + 1 : 0;
        while (start < word.size()) {
            const PieceTable& table = start == 0 ? pieces.first : pieces.further;
            size_t length = std::min(word.size() - start, table.longest());
            int32_t id = -1;
            for (; length > 0 && (id = table.find(word.data() + start, length)) < 0; --length) {
            }
            if (length == 0) {
                start = word.size() + 1;
                break;
            }
            word_ids.push_back(id);
            start += length;
        }
        if (start > word.size()) {
            add(pieces.unknown);
        } else {
            for (const int32_t id : word_ids) {
                add(id);
            }
        }
        word.clear();
    };

    for (size_t i = 0; i < ascii.size(); ++i) {
        const char c = ascii[i];
        if (pieces.split_case && at_case_boundary(ascii, i)) {
            end_word();
        }
        switch (kinds.of[static_cast<unsigned char>(c)]) {
            case Kind::dropped:
                break;
            case Kind::space:
                end_word();
                break;
            case Kind::punctuation:
                end_word();
                word.push_back(c);
                end_word();
                break;
            case Kind::letter:
                if (word.size() <= pieces.longest_word) {  // a longer one is unknown, however long it is
                    word.push_back(pieces.lowercase && is_capital(c) ? static_cast<char>(c + ('a' - 'A')) : c);
                }
                break;
        }
    }
    end_word();
    return token_count;
}

bool has_reserved(const WordPieces& pieces, std::string_view text) {
    return std::any_of(pieces.reserved.begin(), pieces.reserved.end(),
                       [&](const std::string& reserved) { return text.find(reserved) != std::string_view::npos; });
}

}  // namespace gte
