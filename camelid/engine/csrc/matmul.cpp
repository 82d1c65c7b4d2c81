// How the threads share products: pieces are runs of groups of rows, times blocks of tokens where there are many. A thread
// takes neighbours, so that it reads its weights from front to end and its tokens' activations stay in its cache.
#include <algorithm>

#include "forward.h"

namespace camelid {
namespace {

constexpr size_t PREFETCH_BYTES = 16 << 10;  // of the next phase's weights, fetched before its phase begins
constexpr size_t PIECE_BYTES = 32 << 10;     // of weights, so that a slow core holds nobody up
constexpr size_t NEAR_BYTES = 96 << 10;      // where strips follow each other, weights that stay near meanwhile
constexpr int RUNS_A_THREAD = 64;            // at most

void add_bias(const Matrix& matrix, int tokens, int first, int columns, float* out, size_t stride) {
    if (!matrix.bias) return;
    const float* bias = matrix.bias + (size_t)first * LANES;
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < columns; i++) out[(size_t)t * stride + (size_t)i] += bias[i];
}

}  // namespace

// All threads have as many runs of groups in lane 0, or one would be waited for.
Model::Grid Model::grid_of(const Worker& w, std::initializer_list<Product> products, const Activations& in) const {
    int groups = 0;
    for (const Product& product : products) groups += product.a->groups;
    const bool many = in.count > STRIP;
    const int step = std::max(1, (int)((many ? NEAR_BYTES : PIECE_BYTES) / products.begin()->a->group_bytes));
    const int shares = w.lane ? 1 : pool_.size();
    int runs = (groups + step - 1) / step;
    runs = std::min((runs + shares - 1) / shares * shares, groups);
    int blocks = 1;
    if (many) {
        blocks = std::clamp((in.count + GATED_TOKENS - 1) / GATED_TOKENS, 1, pool_.room());
        runs = std::clamp(runs, 1, pool_.room() / blocks);
    }
    const int block = (in.count + blocks * STRIP - 1) / (blocks * STRIP) * STRIP;
    return {std::min(runs, RUNS_A_THREAD * shares), (in.count + block - 1) / block, block};
}

void Model::matmul(const Worker& w, std::initializer_list<Product> products, const Activations& in, const Matrix* next,
                   const std::function<void()>& prepare) {
    if (!in.count) return;
    int groups = 0;
    for (const Product& product : products) groups += product.a->groups;
    const Grid grid = grid_of(w, products, in);
    const auto multiply_piece = [&](int piece, auto&& commit) {
        const auto start = [&](int run) { return (int)((int64_t)groups * run / grid.runs); };
        const int run = piece / grid.blocks, from = start(run), to = start(run + 1);
        const int token = piece % grid.blocks * grid.block_tokens;
        const Tokens tokens{token, std::min(grid.block_tokens, in.count - token)};
        const size_t stride = (size_t)(to - from) * LANES;
        float* results = w.scratch.results.grow((size_t)tokens.count * stride);
        const auto each_product = [&](auto&& act) {  // act(product, its groups, their results)
            int end = 0, first = from;
            for (const Product& product : products) {
                const int begin = end, stop = std::min(to, end += product.a->groups);
                if (first >= stop) continue;
                act(product, first - begin, stop - begin, results + (size_t)(first - from) * LANES);
                first = stop;
            }
        };
        if (prepare) prepare();
        each_product([&](const Product& product, int first, int last, float* out) {
            multiply_groups(w, product, in, tokens, first, last, out, stride);
        });
        if (!commit()) return;
        each_product([&](const Product& product, int first, int last, const float* out) {
            store_groups(product, {in.first + token, tokens.count}, first, last, out, stride);
        });
    };
    pool_.phase(w.thread, w.lane, grid.runs * grid.blocks, multiply_piece, [&] {
        if (next) prefetch(w, *next);
    });
}

void Model::multiply_groups(const Worker& w, const Product& product, const Activations& in, Tokens tokens, int first, int last,
                            float* out, size_t stride) {
    if (!product.up) {
        k_.matmul(*product.a, in.layout, in.base, tokens.first, tokens.count, first, last, out, stride, false);
        return add_low_rank(w, product.slot, in, tokens, first, last, out, stride);
    }
    constexpr int wide = GATED_GROUPS * LANES;
    float *gate = w.scratch.gated.data(), *up = gate + GATED_TOKENS * wide;
    for (; first < last; first += GATED_GROUPS, out += wide) {
        const int stop = std::min(first + GATED_GROUPS, last), columns = (stop - first) * LANES;
        for (int token = 0; token < tokens.count; token += GATED_TOKENS) {
            const int n = std::min(GATED_TOKENS, tokens.count - token), at = tokens.first + token;
            k_.matmul(*product.a, in.layout, in.base, at, n, first, stop, gate, wide, false);
            k_.matmul(*product.up, in.layout, in.base, at, n, first, stop, up, wide, false);
            add_low_rank(w, product.slot, in, {at, n}, first, stop, gate, wide);
            add_low_rank(w, UP_PROJ, in, {at, n}, first, stop, up, wide);
            add_bias(*product.a, n, first, columns, gate, wide), add_bias(*product.up, n, first, columns, up, wide);
            for (int t = 0; t < n; t++)
                k_.silu(gate + t * wide, up + t * wide, columns, out + (size_t)(token + t) * stride);
        }
    }
}

