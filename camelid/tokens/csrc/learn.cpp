#include "learn.h"

#include <algorithm>
#include <queue>
#include <unordered_map>

namespace camelid {
namespace {

using Pair = uint64_t;

Pair pair_of(uint32_t left, uint32_t right) { return (Pair)left << 32 | right; }

struct Scramble {
    size_t operator()(Pair pair) const { return (pair * 0x9E3779B97F4A7C15ull) ^ (pair >> 29); }
};

struct Found {
    int64_t total = 0;
    std::vector<uint32_t> places;  // words in which it has been seen; one may come twice
};

struct Waiting {
    int64_t total;
    Pair pair;
    bool operator<(const Waiting& other) const { return total != other.total ? total < other.total : pair > other.pair; }
};

// `part` with each left and right, from the left, made one symbol; returns how many symbols that are.
uint32_t merge(const uint32_t* part, uint32_t size, uint32_t left, uint32_t right, uint32_t made, std::vector<uint32_t>& out) {
    out.clear();
    for (uint32_t at = 0; at < size;) {
        const bool found = at + 1 < size && part[at] == left && part[at + 1] == right;
        out.push_back(found ? made : part[at]);
        at += found ? 2 : 1;
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
        Word& known = words_[table_[at] - 1];
        if (known.hash == hash && word == std::string_view(text_).substr(known.start, known.length)) {
            known.count++;
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

std::vector<std::pair<uint32_t, uint32_t>> learn_merges(Learning l, const std::function<void(size_t)>& tell) {
    const size_t words = l.counts.size();
    std::vector<uint32_t> sizes(words);
    std::unordered_map<Pair, Found, Scramble> pairs;
    for (size_t word = 0; word < words; word++) {
        sizes[word] = (uint32_t)(l.starts[word + 1] - l.starts[word]);
        const uint32_t* part = l.symbols.data() + l.starts[word];
        for (uint32_t n = 0; n + 1 < sizes[word]; n++) {
            Found& found = pairs[pair_of(part[n], part[n + 1])];
            found.total += l.counts[word];
            if (found.places.empty() || found.places.back() != word) found.places.push_back((uint32_t)word);
        }
    }
    const auto fits = [&](Pair pair) { return (size_t)l.lengths[pair >> 32] + l.lengths[(uint32_t)pair] <= l.longest; };
    std::priority_queue<Waiting> waiting;
    for (const auto& [pair, found] : pairs)
        if (fits(pair)) waiting.push({found.total, pair});
    std::vector<std::pair<uint32_t, uint32_t>> merges;
    std::vector<Pair> fresh;
    std::vector<uint32_t> merged;
    while (!waiting.empty() && merges.size() < l.wanted) {
        const auto [total, pair] = waiting.top();
        waiting.pop();
        const auto known = pairs.find(pair);
        const int64_t now = known == pairs.end() ? 0 : known->second.total;
        if (now != total) {  // it has become rarer since, so it waits at its new place
            if (now >= l.least) waiting.push({now, pair});
            continue;
        }
        if (total < l.least) break;
        const uint32_t left = (uint32_t)(pair >> 32), right = (uint32_t)pair, made = (uint32_t)l.lengths.size();
        l.lengths.push_back(l.lengths[left] + l.lengths[right]);
        merges.emplace_back(left, right);
        const std::vector<uint32_t> places = std::move(known->second.places);
        fresh.clear();
        for (const uint32_t word : places) {
            uint32_t* part = l.symbols.data() + l.starts[word];
            const int64_t count = l.counts[word];
            const uint32_t before = sizes[word], after = merge(part, before, left, right, made, merged);
            if (after == before) continue;  // it has become another pair here
            for (uint32_t n = 0; n + 1 < before; n++) pairs[pair_of(part[n], part[n + 1])].total -= count;
            std::copy(merged.begin(), merged.end(), part);
            sizes[word] = after;
            for (uint32_t n = 0; n + 1 < after; n++) {
                const Pair one = pair_of(part[n], part[n + 1]);
                Found& found = pairs[one];
                found.total += count;
                if (part[n] != made && part[n + 1] != made) continue;
                if (found.places.empty()) fresh.push_back(one);
                if (found.places.empty() || found.places.back() != word) found.places.push_back(word);
            }
        }
        pairs.erase(pair);
        for (const Pair one : fresh)
            if (fits(one)) waiting.push({pairs[one].total, one});
        if (tell && merges.size() % 100 == 0) tell(merges.size());
    }
    return merges;
}

}  // namespace camelid
