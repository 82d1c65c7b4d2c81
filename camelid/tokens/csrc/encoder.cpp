#include "encoder.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace camelid {
namespace {

constexpr size_t SHORT = 32;            // symbols of a word up to which looking at all pairs is fastest
constexpr size_t KEPT = 1 << 16;        // symbols for which a scratch keeps its memory
constexpr uint32_t BLOCK = 0x2581;      // ▁

// Where a character of SentencePiece's text stands in `joined_`.
unsigned class_of(uint32_t code) { return code == BLOCK ? ' ' : code < 128 ? code : 128; }

}  // namespace

void PairTable::reserve(size_t pairs) {
    size_t size = 16;
    while (size < pairs * 2) size *= 2;
    entries_.assign(size, {});
    mask_ = size - 1;
    signs_.assign(size / 8, 0);
}

void PairTable::insert(uint32_t left, uint32_t right, Merge merge) {
    const uint64_t key = (uint64_t)left << 32 | right;
    size_t at = place(key);
    while (entries_[at].key != EMPTY && entries_[at].key != key) at = (at + 1) & mask_;
    entries_[at] = {key, merge};
    signs_[sign(key) >> 6] |= 1ull << (sign(key) & 63);
}

PieceTable::PieceTable(const std::vector<std::pair<std::string, uint32_t>>& words) {
    size_t size = 16;
    while (size < words.size() * 2) size *= 2;
    entries_.resize(size);
    for (const auto& [word, id] : words) {
        const uint32_t hash = hash_of((Text)word.data(), word.size());
        size_t at = hash & (size - 1);
        while (entries_[at].id != NO_ID) at = (at + 1) & (size - 1);
        entries_[at] = {hash, (uint32_t)text_.size(), (uint32_t)word.size(), id};
        text_ += word;
    }
}

uint32_t PieceTable::find(Text p, size_t length) const {
    const uint32_t hash = hash_of(p, length);
    for (size_t at = hash & (entries_.size() - 1);; at = (at + 1) & (entries_.size() - 1)) {
        const Entry& entry = entries_[at];
        if (entry.id == NO_ID) return NO_ID;
        if (entry.hash == hash && entry.length == length && !std::memcmp(&text_[entry.start], p, length)) return entry.id;
    }
}

uint32_t PieceTable::hash_of(Text p, size_t length) {
    uint64_t hash = length;
    for (; length; ) {
        uint64_t part = 0;
        const size_t n = length < 8 ? length : 8;
        std::memcpy(&part, p, n);
        hash = (hash ^ part) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 29;
        p += n, length -= n;
    }
    return (uint32_t)(hash >> 16);
}

WordCache::Slot* WordCache::set_of(const uint64_t key[4]) {
    uint64_t hash = key[0] * 0x9E3779B97F4A7C15ull ^ key[1] * 0xC2B2AE3D27D4EB4Full;
    hash ^= key[2] * 0x165667B19E3779F9ull ^ key[3] * 0xD6E8FEB86659FD93ull;
    hash ^= hash >> 32;
    return &slots_[(hash * 0x9E3779B97F4A7C15ull >> (64 - SET_BITS)) * 2];
}

WordCache::Slot* WordCache::find(const uint64_t key[4]) {
    Slot* set = set_of(key);
    for (Slot* slot = set; slot < set + 2; slot++)
        if (!((slot->key[0] ^ key[0]) | (slot->key[1] ^ key[1]) | (slot->key[2] ^ key[2]) | (slot->key[3] ^ key[3])))
            return slot;
    return nullptr;
}

void WordCache::insert(const uint64_t key[4], const uint32_t* ids, size_t n) {
    Slot* set = set_of(key);
    set[1] = set[0];
    std::memcpy(set->key, key, sizeof set->key);
    std::memset(set->ids, 0, sizeof set->ids);
    std::memcpy(set->ids, ids, n * sizeof *ids);
    set->ids[MOST_IDS - 1] |= (uint32_t)n << 24;
}

