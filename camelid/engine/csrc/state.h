// What a forward pass writes: the pages of keys and values, which stay, and room for the activations of one batch.
#pragma once
#include <vector>

#include "weights.h"

namespace camelid {

constexpr int KV_CHUNK = 256;  // positions whose attention is summed together, counted from position 0
constexpr int KV_CHUNK_PAGES = KV_CHUNK / LANES;
constexpr int INT16_POSITIONS = 48;  // the first of a sequence, whose activations have fifteen bits
constexpr int TASK_ROWS = 48;        // queries that read a chunk together
constexpr int GATED_GROUPS = 8, GATED_TOKENS = 5 * STRIP;  // of gate and up that are multiplied before silu joins them

struct Span {
    int first, length;  // its rows among all new ids
    int start;          // position of the first
    const int32_t* pages;
    int n_pages;
    int adapter;  // 0: none
};

struct Batch {
    const float* embedded;  // (T, D)
    int tokens;
    std::vector<Span> spans;
    std::vector<int> logits_rows, hidden_rows;  // that are asked for, in order
    const float *cos, *sin;                     // (positions, E / 2)
    float* logits;                              // (logits_rows, V)
    float* hidden;                              // (hidden_rows, D), after the final norm
};

// Pages of 16 positions: of every layer and key/value head.
class KvCache {
public:
    struct Page {  // of one head of one layer
        uint16_t *keys, *values;
    };

    KvCache(const Config& config, const Heads& heads);
    void allocate(int pages);
    void copy_page(int source, int target);
    bool has_page(int page) const { return page >= 0 && page < n_pages_; }
    Page page(int layer, int head, int number) const;
    size_t key_halves() const { return key_halves_; }  // of a page of one head
    size_t value_halves() const { return value_halves_; }

private:
    int layers_, kv_heads_, n_pages_ = 0;
    size_t key_halves_, value_halves_;
    Arena memory_;
};

struct AttentionTask {  // tokens of a span on one key/value head, over a range of chunks
    int span, head, first, last, begin, end;
    bool split;  // other tasks have its other chunks
};

// What is known of a batch before its pass. A thread that comes back late reads it when the batch is gone.
struct Pass {
    int tokens = 0;
    std::vector<Span> spans;
    std::vector<int32_t> pages;   // of the spans
    std::vector<float> cos, sin;  // (T, E / 2)
    float *logits = nullptr, *hidden = nullptr;
    std::vector<int> wanted;                // rows that are asked for: only these go through the last layer to its end
    std::vector<int> logits_at, hidden_at;  // where among them those of either output are
    std::vector<int> token_span;
    std::vector<uint8_t> token_int16;
    std::vector<int> token_adapter;
    bool adapts = false;  // any of them
    std::vector<int> token_starts;  // of each lane's own tokens, if it has some; as many as threads, and the end
    std::vector<AttentionTask> tasks;
    std::vector<int> partial_at, n_partials;  // of each token: where its chunks' results lie, and how many
    int partials = 0;
    bool writes_with_attention = false;       // keys and values
};

struct Scratch {  // of one thread
    Buffer<uint8_t> activations, int16_strips;
    Buffer<float> normed, gated, row, queries, scores, row_max, row_sum, weighted, total_max, total_sum, total_weighted;
    Buffer<float> low, lows;  // what adapters make of few tokens; of a run of tokens, until they are committed
    Buffer<float> results;  // of a piece, until they are committed
    Buffer<uint16_t> page;  // keys and values, with those of a new token
    Buffer<int> limits;
};

struct State {
    State(const Config& config, const Heads& heads, int threads);
    Pass plan(const Batch& batch) const;           // its tokens and the rows that are asked for
    void make_room(const Pass& pass, Pool& pool);  // for its activations

    const int dim, q, kv, ffn, vocab, widest;  // padded to whole registers
    const int qkv_stride;
    KvCache cache;
    Buffer<float> x, qkv, attn, hidden, added, partials;
    Buffer<float> asked;  // the stream's wanted rows
    Buffer<float> low;    // what adapters' first matrices make of the tokens, in strips
    Buffer<uint8_t> activations;
    std::vector<Scratch> scratch;

private:
    const Config config_;
    const Heads& heads_;
};

}  // namespace camelid
