#include "bindings/tokenizer.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "bindings/checks.hpp"
#include "machine/thread_pool.hpp"
#include "tokenizer/word_pieces.hpp"

namespace py = pybind11;

namespace {

struct Encoded {
    std::vector<int32_t> ids;
    size_t token_count = 0;
    bool covered = false;
};

struct Work {
    const gte::WordPieces& pieces;
    const std::vector<std::string_view>& texts;
    std::vector<Encoded>& encoded;
    size_t room;
    gte::Stop& stop;
    std::atomic<size_t> next{0};
    std::atomic<bool> out_of_memory{false};
};

constexpr size_t texts_at_a_time = 32;

void encode_texts(void* context, size_t slot) {
    Work& work = *static_cast<Work*>(context);
    try {
        for (size_t first;
             (first = work.next.fetch_add(texts_at_a_time)) < work.texts.size() && !work.stop.stopped();) {
            for (size_t i = first; i < std::min(first + texts_at_a_time, work.texts.size()); ++i) {
                Encoded& encoded = work.encoded[i];
                encoded.covered = work.texts[i].data() != nullptr && !gte::has_reserved(work.pieces, work.texts[i]);
                if (encoded.covered) {
                    encoded.token_count = gte::encode_text(work.pieces, work.texts[i], work.room, encoded.ids);
                }
            }
            if (slot == 0) {
                work.stop.poll();
            }
        }
    } catch (const std::exception&) {  // bad_alloc, or length_error from a vector
        work.out_of_memory = true;
    }
}

class WordPieces {
  public:
    WordPieces(const py::dict& vocabulary, const std::string& prefix, const std::string& unknown, size_t longest_word,
               bool lowercase, bool split_case, std::vector<std::string> reserved) {
        for (const auto& [key, value] : vocabulary) {
            if (!PyUnicode_IS_COMPACT_ASCII(key.ptr())) {
                continue;  // never part of an ASCII text
            }
            const std::string_view piece = ascii_of(key.ptr());
            const int32_t id = token_id(value);
            pieces_.first.insert(piece, id);
            if (piece.size() > prefix.size() && piece.substr(0, prefix.size()) == prefix) {
                pieces_.further.insert(piece.substr(prefix.size()), id);
            }
        }
        require(vocabulary.contains(unknown), "the unknown token is not in the vocabulary");
        pieces_.unknown = token_id(vocabulary[py::str(unknown)]);
        pieces_.longest_word = longest_word;
        pieces_.lowercase = lowercase;
        pieces_.split_case = split_case;
        pieces_.reserved = std::move(reserved);
    }

    // A list of the ids of each text, None for a text that is not covered, and a list of how many tokens each has.
    py::tuple encode(const py::list& texts, size_t room, size_t threads) const {
        const py::tuple kept(texts);  // whatever another thread does with the list meanwhile
        std::vector<std::string_view> views;
        views.reserve(kept.size());
        for (const py::handle text : kept) {
            if (!PyUnicode_Check(text.ptr())) {
                throw py::type_error("texts must be str");
            }
            views.push_back(PyUnicode_IS_COMPACT_ASCII(text.ptr()) ? ascii_of(text.ptr()) : std::string_view());
        }
        std::vector<Encoded> encoded(views.size());
        gte::Stop stop(signal_raised);
        {
            const py::gil_scoped_release release;
            Work work{pieces_, views, encoded, room, stop};
            gte::run_on_pool(std::min(checked_threads(threads), (views.size() + texts_at_a_time - 1) / texts_at_a_time),
                             encode_texts, &work);
            if (work.out_of_memory) {
                throw std::bad_alloc();
            }
        }
        raise_if_stopped(stop);
        py::list ids(views.size()), counts(views.size());
        for (size_t i = 0; i < views.size(); ++i) {
            ids[i] = encoded[i].covered ? py::object(py::cast(encoded[i].ids)) : py::object(py::none());
            counts[i] = encoded[i].token_count;
        }
        return py::make_tuple(ids, counts);
    }

  private:
    // Of an int itself: one that runs Python to become an int might change the vocabulary that is being read.
    static int32_t token_id(const py::handle value) {
        require(PyLong_CheckExact(value.ptr()), "the ids of a vocabulary must be int");
        int overflow = 0;
        const long id = PyLong_AsLongAndOverflow(value.ptr(), &overflow);
        require(overflow == 0 && id >= 0 && id <= INT32_MAX, "the ids of a vocabulary must be in 0 .. 2^31 - 1");
        return static_cast<int32_t>(id);
    }

    static std::string_view ascii_of(PyObject* text) {
        return {static_cast<const char*>(PyUnicode_DATA(text)), static_cast<size_t>(PyUnicode_GET_LENGTH(text))};
    }

    gte::WordPieces pieces_;
};

}  // namespace

void bind_tokenizer(py::module_& module) {
    py::class_<WordPieces>(module, "WordPieces")
        .def(py::init<const py::dict&, const std::string&, const std::string&, size_t, bool, bool,
                      std::vector<std::string>>(),
             py::arg("vocabulary"), py::arg("prefix"), py::arg("unknown"), py::arg("longest_word"),
             py::arg("lowercase"), py::arg("split_case"), py::arg("reserved"))
        .def("encode", &WordPieces::encode, py::arg("texts"), py::arg("room"), py::arg("threads"));
}
