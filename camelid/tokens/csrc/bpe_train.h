// Learning a vocabulary: how often words come, and which pairs to merge. training/bpe_train.py says what, in plain Python.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pretokenize.h"

namespace camelid {

// Words and how often they came; words lie one after another in memory.
class WordCounter {
  public:
    WordCounter(std::vector<Match> stages, size_t longest) : stages_(std::move(stages)), longest_(longest) {}
    void add(Text p, size_t length);
    size_t size() const { return words_.size(); }
    std::vector<std::pair<std::string_view, uint64_t>> sorted() const;  // by bytes; valid until the next change
    void clear();

  private:
    struct Word {
        uint64_t hash, count;
        size_t start;
        uint32_t length;
    };
    void count(Text p, Text end);
    void grow();
    std::vector<Match> stages_;
    size_t longest_;
    std::string text_;
    std::vector<Word> words_;
    std::vector<uint32_t> table_ = std::vector<uint32_t>(1024);  // 1 + place in words_, 0 for none
};

struct BpeTraining {
    std::vector<uint32_t> symbols;      // of all words, one after another
    std::vector<uint64_t> starts;       // words + 1
    std::vector<int64_t> counts;        // of each word
    std::vector<uint32_t> lengths;      // of each symbol
    size_t n_merges, longest;           // how many to learn, and of how many characters at most
    int64_t min_count;                  // of a pair
};

// The pairs in the order in which they are merged. `on_progress` gets their number now and then.
std::vector<std::pair<uint32_t, uint32_t>> learn_merges(BpeTraining training, const std::function<void(size_t)>& on_progress);

}  // namespace camelid
