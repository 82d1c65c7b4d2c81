// The forward pass of model/reference.py on packed weights, for all spans of a batch in one call.
//
// T new ids, D width, H query heads, K key/value heads, E width of a head, F feed-forward width, V vocabulary.
#pragma once
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
    uint64_t read_weights() { return weights.read(k_, pool_); }  // the least time a decoded token can take here
    void forward(const Batch& batch);

    const Config config;
    Weights weights;
    KvCache& cache() { return state_.cache; }
    const Kernels& kernels() const { return k_; }
    int threads() const { return pool_.size(); }

private:
    struct Product {  // out = a · x; silu(a · x) · (up · x) where there is `up`
        const Matrix *a, *up;
        float* out;
        size_t stride;
        bool adds;
    };
    // The tokens whose activations a thread prepares, alone or with the others; `all_rows`: and multiplies by all rows of a
    // matrix.
    struct TokenRange {
        int first, count;
        bool alone, all_rows;
    };
    struct Activations : TokenRange {  // in the forms that matrices multiply
        const uint8_t* base;
        ActivationLayout layout;
    };

    // The steps of a pass, which all threads take together.
    void embed(const Batch& batch);
    void attention_block(const Batch& batch, int layer, int thread);
    void feed_forward_block(int layer, int thread);
    void head(const Batch& batch, int thread);

    void norm(const float* x, const float* weight, float* out) const {
        k_.norm(x, weight, config.dim, config.eps, config.layer_norm, out);
    }
    template <class Row> Activations quantize(int thread, int tokens, int width, int forms, bool int16, Row&& row);
    ActivationLayout layout_for(int thread, const TokenRange& range, int width, int forms, bool int16);
    bool is_int16(int token, bool int16) const { return int16 || state_.token_int16[(size_t)token]; }
    void gather_wanted(int thread);
    void adjust_qkv(int layer, int thread);
    void add_normed(int layer, int slot, int tokens, int thread);

    // How the threads share tokens.
    void share_tokens();
    void make_room(int tokens);
    bool split_by_token(int tokens) const;
    TokenRange tokens_of(int thread, int tokens) const;
    template <class Act> void each_token(int thread, int tokens, Act&& act) const {  // act(t) for those that are the thread's
        const TokenRange range = tokens_of(thread, tokens);
        const int step = range.all_rows ? 1 : pool_.size();
        for (int t = range.all_rows ? range.first : thread; t < range.first + range.count; t += step) act(t);
    }
    void barrier(int tokens);

    // matmul.cpp
    void matmul(int thread, const Product* products, int n_products, const Activations& in);
    void matmul_groups(int thread, const Product& product, const Activations& in, int first, int last);
    void prefetch(const Matrix& matrix, int thread);

    // attention.cpp
    void plan_attention(const Batch& batch);
    void attention(const Batch& batch, int layer, int thread);
    void attention_task(const Batch& batch, int layer, int thread, const AttentionTask& task, const AttentionTask& next);
    void write_keys(const Batch& batch, int layer, int token, int head);
    void gather_queries(const Batch& batch, const AttentionTask& task, Scratch& scratch);
    const uint16_t* next_keys(const Batch& batch, int layer, const AttentionTask& task, int chunk, int p) const;
    float* partial(int token, int head, int chunk) const;
    void store_partials(const Span& span, const AttentionTask& task, int chunk, const Scratch& scratch);
    void store_attention(const Span& span, const AttentionTask& task, const Scratch& scratch);
    const float* attention_row(int token, Scratch& scratch);

    const Kernels& k_;
    const bool int16_;
    Pool pool_;
    Heads heads_;
    State state_;
};

}  // namespace camelid
