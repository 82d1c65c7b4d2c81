// The encoder and the training of merges as Python sees them; no other file knows Python.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "encoder.h"
#include "bpe_train.h"

namespace nb = nanobind;
using namespace camelid;

namespace {

template <class T>
using Array = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
template <class T>
using Input = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// UTF-8 of a str, kept by it; Python's UnicodeEncodeError for a lone surrogate.
std::string_view utf8(nb::handle text) {
    Py_ssize_t length;
    const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &length);
    if (!data) throw nb::python_error();
    return {data, (size_t)length};
}

// The same without leaving a copy in the str: vocabularies have many.
std::string copy_of(nb::handle text) {
    if (!PyUnicode_Check(text.ptr())) throw nb::type_error("a str was expected");
    if (PyUnicode_IS_COMPACT_ASCII(text.ptr())) return std::string(utf8(text));
    std::string out;
    const Py_ssize_t length = PyUnicode_GET_LENGTH(text.ptr());
    for (Py_ssize_t n = 0; n < length; n++) {
        const Py_UCS4 code = PyUnicode_READ_CHAR(text.ptr(), n);
        if (code < 0x80) {
            out += (char)code;
        } else if (code < 0x800) {
            out += {(char)(0xC0 | code >> 6), (char)(0x80 | (code & 0x3F))};
        } else if (code < 0x10000) {
            out += {(char)(0xE0 | code >> 12), (char)(0x80 | (code >> 6 & 0x3F)), (char)(0x80 | (code & 0x3F))};
        } else {
            out += {(char)(0xF0 | code >> 18), (char)(0x80 | (code >> 12 & 0x3F)), (char)(0x80 | (code >> 6 & 0x3F)),
                    (char)(0x80 | (code & 0x3F))};
        }
    }
    return out;
}

std::vector<Match> matches(const std::vector<std::string>& names) {
    std::vector<Match> found;
    for (const auto& name : names) {
        found.push_back(match_named(name));
        if (!found.back()) throw std::invalid_argument("no such expression: " + name);
    }
    return found;
}

// A piece in GPT-2's alphabet as the bytes that it stands for; false if it is not written in it. `alphabet`: code → byte.
bool unspell(const std::string& piece, const std::vector<int>& alphabet, std::string& bytes) {
    bytes.clear();
    for (Text p = (Text)piece.data(), end = p + piece.size(); p < end; p += length_at(p)) {
        const uint32_t code = code_at(p, length_at(p));
        if (code >= alphabet.size() || alphabet[code] < 0) return false;
        bytes += (char)alphabet[code];
    }
    return true;
}

void make_encoder(Encoder* self, nb::dict ids, nb::list merges, const std::vector<std::string>& stages,
                  const std::vector<int>& alphabet, bool whole_words) {
    std::unordered_map<std::string, uint32_t> known;
    std::vector<std::pair<std::string, uint32_t>> words;
    std::string bytes;
    known.reserve(ids.size());
    for (auto [piece, id] : ids) {
        std::string text = copy_of(piece);
        const uint32_t number = nb::cast<uint32_t>(id);
        if (alphabet.empty())
            words.emplace_back(text, number);
        else if (unspell(text, alphabet, bytes))
            words.emplace_back(bytes, number);
        known.emplace(std::move(text), number);
    }
    std::vector<Encoder::Merge> pairs;
    pairs.reserve(merges.size());
    const auto id_of = [&](const std::string& piece) {
        const auto found = known.find(piece);
        if (found == known.end()) throw std::invalid_argument("a merge of pieces that are not there");
        return found->second;
    };
    for (nb::handle merge : merges) {
        const std::string left = copy_of(merge[0]), right = copy_of(merge[1]);
        pairs.push_back({id_of(left), id_of(right), id_of(left + right)});
    }
    new (self) Encoder(matches(stages), words, pairs, whole_words);
}

nb::list to_list(const std::vector<uint32_t>& ids) {
    PyObject* list = PyList_New((Py_ssize_t)ids.size());
    if (!list) throw nb::python_error();
    for (size_t n = 0; n < ids.size(); n++) PyList_SET_ITEM(list, (Py_ssize_t)n, PyLong_FromUnsignedLong(ids[n]));
    return nb::steal<nb::list>(list);
}

nb::list encode(Encoder& self, nb::str text) {
    const std::string_view data = utf8(text);
    std::vector<uint32_t> ids;
    {
        nb::gil_scoped_release release;
        ids.reserve(data.size() / 3 + 16);
        self.encode((Text)data.data(), data.size(), ids);
    }
    return to_list(ids);
}

uint64_t count_steps(Encoder& self, nb::str text) {
    const std::string_view data = utf8(text);
    std::vector<uint32_t> ids;
    uint64_t steps = 0;
    self.encode((Text)data.data(), data.size(), ids, &steps);
    return steps;
}

