#include "weights.h"

#include <algorithm>

#include "pack.h"

namespace camelid {

Weights::Weights(const Config& config) : layers((size_t)config.layers) {
    ones_.grow((size_t)padded(config.dim));
    std::fill(ones_.data(), ones_.data() + config.dim, 1.0f);
}

void Weights::reserve() {
    const auto each = [&](auto&& visit) {
        for (Layer& layer : layers)
            for (Matrix& matrix : layer.matrix) visit(matrix);
        visit(head);
    };
    bytes_ = 0;
    each([&](Matrix& matrix) { bytes_ += matrix.groups * matrix.group_bytes; });
    memory_ = Arena(bytes_ + 4096, true);
    uint8_t* next = memory_.data();
    each([&](Matrix& matrix) { matrix.data = next, next += matrix.groups * matrix.group_bytes; });
}

size_t Weights::fill(const Matrix& matrix, const uint8_t* blocks, size_t row_bytes, Pool& pool) {
    const int step = std::max(1, matrix.groups / (pool.size() * 4));
    std::atomic<size_t> rounded{0};
    std::atomic<int> next{0};
    pool.run([&](int) {
        for (int i; (i = next++) * step < matrix.groups;)
            rounded += pack(matrix, blocks, row_bytes, i * step, std::min(matrix.groups, (i + 1) * step));
    });
    return rounded;
}

void Weights::set_bias(int layer, int slot, const float* bias) {
    Layer& l = layers[(size_t)layer];
    Matrix& matrix = l.matrix[slot];
    float* own = l.bias[slot].grow((size_t)matrix.groups * LANES);
    std::fill(own, own + matrix.groups * LANES, 0.0f);
    std::copy(bias, bias + matrix.rows, own);
    matrix.bias = own;
}

void Weights::set_norm(int layer, int slot, const float* weight, int width) {
    std::copy(weight, weight + width, layers[(size_t)layer].norm[slot].grow((size_t)padded(width)));
}

void Weights::set_final_norm(const float* weight, int width) {
    std::copy(weight, weight + width, final_norm_.grow((size_t)padded(width)));
}

int Weights::add_adapter() {
    adapters_.emplace_back();
    adapters_.back().matrices.resize(layers.size() * N_MATRICES);
    return n_adapters();
}

void Weights::set_low_rank(int adapter, int layer, int slot, const float* down, const float* up, int rank) {
    Adapter& to = adapters_[(size_t)adapter - 1];
    const Matrix& base = layers[(size_t)layer].matrix[slot];
    const auto packed = [&](const float* numbers, int rows, int columns) {
        Matrix matrix = shape_of(Kind::F32, rows, columns);
        to.memory.emplace_back(matrix.groups * matrix.group_bytes);
        matrix.data = to.memory.back().data();
        pack(matrix, (const uint8_t*)numbers, 4 * (size_t)columns, 0, matrix.groups);
        return matrix;
    };
    to.matrices[(size_t)(layer * N_MATRICES + slot)] = {packed(down, rank, base.columns), packed(up, base.rows, rank)};
    most_ranks_ = std::max(most_ranks_, padded(rank));
}

uint64_t Weights::read(const Kernels& kernels, Pool& pool) const {
    std::atomic<uint64_t> sink{0};
    const size_t share = bytes_ / (size_t)pool.size() / 1024 * 1024;
    pool.run([&](int thread) { sink += kernels.read(memory_.data() + (size_t)thread * share, share); });
    return sink;
}

}  // namespace camelid