Encoder::Encoder(std::vector<Match> stages, const std::vector<std::pair<std::string, uint32_t>>& words,
                 const std::vector<Merge>& merges, bool whole_words)
    : stages_(std::move(stages)), merges_((uint32_t)merges.size()) {
    std::fill_n(byte_ids_, 256, NO_ID);
    std::fill_n(ascii_, 128, NO_ID);
    const bool bytes = !stages_.empty();
    std::unordered_map<uint32_t, const std::string*> spelled;
    for (const auto& [text, id] : words) {
        if (id >= 1u << 24) throw std::invalid_argument("an id is too large");
        if (!bytes) spelled.emplace(id, &text);
        const Text p = (Text)text.data();
        if (bytes && text.size() == 1) byte_ids_[*p] = id;
        unsigned byte;
        if (!bytes && text.size() == 6 && std::sscanf(text.c_str(), "<0x%02X>", &byte) == 1) byte_ids_[byte] = id;
        if (bytes || text.empty() || (size_t)length_at(p) != text.size()) continue;
        const uint32_t code = code_at(p, (int)text.size());
        if (code < 128)
            ascii_[code] = id;
        else
            characters_.emplace(code, id);
    }
    pairs_.reserve(merges.size());
    for (uint32_t rank = 0; rank < merges.size(); rank++) {
        const Merge& merge = merges[rank];
        pairs_.insert(merge.left, merge.right, {rank, merge.id});
        if (!bytes) join(*spelled.at(merge.id));
    }
    if (whole_words) words_ = std::make_unique<PieceTable>(words);
    if (bytes && std::find(byte_ids_, byte_ids_ + 256, NO_ID) == byte_ids_ + 256)
        for (unsigned left = 0; left < 256; left++)
            for (unsigned right = 0; right < 256; right++)
                byte_pairs_.push_back(pairs_.find(byte_ids_[left], byte_ids_[right]));
    if (const auto block = characters_.find(BLOCK); block != characters_.end()) ascii_[' '] = block->second;
}

// Remember which neighbours a piece joins. A piece that is written like a byte's joins what nobody sees: then all may join.
void Encoder::join(const std::string& piece) {
    if (piece.compare(0, 3, "<0x") == 0 || piece.find("<0x") != std::string::npos) joined_.assign(129 * 129, true);
    const Text end = (Text)piece.data() + piece.size();
    unsigned left = 129;
    for (Text p = (Text)piece.data(); p < end;) {
        const int length = length_at(p);
        const unsigned right = class_of(code_at(p, length));
        if (left < 129) joined_[left * 129 + right] = true;
        left = right;
        p += length;
    }
}

std::unique_ptr<Scratch> Encoder::acquire() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::make_unique<Scratch>();
    auto scratch = std::move(free_.back());
    free_.pop_back();
    return scratch;
}

void Encoder::release(std::unique_ptr<Scratch> scratch) {
    if (scratch->ids.capacity() > KEPT || scratch->next.capacity() > KEPT) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(scratch));
}

void Encoder::encode(Text p, size_t length, std::vector<uint32_t>& out, uint64_t* steps) {
    auto scratch = acquire();
    scratch->steps = 0;
    const Text end = p + length;
    if (stages_.empty())
        cut_characters(p, end, out, *scratch);
    else
        cut(stages_.data(), stages_.data() + stages_.size(), p, end, scratch->steps,
            [&](Text from, Text to) { word(from, to, end, out, *scratch); });
    if (steps) *steps = scratch->steps;
    release(std::move(scratch));
}

// Cut where no piece reaches across: before a space that follows a letter, usually also between letters and signs. What
// is merged on one side is then the same whatever stands on the other.
void Encoder::cut_characters(Text p, Text end, std::vector<uint32_t>& out, Scratch& scratch) const {
    Text start = p;
    unsigned left = 129;
    for (; p < end;) {
        const int length = length_at(p);
        const unsigned right = length == 1 ? *p : class_of(code_at(p, length));
        if (left < 129 && !joined_[left * 129 + right]) {
            word(start, p, end, out, scratch);
            start = p;
        }
        left = right;
        p += length;
    }
    scratch.steps += end - start;
    if (start < end) word(start, end, end, out, scratch);
}