template <class T>
Array<T> owned(std::vector<T> values) {
    auto* array = new std::vector<T>(std::move(values));
    nb::capsule owner(array, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return Array<T>(array->data(), {array->size()}, owner);
}

// The ids of all texts, one after another, and where each begins. They are held in a tuple, so that nobody changes it meanwhile.
nb::tuple encode_batch(Encoder& self, nb::sequence given, bool small) {
    const nb::tuple texts(given);
    std::vector<std::string_view> data;
    for (nb::handle text : texts) data.push_back(utf8(text));
    std::vector<uint32_t> ids;
    std::vector<uint16_t> narrow;
    std::vector<int64_t> starts{0};
    {
        nb::gil_scoped_release release;
        for (const std::string_view utf8_text : data) {
            self.encode((Text)utf8_text.data(), utf8_text.size(), ids);
            starts.push_back((int64_t)ids.size());
        }
        if (small) narrow.assign(ids.begin(), ids.end());
    }
    if (small) return nb::make_tuple(owned(std::move(narrow)), owned(std::move(starts)));
    return nb::make_tuple(owned(std::move(ids)), owned(std::move(starts)));
}

nb::list cut_text(const std::vector<std::string>& names, nb::str text) {
    const std::vector<Match> stages = matches(names);
    const std::string_view data = utf8(text);
    nb::list words;
    uint64_t steps = 0;
    cut(stages.data(), stages.data() + stages.size(), (Text)data.data(), (Text)data.data() + data.size(), steps,
        [&](Text from, Text to) { words.append(nb::str((const char*)from, to - from)); });
    return words;
}

nb::list take_words(WordCounter& self) {
    nb::list words;
    for (const auto& [word, count] : self.sorted())
        words.append(nb::make_tuple(nb::bytes(word.data(), word.size()), count));
    self.clear();
    return words;
}

nb::list learn(Input<uint32_t> symbols, Input<uint64_t> starts, Input<int64_t> counts, Input<uint32_t> lengths,
               size_t n_merges, size_t longest, int64_t min_count, nb::object progress) {
    const auto copy = [](const auto& array) { return std::vector(array.data(), array.data() + array.size()); };
    BpeTraining training{copy(symbols), copy(starts), copy(counts), copy(lengths), n_merges, longest, min_count};
    if (training.starts.size() != training.counts.size() + 1 || training.starts.front() != 0 ||
        training.starts.back() != training.symbols.size())
        throw std::invalid_argument("starts: not those of the words");
    for (size_t n = 0; n < training.counts.size(); n++)
        if (training.starts[n] > training.starts[n + 1]) throw std::invalid_argument("starts: not in order");
    for (const uint32_t symbol : training.symbols)
        if (symbol >= training.lengths.size()) throw std::invalid_argument("symbols: no such symbol");
    std::vector<std::pair<uint32_t, uint32_t>> merges;
    const auto on_progress = [&](size_t done) {
        nb::gil_scoped_acquire acquire;
        if (PyErr_CheckSignals()) throw nb::python_error();
        if (!progress.is_none()) progress(done);
    };
    {
        nb::gil_scoped_release release;
        merges = learn_merges(std::move(training), on_progress);
    }
    nb::list pairs;
    for (const auto& [left, right] : merges) pairs.append(nb::make_tuple(left, right));
    return pairs;
}

}  // namespace

NB_MODULE(_bpe, m) {
    nb::set_leak_warnings(false);  // tokenizers that live as long as the interpreter are no leak
    nb::class_<Encoder>(m, "Encoder")
        .def("__init__", &make_encoder, nb::kw_only(), nb::arg("ids"), nb::arg("merges"), nb::arg("stages"),
             nb::arg("alphabet"), nb::arg("whole_words"))
        .def("encode", &encode)
        .def("encode_batch", &encode_batch, nb::arg("texts"), nb::arg("small"))
        .def("count_steps", &count_steps);
    nb::class_<WordCounter>(m, "WordCounter")
        .def("__init__",
             [](WordCounter* self, const std::vector<std::string>& stages, size_t longest) {
                 new (self) WordCounter(matches(stages), longest);
             })
        .def("add",
             [](WordCounter& self, nb::str text) {
                 const std::string_view data = utf8(text);
                 self.add((Text)data.data(), data.size());
             })
        .def("take", &take_words)
        .def("__len__", &WordCounter::size);
    m.def("cut", &cut_text);
    m.def("learn_merges", &learn, nb::arg("symbols"), nb::arg("starts"), nb::arg("counts"), nb::arg("lengths"),
          nb::arg("n_merges"), nb::arg("longest"), nb::arg("min_count"), nb::arg("progress").none());
}
