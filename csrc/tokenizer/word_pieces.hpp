// BERT's tokenizer on ASCII text: what the Hugging Face tokenizers library gives for a BertNormalizer (after a cut at
// changes of case or without one), a BertPreTokenizer and a WordPiece model, without the offsets, words and strings
// that it makes along. Other text is left to that library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gte {

// A hash table from short strings to ids; the strings lie one after another in one buffer.
class PieceTable {
  public:
    void insert(std::string_view piece, int32_t id);
    // -1 for a string that is not in the table.
    int32_t find(const char* text, size_t length) const;
    size_t longest() const { return longest_; }

  private:
    struct Slot {
        uint32_t offset = 0, length = 0;
        int32_t id = -1;
    };

    static uint32_t hash(const char* text, size_t length);
    void grow();

    std::vector<Slot> slots_;
    std::string text_;
    size_t count_ = 0, longest_ = 0;
};

struct WordPieces {
    PieceTable first, further;          // pieces that begin a word, and those that go on with it, without their prefix
    std::vector<std::string> reserved;  // what stands for a token of its own wherever it is, such as [SEP]
    int32_t unknown = 0;
    size_t longest_word = 100;  // in characters; a longer word is unknown
    bool lowercase = true;
    bool split_case = false;  // whether identifiers are cut where their case changes: createdAt is two words
};

// Appends the ids of the text's tokens to `ids`, `room` of them at most, and returns how many tokens it has.
size_t encode_text(const WordPieces& pieces, std::string_view ascii, size_t room, std::vector<int32_t>& ids);

// Whether the text has one of the reserved strings.
bool has_reserved(const WordPieces& pieces, std::string_view text);

}  // namespace gte