void Model::store_groups(const Product& product, Tokens to, int first, int last, const float* results, size_t stride) const {
    const int columns = std::min((last - first) * LANES, product.columns - first * LANES);
    float* out = product.out + (size_t)to.first * product.stride + (size_t)first * LANES;
    for (size_t t = 0; t < (size_t)to.count; t++) {
        float* row = out + t * product.stride;
        if (product.adds)
            for (int i = 0; i < columns; i++) row[i] += results[t * stride + (size_t)i];
        else
            std::copy_n(results + t * stride, columns, row);
    }
    if (!product.up) add_bias(*product.a, to.count, first, columns, out, product.stride);
}

// act(adapter, first, how many) for runs of a strip's tokens with the same adapter, of those of `in`.
template <class Act>
void Model::each_adapter(const Worker& w, const Activations& in, int token, int tokens, int side, Act&& act) const {
    const auto adapter = [&](int t) {
        const int row = in.first + t;
        return w.pass.token_adapter[(size_t)(in.place.asked ? w.pass.wanted[(size_t)row] : row)];
    };
    for (int at = token, end = token + tokens; at < end;) {
        const int own = adapter(at), begin = at;
        while (++at < end && (at - token) / side == (begin - token) / side && adapter(at) == own) continue;
        if (own) act(own, begin, at - begin);
    }
}

// down · x of some tokens of `in`, whose activations lie at `base` from its first token on: rows of `low_width`.
void Model::project_down(const Worker& w, std::initializer_list<Product> products, const Activations& in, int token, int tokens,
                         const ActivationLayout& layout, const uint8_t* base, float* lows) const {
    const size_t width = (size_t)low_width();
    const auto project = [&](int slot) {
        float* out = lows + low_place(slot) * weights.most_ranks();
        each_adapter(w, in, token, tokens, layout.side, [&](int adapter, int at, int n) {
            const Matrix& down = weights.low_rank(adapter, in.place.layer, slot).down;
            if (!down.rows) return;
            k_.matmul(down, layout, base, at - token, n, 0, down.groups, out + (size_t)(at - token) * width, width, false);
        });
    };
    for (const Product& product : products) {
        project(product.slot);
        if (product.up) project(UP_PROJ);
    }
}

void Model::store_low(const Activations& to, int token, int tokens, const float* lows) const {
    const size_t width = (size_t)low_width(), side = (size_t)to.layout.side;
    for (size_t t = 0; t < (size_t)tokens; t++) {
        const size_t at = (size_t)token + t;
        float* out = to.low + at / side * side * width + at % side;
        for (size_t i = 0; i < width; i++) out[i * side] = lows[t * width + i];
    }
}

// out += up · low of the tokens that have an adapter.
void Model::add_low_rank(const Worker& w, int slot, const Activations& in, Tokens tokens, int first, int last, float* out,
                         size_t stride) const {
    if (!in.low) return;
    const int side = in.layout.side;
    const ActivationLayout layout{nullptr, low_width(), side, sizeof(block_q8), 0, 0, 0};
    const uint8_t* low = (const uint8_t*)(in.low + (size_t)(low_place(slot) * weights.most_ranks()) * (size_t)side);
    each_adapter(w, in, tokens.first, tokens.count, side, [&](int adapter, int at, int n) {
        const Matrix& up = weights.low_rank(adapter, in.place.layer, slot).up;
        if (up.rows) k_.matmul(up, layout, low, at, n, first, last, out + (size_t)(at - tokens.first) * stride, stride, true);
    });
}

// The thread's own first piece of the next phase, fetched while the others finish this one.
void Model::prefetch(const Worker& w, const Matrix& matrix) {
    if (w.pass.tokens > STRIP) return;
    const int first = (int)((int64_t)matrix.groups * w.thread / pool_.size());  // as the pool shares them out
    const size_t rest = (size_t)(matrix.groups - first) * matrix.group_bytes;
    k_.prefetch(matrix.group(first), std::min(PREFETCH_BYTES, rest));
}

}  // namespace camelid
