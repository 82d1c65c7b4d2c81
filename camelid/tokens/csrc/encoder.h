// Text to ids by byte-pair merges: the ids of the `tokenizers` library, in time linear in the text or nearly so.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pretokenize.h"

namespace camelid {

constexpr uint32_t NO_ID = 0xFFFFFFFF;

// (left, right) → rank and id of their union.
class PairTable {
  public:
    struct Merge {
        uint32_t rank = NO_ID, id = NO_ID;
    };
    void reserve(size_t pairs);
    void insert(uint32_t left, uint32_t right, Merge merge);  // a later one replaces an earlier one
    Merge find(uint32_t left, uint32_t right) const {
        const uint64_t key = (uint64_t)left << 32 | right, bit = sign(key);
        if (!(signs_[bit >> 6] >> (bit & 63) & 1)) return {};
        for (size_t at = place(key);; at = (at + 1) & mask_) {
            if (entries_[at].key == key) return entries_[at].merge;
            if (entries_[at].key == EMPTY) return {};
        }
    }

  private:
    static constexpr uint64_t EMPTY = ~0ull;
    struct Entry {
        uint64_t key = EMPTY;
        Merge merge;
    };
    size_t place(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull >> 32) & mask_; }
    size_t sign(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull >> 20) & (signs_.size() * 64 - 1); }
    std::vector<Entry> entries_{1};
    size_t mask_ = 0;
    std::vector<uint64_t> signs_ = std::vector<uint64_t>(1);  // a bit for each pair: it shows most that are not there
};

// Bytes → id, for the words that are pieces.
class PieceTable {
  public:
    explicit PieceTable(const std::vector<std::pair<std::string, uint32_t>>& words);
    uint32_t find(Text p, size_t length) const;  // NO_ID if it is not there

  private:
    struct Entry {
        uint32_t hash = 0, start = 0, length = 0, id = NO_ID;
    };
    static uint32_t hash_of(Text p, size_t length);
    std::vector<Entry> entries_;
    std::string text_;
};

// Words of up to 31 bytes with up to 8 ids; a newer word takes the place of an older one, so it never grows.
class WordCache {
  public:
    struct alignas(64) Slot {
        uint64_t key[4];  // the word's bytes, zeros, and its length in the last byte
        uint32_t ids[8];  // the number of ids in the last one's upper byte
    };
    static constexpr size_t MOST_BYTES = 31, MOST_IDS = 8;
    WordCache() : slots_(2ull << SET_BITS) {}
    Slot* find(const uint64_t key[4]);                                   // nullptr if it is not there
    void insert(const uint64_t key[4], const uint32_t* ids, size_t n);

  private:
    static constexpr size_t SET_BITS = 14;  // of two slots: 2 MB
    Slot* set_of(const uint64_t key[4]);
    std::vector<Slot> slots_;
};

// What one call works with; calls at the same time have one each.
struct Scratch {
    WordCache cache;
    std::vector<uint32_t> ids, ranks, merged;                   // symbols of the word at hand, and of each with its next one
    std::vector<uint32_t> next, previous;                       // of long words: a linked list
    std::vector<uint32_t> bucket_of;                            // rank → 1 + its bucket, 0 where there is none
    std::vector<std::vector<uint32_t>> buckets;                 // places of a rank
    std::vector<std::pair<uint32_t, uint32_t>> waiting;         // heap of ranks and their buckets, the lowest on top
    uint64_t steps = 0;                                         // characters looked at, pairs looked up, places moved
};

class Encoder {
  public:
    struct Merge {
        uint32_t left, right, id;
    };

    // `stages` cut a text for the byte-level kind; without any, the SentencePiece kind is meant.
    // `words`: text of a piece → its id, of all that text can give: bytes, or characters with ▁ for spaces.
    // `merges`: best first. `whole_words`: a word that is a piece becomes it, whatever the merges say.
    Encoder(std::vector<Match> stages, const std::vector<std::pair<std::string, uint32_t>>& words,
            const std::vector<Merge>& merges, bool whole_words);

    void encode(Text p, size_t length, std::vector<uint32_t>& out, uint64_t* steps = nullptr);

  private:
    void word(Text p, Text end, Text limit, std::vector<uint32_t>& out, Scratch& scratch) const;
    void compute(Text p, Text end, std::vector<uint32_t>& out, Scratch& scratch) const;
    void spell_bytes(Text p, Text end, Scratch& scratch) const;
    void spell_characters(Text p, Text end, Scratch& scratch) const;
    PairTable::Merge first(Text p, const Scratch& scratch, size_t at) const;
    void merge_short(Text p, Scratch& scratch) const;
    void merge_long(Text p, Scratch& scratch) const;
    void cut_characters(Text p, Text end, std::vector<uint32_t>& out, Scratch& scratch) const;
    void join(const std::string& piece);
    std::unique_ptr<Scratch> acquire();
    void release(std::unique_ptr<Scratch> scratch);

    std::vector<Match> stages_;
    PairTable pairs_;
    uint32_t merges_ = 0;
    uint32_t byte_ids_[256];
    std::vector<PairTable::Merge> byte_pairs_;            // of two bytes; empty if a byte has no piece
    std::unique_ptr<PieceTable> words_;                   // with whole_words
    std::unordered_map<uint32_t, uint32_t> characters_;   // SentencePiece: beyond ASCII
    uint32_t ascii_[128];
    // SentencePiece: may two neighbours, by class, be inside one piece? 0–127 ASCII with a space for ▁, 128 all others.
    std::vector<bool> joined_ = std::vector<bool>(129 * 129);
    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> free_;
};

}  // namespace camelid
