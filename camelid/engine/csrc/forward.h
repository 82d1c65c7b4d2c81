// The forward pass of model/reference.py on packed weights, for all spans of a batch in one call.
//
// T new ids, D width, H query heads, K key/value heads, E width of a head, F feed-forward width, V vocabulary.
#pragma once
#include <algorithm>

#include "state.h"

namespace camelid {

class Model {
public:
    // `int16`: all activations have fifteen bits where they meet quantised weights, else those of the first positions of a
    // sequence and of the last layer, and others eight (block_q8).
    Model(const Config& config, const Kernels& kernels, int threads, bool int16);

    void reserve();  // once every matrix of the weights has its shape
    size_t fill(const Matrix& matrix, const uint8_t* blocks, size_t row_bytes) {
        return weights.fill(matrix, blocks, row_bytes, pool_);
    }
    int add_adapter() { return pool_.settle(), weights.add_adapter(); }
    uint64_t read_weights() { return weights.read(k_, pool_); }  // the least time a decoded token can take here
    void forward(const Batch& batch);
    void allocate(int pages) { pool_.settle(), state_.cache.allocate(pages); }

    const Config config;
    Weights weights;
    KvCache& cache() { return state_.cache; }
    const Kernels& kernels() const { return k_; }
    int threads() const { return pool_.size(); }
    Pool& pool() { return pool_; }

private:
    struct Worker {  // a thread in a lane of a pass
        const Pass& pass;
        Scratch& scratch;
        int thread, lane;
    };
    struct Product {  // out = a · x; silu(a · x) · (up · x) where there is `up`
        const Matrix *a, *up;
        float* out;
        size_t stride;
        int columns;  // of `out`, from `out` on
        bool adds;
        int slot;  // of `a`; that of `up` is UP_PROJ
    };
    struct Place {  // of products in a pass
        int layer;   // -1: behind the layers
        bool asked;  // only wanted rows go through them
    };
    struct Tokens {
        int first, count;
    };
    struct Activations : Tokens {  // in the forms that matrices multiply
        const uint8_t* base;
        ActivationLayout layout;
        Place place;
        float* low;  // what adapters make of them, in strips as wide as `low_width`; none: there are no adapters
    };
    struct Grid {  // of pieces: runs of groups times blocks of tokens
        int runs, blocks, block_tokens;
    };

    // The steps of a pass, which all threads walk together.
    void embed(const Batch& batch);
    void walk(const Pass& pass, int thread);
    void project_qkv(const Worker& w, int layer);
    void attention(const Worker& w, int layer);
    void attention_output(const Worker& w, int layer, float* x, int tokens);
    void feed_forward_block(const Worker& w, int layer, float* x, int tokens);
    void head(const Worker& w, const float* x);

    void norm(const float* x, const float* weight, float* out) const {
        k_.norm(x, weight, config.dim, config.eps, config.layer_norm, out);
    }
    // products = matrices times what row(t) gives of each token, a phase or two; `next`: whose matrix is read after that.
    template <class Row>
    void multiply(const Worker& w, Place place, std::initializer_list<Product> products, int tokens, int width, bool int16,
                  const Matrix* next, Row&& row);
    template <class Row>
    void quantize(const Worker& w, std::initializer_list<Product> products, const Activations& to, int forms, bool int16, Row&& row);
    size_t block_room(int tokens, bool int16) const;  // of any of their blocks
    ActivationLayout layout_for(const Worker& w, const Tokens& tokens, int width, int forms, bool int16);
    bool is_int16(const Pass& pass, int token, bool int16) const { return int16 || pass.token_int16[(size_t)token]; }
    template <class Act> void each_run(const Worker& w, const Tokens& own, Act&& act);
    void gather_wanted(const Worker& w);
    void adjust_qkv(const Worker& w, int layer);
    void add_normed(const Worker& w, int layer, int slot, float* x, int tokens);

    // How the lanes share tokens.
    void share_tokens(Pass& pass) const;
    void make_room(const Pass& pass);
    bool split_by_token(int tokens) const;
    Tokens tokens_of(const Worker& w, int tokens) const;
    template <class Act> void each_lane(const Worker& w, int tokens, Act&& act) const;

    // matmul.cpp
    void matmul(const Worker& w, std::initializer_list<Product> products, const Activations& in, const Matrix* next,
                const std::function<void()>& prepare);
    Grid grid_of(const Worker& w, std::initializer_list<Product> products, const Activations& in) const;
    void multiply_groups(const Worker& w, const Product& product, const Activations& in, Tokens tokens, int first, int last,
                         float* out, size_t stride);
    void store_groups(const Product& product, Tokens to, int first, int last, const float* results, size_t stride) const;
    void prefetch(const Worker& w, const Matrix& matrix);

    // What adapters add: up · (down · x), of each token alone, so that it has the same bits in every batch.
    int low_width() const { return 3 * weights.most_ranks(); }
    static int low_place(int slot) { return slot == V_PROJ ? 2 : slot == K_PROJ || slot == UP_PROJ; }
    template <class Act> void each_adapter(const Worker& w, const Activations& in, int token, int tokens, int side, Act&& act) const;
    void project_down(const Worker& w, std::initializer_list<Product> products, const Activations& in, int token, int tokens,
                      const ActivationLayout& layout, const uint8_t* base, float* lows) const;
    void store_low(const Activations& to, int token, int tokens, const float* lows) const;
    void add_low_rank(const Worker& w, int slot, const Activations& in, Tokens tokens, int first, int last, float* out,
                      size_t stride) const;

    // attention.cpp
    void plan_attention(Pass& pass) const;
    void write_all_keys(const Worker& w, int layer);
    void rotate_key(const Pass& pass, int token, int head, float* rotated) const;
    KvCache::Page page_of(const Pass& pass, int layer, int token, int head) const;
    void write_key(const float* rotated, const float* value, const KvCache::Page& page, int position) const;
    void attention_task(const Worker& w, int layer, const AttentionTask& task, const AttentionTask& next);
    void attend(const Worker& w, int layer, const AttentionTask& task, const AttentionTask& next, const KvCache::Page* newest);
    void gather_queries(const Worker& w, const AttentionTask& task);
    const uint16_t* next_keys(const Pass& pass, int layer, const AttentionTask& task, int chunk, int p) const;
    float* partial(const Pass& pass, int token, int head, int chunk) const;
    void store_partials(const Pass& pass, const AttentionTask& task, const Scratch& scratch) const;
    void store_attention(const Pass& pass, const AttentionTask& task, const Scratch& scratch) const;
    const float* attention_row(const Worker& w, int token) const;

    const Kernels& k_;
    const bool int16_;
    Heads heads_;
    State state_;
    size_t lane_bytes_ = 0;  // of activations
    Pool pool_;              // goes first: its threads may still read the rest
};

// A phase over the lane's tokens by runs: act(first, how many, commit). Neighbours share lines.
template <class Act> void Model::each_run(const Worker& w, const Tokens& own, Act&& act) {
    const int run = w.lane ? STRIP : std::clamp((own.count + pool_.size() - 1) / pool_.size(), 1, STRIP);
    pool_.phase(w.thread, w.lane, (own.count + run - 1) / run, [&](int piece, auto&& commit) {
        act(own.first + piece * run, std::min(run, own.count - piece * run), commit);
    });
}

}  // namespace camelid