// The ids of a word; the text reaches to `limit`, up to which it may be read.
void Encoder::word(Text p, Text end, Text limit, std::vector<uint32_t>& out, Scratch& scratch) const {
    const size_t length = end - p;
    if (length > WordCache::MOST_BYTES) return compute(p, end, out, scratch);
    uint64_t key[4] = {};
    if (length <= 16 && limit - p >= 16) {
        std::memcpy(key, p, 16);
        if (length < 8) {
            key[0] &= (1ull << 8 * length) - 1;
            key[1] = 0;
        } else if (length < 16) {
            key[1] &= (1ull << 8 * (length - 8)) - 1;
        }
    } else {
        std::memcpy(key, p, length);
    }
    key[3] |= (uint64_t)length << 56;
    if (const WordCache::Slot* slot = scratch.cache.find(key)) {
        const size_t n = slot->ids[WordCache::MOST_IDS - 1] >> 24, at = out.size();
        out.resize(at + WordCache::MOST_IDS);
        std::memcpy(&out[at], slot->ids, sizeof slot->ids);
        out[at + WordCache::MOST_IDS - 1] &= 0xFFFFFF;
        out.resize(at + n);
        return;
    }
    const size_t at = out.size();
    compute(p, end, out, scratch);
    if (out.size() - at <= WordCache::MOST_IDS) scratch.cache.insert(key, out.data() + at, out.size() - at);
}

void Encoder::compute(Text p, Text end, std::vector<uint32_t>& out, Scratch& scratch) const {
    if (words_) {
        const uint32_t id = words_->find(p, end - p);
        if (id != NO_ID) return out.push_back(id);
    }
    scratch.ids.clear();
    stages_.empty() ? spell_characters(p, end, scratch) : spell_bytes(p, end, scratch);
    if (scratch.ids.size() >= NO_ID) throw std::length_error("a word is too long");
    scratch.ids.size() <= SHORT ? merge_short(p, scratch) : merge_long(p, scratch);
    out.insert(out.end(), scratch.ids.begin(), scratch.ids.end());
}

void Encoder::spell_bytes(Text p, Text end, Scratch& scratch) const {
    for (; p < end; p++)
        if (byte_ids_[*p] != NO_ID) scratch.ids.push_back(byte_ids_[*p]);
}

// A character's piece, or its bytes' pieces.
void Encoder::spell_characters(Text p, Text end, Scratch& scratch) const {
    while (p < end) {
        const int length = length_at(p);
        uint32_t id = NO_ID;
        if (length == 1) {
            id = ascii_[*p];
        } else if (const auto entry = characters_.find(code_at(p, length)); entry != characters_.end()) {
            id = entry->second;
        }
        if (id != NO_ID)
            scratch.ids.push_back(id);
        else
            for (int n = 0; n < length; n++) scratch.ids.push_back(byte_ids_[p[n]]);
        p += length;
    }
}

// The merge of two neighbours in a word that is spelled and nothing more.
PairTable::Merge Encoder::first(Text p, const Scratch& scratch, size_t at) const {
    return byte_pairs_.empty() ? pairs_.find(scratch.ids[at], scratch.ids[at + 1]) : byte_pairs_[p[at] << 8 | p[at + 1]];
}

