#include "bpe_train.h"

#include <algorithm>
#include <queue>
#include <unordered_map>

namespace camelid {
namespace {

using Pair = uint64_t;

Pair pair_of(uint32_t left, uint32_t right) { return (Pair)left << 32 | right; }

struct PairHash {
    size_t operator()(Pair pair) const { return (pair * 0x9E3779B97F4A7C15ull) ^ (pair >> 29); }
};

struct PairCount {
    int64_t total = 0;
    std::vector<uint32_t> words;  // in which it has been seen; one may come twice
};

struct Candidate {
    int64_t total;
    Pair pair;
    bool operator<(const Candidate& other) const {
        return total != other.total ? total < other.total : pair > other.pair;
    }
};

// A word's symbols with each left and right, from the left, merged into `merged_id`; returns how many symbols that are.
uint32_t merge(const uint32_t* symbols, uint32_t size, uint32_t left, uint32_t right, uint32_t merged_id,
               std::vector<uint32_t>& out) {
    out.clear();
    for (uint32_t at = 0; at < size;) {
        const bool is_pair = at + 1 < size && symbols[at] == left && symbols[at + 1] == right;
        out.push_back(is_pair ? merged_id : symbols[at]);
        at += is_pair ? 2 : 1;
    }
    return (uint32_t)out.size();
}

}  // namespace

void WordCounter::add(Text p, size_t length) {
    uint64_t steps = 0;
    cut(stages_.data(), stages_.data() + stages_.size(), p, p + length, steps, [this](Text from, Text to) { count(from, to); });
}

void WordCounter::count(Text p, Text end) {
    const size_t length = end - p;
    if (length > longest_) return;
    const std::string_view word((const char*)p, length);
    const uint64_t hash = std::hash<std::string_view>{}(word);
    for (size_t at = hash & (table_.size() - 1);; at = (at + 1) & (table_.size() - 1)) {
        if (!table_[at]) {
            words_.push_back({hash, 1, text_.size(), (uint32_t)length});
            text_.append(word);
            table_[at] = (uint32_t)words_.size();
            if (words_.size() * 2 > table_.size()) grow();
            return;
        }
        Word& entry = words_[table_[at] - 1];
        if (entry.hash == hash && word == std::string_view(text_).substr(entry.start, entry.length)) {
            entry.count++;
            return;
        }
    }
}

void WordCounter::grow() {
    table_.assign(table_.size() * 2, 0);
    for (size_t n = 0; n < words_.size(); n++) {
        size_t at = words_[n].hash & (table_.size() - 1);
        while (table_[at]) at = (at + 1) & (table_.size() - 1);
        table_[at] = (uint32_t)n + 1;
    }
}

std::vector<std::pair<std::string_view, uint64_t>> WordCounter::sorted() const {
    std::vector<std::pair<std::string_view, uint64_t>> all;
    all.reserve(words_.size());
    for (const Word& word : words_) all.emplace_back(std::string_view(text_).substr(word.start, word.length), word.count);
    std::sort(all.begin(), all.end());
    return all;
}

void WordCounter::clear() {
    words_.clear();
    text_.clear();
    std::fill(table_.begin(), table_.end(), 0);
}

std::vector<std::pair<uint32_t, uint32_t>> learn_merges(BpeTraining t, const std::function<void(size_t)>& on_progress) {
    const size_t n_words = t.counts.size();
    std::vector<uint32_t> sizes(n_words);
    std::unordered_map<Pair, PairCount, PairHash> pairs;
    for (size_t word = 0; word < n_words; word++) {
        sizes[word] = (uint32_t)(t.starts[word + 1] - t.starts[word]);
        const uint32_t* symbols = t.symbols.data() + t.starts[word];
        for (uint32_t n = 0; n + 1 < sizes[word]; n++) {
            PairCount& pair = pairs[pair_of(symbols[n], symbols[n + 1])];
            pair.total += t.counts[word];
            if (pair.words.empty() || pair.words.back() != word) pair.words.push_back((uint32_t)word);
        }
    }
    const auto fits = [&](Pair pair) { return (size_t)t.lengths[pair >> 32] + t.lengths[(uint32_t)pair] <= t.longest; };
    std::priority_queue<Candidate> candidates;
    for (const auto& [pair, count] : pairs)
        if (fits(pair)) candidates.push({count.total, pair});
    std::vector<std::pair<uint32_t, uint32_t>> merges;
    std::vector<Pair> new_pairs;
    std::vector<uint32_t> merged;
    while (!candidates.empty() && merges.size() < t.n_merges) {
        const auto [total, pair] = candidates.top();
        candidates.pop();
        const auto entry = pairs.find(pair);
        const int64_t now = entry == pairs.end() ? 0 : entry->second.total;
        if (now != total) {  // it has become rarer since, so it waits at its new place
            if (now >= t.min_count) candidates.push({now, pair});
            continue;
        }
        if (total < t.min_count) break;
        const uint32_t left = (uint32_t)(pair >> 32), right = (uint32_t)pair, merged_id = (uint32_t)t.lengths.size();
        t.lengths.push_back(t.lengths[left] + t.lengths[right]);
        merges.emplace_back(left, right);
        const std::vector<uint32_t> words = std::move(entry->second.words);
        new_pairs.clear();
        for (const uint32_t word : words) {
            uint32_t* symbols = t.symbols.data() + t.starts[word];
            const int64_t count = t.counts[word];
            const uint32_t before = sizes[word], after = merge(symbols, before, left, right, merged_id, merged);
            if (after == before) continue;  // it has become another pair here
            for (uint32_t n = 0; n + 1 < before; n++) pairs[pair_of(symbols[n], symbols[n + 1])].total -= count;
            std::copy(merged.begin(), merged.end(), symbols);
            sizes[word] = after;
            for (uint32_t n = 0; n + 1 < after; n++) {
                const Pair neighbours = pair_of(symbols[n], symbols[n + 1]);
                PairCount& of_pair = pairs[neighbours];
                of_pair.total += count;
                if (symbols[n] != merged_id && symbols[n + 1] != merged_id) continue;
                if (of_pair.words.empty()) new_pairs.push_back(neighbours);
                if (of_pair.words.empty() || of_pair.words.back() != word) of_pair.words.push_back(word);
            }
        }
        pairs.erase(pair);
        for (const Pair new_pair : new_pairs)
            if (fits(new_pair)) candidates.push({pairs[new_pair].total, new_pair});
        if (on_progress && merges.size() % 100 == 0) on_progress(merges.size());
    }
    return merges;
}

}  // namespace camelid
