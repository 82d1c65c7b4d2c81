// The forward pass of model/reference.py on packed weights, for all spans of a batch in one call.
//
// T new ids, D width, H query heads, K key/value heads, E width of a head, F feed-forward width, V vocabulary.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "pool.h"

namespace camelid {

constexpr int STRETCH = 256;    // positions whose attention is summed together, counted from position 0
constexpr int STRETCH_PAGES = STRETCH / LANES;
constexpr int FINE_POSITIONS = 48;  // the first of a sequence, whose activations have fifteen bits
constexpr int ITEM_ROWS = 48;   // queries that read a stretch together
constexpr int GATED_GROUPS = 8, GATED_TOKENS = 5 * STRIP;  // of gate and up that are multiplied before silu joins them

struct Shape {
    int dim, layers, heads, kv_heads, head_dim, ffn_dim, vocab;
    float eps;
    bool layer_norm;   // LayerNorm without weights instead of RMSNorm (OLMo 1)
    bool norms_after;  // normalise what a block adds, not what it reads (OLMo 2)
    bool qk_norm;      // RMSNorm over all of q and all of k (OLMo 2)
    float clip_qkv;    // clamp q, k and v; 0: leave them (OLMo 1)
};

enum Slot : int { Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ, N_SLOTS };
enum NormSlot : int { NORM_INPUT, NORM_ATTENTION, NORM_FEED_FORWARD, NORM_Q, NORM_K, N_NORMS };

struct Span {
    int first, length;  // its rows among all new ids
    int start;          // position of the first
    const int32_t* pages;
    int n_pages;
};

struct Batch {
    const float* embedded;  // (T, D)
    int tokens;
    std::vector<Span> spans;
    std::vector<int> wanted;  // rows whose logits are asked for, in order
    const float *cos, *sin;   // (positions, E / 2)
    float* logits;            // (wanted, V); null: hidden states are wanted instead
    float* hidden;            // (wanted, D), after the final norm; null: logits are wanted
};

class Model {
public:
    // `fine`: all activations have fifteen bits where they meet quantised weights, else those of the first positions of a
    // sequence and of the last layer, and others few (Record).
    Model(const Shape& shape, const Kernels& kernels, int threads, bool fine);

    // Say what every matrix will be, `layer` −1 for the output matrix; then reserve; then fill each.
    void plan(int layer, int slot, Kind kind, int rows, int columns);
    void reserve();
    size_t fill(int layer, int slot, const uint8_t* blocks, size_t row_bytes);
    void set_bias(int layer, int slot, const float* bias);  // as many numbers as the matrix has rows
    void set_norm(int layer, int slot, const float* weight, int width);  // layer −1: the final norm

    uint64_t read_weights();  // every byte once on all threads: the least time a decoded token can take here
    void allocate(int pages);
    void copy_page(int source, int target);
    void forward(const Batch& batch);

    const Kernels& kernels() const { return k_; }
    bool has_page(int page) const { return page >= 0 && page < n_pages_; }
    bool fits(int layer, int slot, size_t rows, size_t row_bytes) const;  // blocks a matrix can be filled from
    bool has_rows(int layer, int slot, size_t rows) const {
        return layer < shape_.layers && slot >= 0 && slot < N_SLOTS && (size_t)at(layer, slot).rows == rows;
    }
    int threads() const { return pool_.size(); }
    const Shape& shape() const { return shape_; }
    size_t weight_bytes() const { return reserved_; }  // that a token's forward pass reads

private:
    struct Layer {
        Matrix matrix[N_SLOTS];
        Buffer<float> norm[N_NORMS], bias[N_SLOTS];
    };
    struct Page {  // of one key/value head
        uint16_t *keys, *values;
    };
    struct Job {  // out = a · x; silu(a · x) · (up · x) where there is `up`
        const Matrix *a, *up;
        float* out;
        size_t stride;
        bool adds;
    };
    struct Item {  // a piece of attention: tokens of a span on one key/value head, over a range of stretches
        int span, head, first, last, begin, end;
        bool splits;
    };
    struct Scratch {  // of one thread
        Buffer<uint8_t> rows, fine_strips;
        Buffer<float> normed, gated, row, queries, scores, peak, mass, mixed, sum_peak, sum_mass, sum_mixed;
        Buffer<int> limits;
    };
    // The tokens whose activations a thread prepares, alone or with the others; `whole`: and multiplies by all rows of a matrix.
    struct Part {
        int first, count;
        bool alone, whole;
    };
    struct Rows : Part {  // prepared activations
        const uint8_t* base;
        RowLayout layout;
    };

    void attention_block(int layer, int thread);
    void feed_forward_block(int layer, int thread);
    void output(int thread);
    template <class Row> Rows prepare(int thread, int tokens, int width, int forms, bool fine, Row&& row);
    RowLayout layout_for(int thread, const Part& part, int width, int forms, bool fine);
    bool is_fine(int token, bool fine) const { return fine || token_fine_[(size_t)token]; }
    void share_tokens();
    bool parted(int tokens) const;
    Part part_of(int thread, int tokens) const;
    template <class Act> void each_token(int thread, int tokens, Act&& act) const {  // act(t) for those that are the thread's
        const Part part = part_of(thread, tokens);
        const int step = part.whole ? 1 : pool_.size();
        for (int t = part.whole ? part.first : thread; t < part.first + part.count; t += step) act(t);
    }
    void meet(int tokens);
    void multiply(int thread, const Job* jobs, int n_jobs, const Rows& in);
    void multiply_groups(int thread, const Job& job, const Rows& in, int first, int last);
    void prefetch(const Matrix& matrix, int thread);
    void adjust_qkv(int layer, int thread);
    void add_normed(int layer, int slot, int tokens, int thread);
    void keep_wanted(int thread);
    void write_keys(int layer, int token, int head);
    void attend(int layer, int thread);
    void attend_item(int layer, int thread, const Item& item, const Item& next);
    const uint16_t* follow(int layer, const Item& item, int stretch, int p) const;
    void gather_queries(const Item& item, Scratch& scratch);
    const float* mixed_row(int token, Scratch& scratch);
    void plan_attention();
    void make_room(const Batch& batch);
    Page page_of(int layer, int head, int number) const;
    const Matrix& at(int layer, int slot) const { return layer < 0 ? head_ : layers_[layer].matrix[slot]; }
    const float* norm_of(int layer, int slot) const;

    Shape shape_;
    const Kernels& k_;
    const bool fine_;
    Pool pool_;
    Heads heads_;
    int dim_, q_, kv_, ffn_, vocab_;  // widths padded to whole registers
    std::vector<Layer> layers_;
    Matrix head_{};
    Buffer<float> final_norm_, ones_;
    Arena weights_, pages_;
    size_t reserved_ = 0;
    int n_pages_ = 0;
    size_t key_halves_ = 0, value_halves_ = 0;  // of a page of one head

    const Batch* batch_ = nullptr;
    std::vector<int> token_span_;
    std::vector<uint8_t> token_fine_;
    std::vector<int> shares_;  // where each thread's tokens begin, if it takes its own; as many as threads, and the end
    std::vector<Item> items_;
    std::vector<int> parts_at_, n_parts_;  // of each token: where its stretches' results lie, and how many
    bool writes_with_attention_ = false;
    Buffer<float> x_, qkv_, mixed_, hidden_, added_, parts_, wide_;
    Buffer<uint8_t> rows_;
    std::vector<Scratch> scratch_;
};

}  // namespace camelid
