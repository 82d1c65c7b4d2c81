// How the threads share products: each takes runs of groups of rows, and reads its weights once from front to end; of many
// tokens it takes its own, so that their activations stay in its cache.
#include <algorithm>

#include "forward.h"

namespace camelid {
namespace {

constexpr int PIECES = 8;                    // of a product for each thread at least, so that all end together
constexpr size_t PREFETCH_BYTES = 16 << 10;  // of the next phase's weights, fetched before a barrier
constexpr size_t PIECE_BYTES = 32 << 10;     // taken at once, so that a slow core holds nobody up
constexpr size_t NEAR_BYTES = 192 << 10;     // where strips follow each other, weights that stay near meanwhile

// Groups `first` to `last` of a matrix's bias, added to each token's outputs, which begin at `first`.
void add_bias(const Matrix& matrix, int tokens, int first, int last, float* out, size_t stride) {
    if (!matrix.bias) return;
    const float* bias = matrix.bias + (size_t)first * LANES;
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < (last - first) * LANES; i++) out[(size_t)t * stride + (size_t)i] += bias[i];
}

}  // namespace

void Model::matmul(int thread, const Product* products, int n_products, const Activations& in) {
    int groups = 0;
    for (int j = 0; j < n_products; j++) groups += products[j].a->groups;
    const auto piece = [&](int first, int last) {
        int end = 0;
        for (int j = 0; j < n_products && first < last; j++) {
            const int begin = end, stop = std::min(last, end += products[j].a->groups);
            if (first >= stop) continue;
            matmul_groups(thread, products[j], in, first - begin, stop - begin);
            first = stop;
        }
    };
    const bool many = in.count > STRIP;
    int step = std::max(1, (int)((many ? NEAR_BYTES : PIECE_BYTES) / products[0].a->group_bytes));
    if (in.all_rows) {
        for (int first = 0; first < groups; first += step) piece(first, std::min(first + step, groups));
        return;
    }
    if (many) step = std::max(1, std::min(step, groups / (PIECES * pool_.size())));
    for (int first, last; pool_.take(thread, groups, step, first, last);) piece(first, last);
}

void Model::matmul_groups(int thread, const Product& product, const Activations& in, int first, int last) {
    const size_t stride = product.stride;
    float* to = product.out + (size_t)in.first * stride;
    if (!product.up) {
        to += (size_t)first * LANES;
        k_.matmul(*product.a, in.layout, in.base, 0, in.count, first, last, to, stride, product.adds);
        return add_bias(*product.a, in.count, first, last, to, stride);
    }
    constexpr int wide = GATED_GROUPS * LANES;
    float *gate = state_.scratch[(size_t)thread].gated.data(), *up = gate + GATED_TOKENS * wide;
    for (; first < last; first += GATED_GROUPS) {
        const int stop = std::min(first + GATED_GROUPS, last);
        for (int token = 0; token < in.count; token += GATED_TOKENS) {
            const int n = std::min(GATED_TOKENS, in.count - token);
            k_.matmul(*product.a, in.layout, in.base, token, n, first, stop, gate, wide, false);
            k_.matmul(*product.up, in.layout, in.base, token, n, first, stop, up, wide, false);
            add_bias(*product.a, n, first, stop, gate, wide), add_bias(*product.up, n, first, stop, up, wide);
            float* out = to + (size_t)token * stride + (size_t)first * LANES;
            for (int t = 0; t < n; t++) k_.silu(gate + t * wide, up + t * wide, (stop - first) * LANES, out + (size_t)t * stride);
        }
    }
}

// The thread's own first piece of the next phase, fetched while the others finish this one.
void Model::prefetch(const Matrix& matrix, int thread) {
    if (state_.tokens > STRIP) return;
    const int first = (int)((int64_t)matrix.groups * thread / pool_.size());  // as Pool::take shares them out
    const size_t rest = (size_t)(matrix.groups - first) * matrix.group_bytes;
    k_.prefetch(matrix.group(first), std::min(PREFETCH_BYTES, rest));
}

}  // namespace camelid