// Look at all pairs for the best one, again and again.
void Encoder::merge_short(Text p, Scratch& scratch) const {
    uint32_t* ids = scratch.ids.data();
    size_t n = scratch.ids.size();
    uint32_t ranks[SHORT], merged[SHORT];
    const auto put = [&](size_t at, PairTable::Merge merge) { ranks[at] = merge.rank, merged[at] = merge.id; };
    for (size_t at = 0; at + 1 < n; at++) put(at, first(p, scratch, at));
    scratch.steps += n;
    while (n > 1) {
        const size_t best = std::min_element(ranks, ranks + n - 1) - ranks;
        if (ranks[best] == NO_ID) break;
        scratch.steps += 2;
        ids[best] = merged[best];
        n--;
        std::memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) {
            std::memmove(ranks + best + 1, ranks + best + 2, (n - best - 2) * sizeof *ranks);
            std::memmove(merged + best + 1, merged + best + 2, (n - best - 2) * sizeof *merged);
            put(best, pairs_.find(ids[best], ids[best + 1]));
        }
        if (best) put(best - 1, pairs_.find(ids[best - 1], ids[best]));
    }
    scratch.ids.resize(n);
}

// Ranks in waves: all places of the best rank, from the left, before those of the next. A place is in the bucket of the
// rank that it had when it was put there; one that has changed since is passed over. Where a merge makes a pair of a
// better rank, which a trained vocabulary never has, the wave waits until that one is done.
void Encoder::merge_long(Text p, Scratch& s) const {
    const uint32_t n = (uint32_t)s.ids.size();
    s.next.resize(n), s.previous.resize(n), s.ranks.assign(n, NO_ID), s.merged.resize(n);
    s.bucket_of.resize(merges_, 0);
    s.waiting.clear();
    size_t used = 0;
    std::vector<size_t> cursors;
    std::vector<bool> sorted;
    const auto later = [](const auto& a, const auto& b) { return a.first > b.first; };
    const auto put = [&](uint32_t at, PairTable::Merge merge) {
        s.ranks[at] = merge.rank, s.merged[at] = merge.id;
        s.steps++;
        if (merge.rank == NO_ID) return;
        uint32_t& bucket = s.bucket_of[merge.rank];
        if (!bucket) {
            if (used == s.buckets.size()) s.buckets.emplace_back();
            s.buckets[used].clear();
            cursors.push_back(0), sorted.push_back(true);
            bucket = (uint32_t)++used;
            s.waiting.emplace_back(merge.rank, bucket - 1);
            std::push_heap(s.waiting.begin(), s.waiting.end(), later);
        }
        auto& places = s.buckets[bucket - 1];
        if (places.size() > cursors[bucket - 1] && places.back() > at) sorted[bucket - 1] = false;
        places.push_back(at);
    };
    for (uint32_t at = 0; at < n; at++) s.next[at] = at + 1, s.previous[at] = at - 1;
    for (uint32_t at = 0; at + 1 < n; at++) put(at, first(p, s, at));
    const auto look = [&](uint32_t at) { put(at, pairs_.find(s.ids[at], s.ids[s.next[at]])); };
    while (!s.waiting.empty()) {
        const auto [rank, bucket] = s.waiting.front();
        if (!sorted[bucket]) {
            std::sort(s.buckets[bucket].begin() + (ptrdiff_t)cursors[bucket], s.buckets[bucket].end());
            s.steps += s.buckets[bucket].size() - cursors[bucket];
            sorted[bucket] = true;
        }
        while (cursors[bucket] < s.buckets[bucket].size() && s.waiting.front().first == rank) {
            const uint32_t at = s.buckets[bucket][cursors[bucket]++];
            s.steps++;
            if (s.ranks[at] != rank) continue;
            const uint32_t right = s.next[at], after = s.next[right];
            s.ids[at] = s.merged[at];
            s.ids[right] = NO_ID;
            s.ranks[at] = s.ranks[right] = NO_ID;
            s.next[at] = after;
            if (after < n) s.previous[after] = at, look(at);
            if (s.previous[at] < n) look(s.previous[at]);
        }
        if (s.waiting.front().first != rank) continue;
        std::pop_heap(s.waiting.begin(), s.waiting.end(), later);
        s.waiting.pop_back();
        s.bucket_of[rank] = 0;
    }
    s.ids.erase(std::remove(s.ids.begin(), s.ids.end(), NO_ID), s.ids.end());
    if (n > KEPT) s.buckets = {};
}

}  // namespace camelid
