// A model's shape and its packed weights.
#pragma once
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "pool.h"

namespace camelid {

inline int padded(int n) { return (n + LANES - 1) / LANES * LANES; }  // to whole registers

struct Config {
    int dim, layers, heads, kv_heads, head_dim, ffn_dim, vocab;
    float eps;
    bool layer_norm;   // LayerNorm without weights instead of RMSNorm (OLMo 1)
    bool norms_after;  // normalise what a block adds, not what it reads (OLMo 2)
    bool qk_norm;      // RMSNorm over all of q and all of k (OLMo 2)
    float clip_qkv;    // clamp q, k and v; 0: leave them (OLMo 1)
};

// The matrices and norms of a layer, and their names, which Python takes from here.
enum MatrixSlot : int { Q_PROJ, K_PROJ, V_PROJ, O_PROJ, GATE_PROJ, UP_PROJ, DOWN_PROJ, N_MATRICES };
constexpr const char* MATRICES[N_MATRICES] = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
enum NormSlot : int { NORM_INPUT, NORM_ATTENTION, NORM_FEED_FORWARD, NORM_Q, NORM_K, N_NORMS };
constexpr const char* NORMS[N_NORMS] = {"input_layernorm", "post_attention_layernorm", "post_feedforward_layernorm", "q_norm",
                                        "k_norm"};

struct Layer {
    Matrix matrix[N_MATRICES];
    Buffer<float> bias[N_MATRICES], norm[N_NORMS];
};

// What an adapter adds to a matrix: up · down, float32 (arXiv:2106.09685).
struct LowRank {
    Matrix down{}, up{};  // (rank, in), (out, rank); without rows: nothing
};
struct Adapter {
    std::vector<LowRank> matrices;  // of each layer and slot
    std::vector<Buffer<uint8_t>> memory;
};

// First every matrix's kind and shape, then `reserve`, then `fill` each from a file's blocks. The embedding is looked up in
// Python, where its blocks lie as the file has them.
class Weights {
public:
    explicit Weights(const Config& config);

    void reserve();  // memory for all matrices
    size_t fill(const Matrix& matrix, const uint8_t* blocks, size_t row_bytes, Pool& pool);  // how many were rounded
    void set_bias(int layer, int slot, const float* bias);  // as many numbers as the matrix has rows
    void set_norm(int layer, int slot, const float* weight, int width);
    void set_final_norm(const float* weight, int width);

    int add_adapter();  // its number, from 1 on
    void set_low_rank(int adapter, int layer, int slot, const float* down, const float* up, int rank);
    int n_adapters() const { return (int)adapters_.size(); }
    int most_ranks() const { return most_ranks_; }  // of any adapter's matrix, padded
    const LowRank& low_rank(int adapter, int layer, int slot) const {
        return adapters_[(size_t)adapter - 1].matrices[(size_t)(layer * N_MATRICES + slot)];
    }

    const float* norm(int layer, int slot) const { return or_ones(layers[(size_t)layer].norm[slot]); }
    const float* final_norm() const { return or_ones(final_norm_); }
    size_t bytes() const { return bytes_; }  // that a token's forward pass reads
    uint64_t read(const Kernels& kernels, Pool& pool) const;  // every byte once on all threads

    std::vector<Layer> layers;
    Matrix head{};  // the output matrix

private:
    const float* or_ones(const Buffer<float>& norm) const { return norm.data() ? norm.data() : ones_.data(); }

    Buffer<float> final_norm_, ones_;
    std::vector<Adapter> adapters_;
    int most_ranks_ = 0;
    Arena memory_;
    size_t bytes_ = 0;
};

}  // namespace camelid
