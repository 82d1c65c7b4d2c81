#include "forward.h"

#include <algorithm>

namespace camelid {
namespace {

constexpr int ALL_FORMS = FORM_Q8 | FORM_BF16 | FORM_F32;
constexpr int PRIVATE_TOKENS = 2;   // so few are prepared by every thread for itself, which saves a phase
constexpr int OWN_TOKENS = 16, OWN_TOKENS_A_THREAD = 4;  // where each has so many, it goes on with its own

int side_of(int tokens) { return tokens <= PRIVATE_TOKENS ? std::max(1, tokens) : STRIP; }

constexpr size_t TILED_BYTES = sizeof(tile_strip) / STRIP;  // of a token's block

ActivationLayout layout_of(int width, int forms, const uint8_t* int16_strips, size_t block_room, int tokens, int side) {
    ActivationLayout layout{int16_strips, width, side, block_room, 0, 0, 0, block_room == TILED_BYTES};
    const size_t room = (size_t)((tokens + side - 1) / side * side);
    size_t end = 0;
    const auto place = [&](int form, size_t bytes) {
        const size_t begin = end;
        if (forms & form) end = (end + room * bytes + 63) / 64 * 64;
        return begin;
    };
    place(FORM_Q8, layout.block_room * (size_t)(width / 32));
    layout.bf16_begin = place(FORM_BF16, 2 * (size_t)(width + 1));
    layout.f32_begin = place(FORM_F32, 4 * (size_t)width);
    layout.end = end;
    return layout;
}

// A token's activations, of either layout's strip of the same blocks.
void copy_activations(int forms, const ActivationLayout& from_layout, const uint8_t* from, int from_token,
                      const ActivationLayout& layout, uint8_t* to, int token) {
    const int width = layout.width;
    if (forms & FORM_Q8 && !layout.tiled) {
        const size_t bytes = layout.block_bytes(token), stride = bytes * (size_t)layout.side;
        const uint8_t* source = from_layout.blocks(from, from_token);
        uint8_t* target = layout.blocks(to, token);
        for (int b = 0; b < width / 32; b++) std::memcpy(target + (size_t)b * stride, source + (size_t)b * bytes, bytes);
    }
    if (forms & FORM_F32)
        for (int i = 0; i < width; i++)
            layout.f32(to, token)[(size_t)i * layout.side] = from_layout.f32(from, from_token)[i];
    if (forms & FORM_BF16)
        for (int i = 0; i < (width + 1) / 2; i++)
            layout.bf16(to, token)[(size_t)i * layout.side] = from_layout.bf16(from, from_token)[i];
}

// The same for a whole strip, whose tokens lie in both as they do in any.
void copy_strip(int forms, const ActivationLayout& from_layout, const uint8_t* from, const ActivationLayout& layout, uint8_t* to,
                int token) {
    const size_t width = (size_t)layout.width, side = (size_t)layout.side;
    if (forms & FORM_Q8 && !layout.tiled)
        std::copy_n(from_layout.blocks(from, 0), width / 32 * side * layout.block_bytes(token), layout.blocks(to, token));
    if (forms & FORM_F32) std::copy_n(from_layout.f32(from, 0), side * width, layout.f32(to, token));
    if (forms & FORM_BF16) std::copy_n(from_layout.bf16(from, 0), side * ((width + 1) / 2), layout.bf16(to, token));
}

}  // namespace

Model::Model(const Config& config, const Kernels& kernels, int threads, bool int16)
    : config(config), weights(config), k_(kernels), int16_(int16),
      heads_{config.head_dim, padded(config.head_dim), config.heads / config.kv_heads, false},
      state_(config, heads_, std::max(1, threads)), pool_(threads) {
    const size_t own = layout_of(state_.widest, ALL_FORMS, nullptr, sizeof(block_q16), STRIP, 1).end;
    for (Scratch& scratch : state_.scratch) scratch.activations.grow(own);
}

void Model::reserve() {
    weights.reserve();
    // Where any matrix keeps its activations' 24 bits, keys and values keep eleven.
    bool any_f32 = false;
    for (const Layer& layer : weights.layers)
        for (const Matrix& matrix : layer.matrix) any_f32 |= form_of(matrix.kind) == FORM_F32;
    heads_.bf16 = k_.has_bf16 && !int16_ && !any_f32;
}

// --- the pass --------------------------------------------------------------------------------------------------

void Model::forward(const Batch& batch) {
    auto pass = std::make_shared<Pass>(state_.plan(batch));
    share_tokens(*pass);
    plan_attention(*pass);
    state_.make_room(*pass, pool_);
    make_room(*pass);
    embed(batch);
    pool_.walk([this, pass](int thread) { walk(*pass, thread); });
}

void Model::embed(const Batch& batch) {
    for (size_t t = 0; t < (size_t)batch.tokens; t++)
        std::copy_n(batch.embedded + t * config.dim, config.dim, state_.x.data() + t * state_.dim);
}

// Between two attentions each lane goes through a layer's end and the next one's beginning.
void Model::walk(const Pass& pass, int thread) {
    const Worker w{pass, state_.scratch[(size_t)thread], thread, 0};
    float* x = state_.x.data();
    each_lane(w, pass.tokens, [&](const Worker& w) { project_qkv(w, 0); });
    for (int layer = 0; layer + 1 < config.layers; layer++) {
        attention(w, layer);
        each_lane(w, pass.tokens, [&](const Worker& w) {
            attention_output(w, layer, x, pass.tokens);
            feed_forward_block(w, layer, x, pass.tokens);
            project_qkv(w, layer + 1);
        });
    }
    const int last = config.layers - 1, wanted = (int)pass.wanted.size();
    attention(w, last);
    if (!wanted) return;
    if (wanted < pass.tokens) gather_wanted(w), x = state_.asked.data();
    each_lane(w, wanted, [&](const Worker& w) {
        attention_output(w, last, x, wanted);
        feed_forward_block(w, last, x, wanted);
    });
    head(w, x);
}

void Model::project_qkv(const Worker& w, int layer) {
    State& s = state_;
    const Layer& l = weights.layers[(size_t)layer];
    const Matrix &q = l.matrix[Q_PROJ], &k = l.matrix[K_PROJ], &v = l.matrix[V_PROJ];
    const size_t stride = (size_t)s.qkv_stride;
    multiply(w, {layer, false},
             {{&q, nullptr, s.qkv.data(), stride, s.q, false, Q_PROJ},
              {&k, nullptr, s.qkv.data() + s.q, stride, s.kv, false, K_PROJ},
              {&v, nullptr, s.qkv.data() + s.q + s.kv, stride, s.kv, false, V_PROJ}},
             w.pass.tokens, config.dim, int16_, &l.matrix[O_PROJ], [&](int t) -> const float* {
                 const float* x = s.x.data() + (size_t)t * s.dim;
                 if (config.norms_after) return x;
                 norm(x, weights.norm(layer, NORM_INPUT), w.scratch.normed.data());
                 return w.scratch.normed.data();
             });
    if (config.qk_norm || config.clip_qkv > 0) adjust_qkv(w, layer);
    if (!w.pass.writes_with_attention) write_all_keys(w, layer);
}

// In the last layer only the wanted rows go on: so few that fifteen bits for all cost little, where no later layer evens out
// what is rounded. The output matrix too.
void Model::attention_output(const Worker& w, int layer, float* x, int tokens) {
    State& s = state_;
    const bool last = layer + 1 == config.layers, after = config.norms_after;
    const Matrix& o = weights.layers[(size_t)layer].matrix[O_PROJ];
    multiply(w, {layer, last}, {{&o, nullptr, after ? s.added.data() : x, (size_t)s.dim, s.dim, !after, O_PROJ}}, tokens,
             config.heads * config.head_dim, int16_ || last, &weights.layers[(size_t)layer].matrix[GATE_PROJ],
             [&](int t) { return attention_row(w, last ? w.pass.wanted[(size_t)t] : t); });
    if (after) add_normed(w, layer, NORM_ATTENTION, x, tokens);
}

void Model::feed_forward_block(const Worker& w, int layer, float* x, int tokens) {
    State& s = state_;
    const bool last = layer + 1 == config.layers, after = config.norms_after, int16 = int16_ || last;
    const Layer& l = weights.layers[(size_t)layer];
    const Matrix &gate = l.matrix[GATE_PROJ], &up = l.matrix[UP_PROJ], &down = l.matrix[DOWN_PROJ];
    multiply(w, {layer, last}, {{&gate, &up, s.hidden.data(), (size_t)s.ffn, s.ffn, false, GATE_PROJ}}, tokens, config.dim, int16, &down,
             [&](int t) -> const float* {
                 const float* row = x + (size_t)t * s.dim;
                 if (after) return row;
                 norm(row, weights.norm(layer, NORM_ATTENTION), w.scratch.normed.data());
                 return w.scratch.normed.data();
             });
    multiply(w, {layer, last}, {{&down, nullptr, after ? s.added.data() : x, (size_t)s.dim, s.dim, !after, DOWN_PROJ}}, tokens, config.ffn_dim, int16,
             last ? &weights.head : &weights.layers[(size_t)layer + 1].matrix[Q_PROJ],
             [&](int t) { return s.hidden.data() + (size_t)t * s.ffn; });
    if (after) add_normed(w, layer, NORM_FEED_FORWARD, x, tokens);
}

// The final norm, which gives hidden states, and the output matrix, which gives logits.
void Model::head(const Worker& w, const float* x) {
    const Pass& pass = w.pass;
    const auto normed = [&](int row) -> const float* {
        norm(x + (size_t)row * state_.dim, weights.final_norm(), w.scratch.normed.data());
        return w.scratch.normed.data();
    };
    if (const int rows = (int)pass.hidden_at.size())
        pool_.phase(w.thread, 0, rows, [&](int i, auto&& commit) {
            const float* row = normed(pass.hidden_at[(size_t)i]);
            if (commit()) std::copy_n(row, config.dim, pass.hidden + (size_t)i * config.dim);
        });
    const Product logits{&weights.head, nullptr, pass.logits, (size_t)config.vocab, config.vocab, false, -1};
    if (const int rows = (int)pass.logits_at.size())
        each_lane(w, rows, [&](const Worker& w) {
            multiply(w, {-1, true}, {logits}, rows, config.dim, true, nullptr, [&](int i) { return normed(pass.logits_at[(size_t)i]); });
        });
}

// Brings the stream's wanted rows together, in order.
void Model::gather_wanted(const Worker& w) {
    const State& s = state_;
    each_run(w, tokens_of(w, (int)w.pass.wanted.size()), [&](int first, int n, auto&& commit) {
        if (!commit()) return;
        for (int t = first; t < first + n; t++)
            std::copy_n(s.x.data() + (size_t)w.pass.wanted[(size_t)t] * s.dim, s.dim, s.asked.data() + (size_t)t * s.dim);
    });
}

// OLMo's switches on what the projections gave: norms over all of q and k, and the clamp.
void Model::adjust_qkv(const Worker& w, int layer) {
    const State& s = state_;
    const size_t stride = (size_t)s.qkv_stride;
    each_run(w, tokens_of(w, w.pass.tokens), [&](int first, int n, auto&& commit) {
        float* rows = w.scratch.results.grow((size_t)n * stride);
        std::copy_n(s.qkv.data() + (size_t)first * stride, (size_t)n * stride, rows);
        for (int t = 0; t < n; t++) {
            float *q = rows + (size_t)t * stride, *k = q + s.q;
            if (config.qk_norm) {
                k_.norm(q, weights.norm(layer, NORM_Q), config.heads * config.head_dim, config.eps, false, q);
                k_.norm(k, weights.norm(layer, NORM_K), config.kv_heads * config.head_dim, config.eps, false, k);
            }
            if (config.clip_qkv > 0)
                for (size_t i = 0; i < stride; i++) q[i] = std::clamp(q[i], -config.clip_qkv, config.clip_qkv);
        }
        if (commit()) std::copy_n(rows, (size_t)n * stride, s.qkv.data() + (size_t)first * stride);
    });
}

void Model::add_normed(const Worker& w, int layer, int slot, float* x, int tokens) {
    const State& s = state_;
    const size_t dim = (size_t)s.dim;
    each_run(w, tokens_of(w, tokens), [&](int first, int n, auto&& commit) {
        float* rows = w.scratch.results.grow((size_t)n * dim);
        for (int t = 0; t < n; t++)
            norm(s.added.data() + (size_t)(first + t) * dim, weights.norm(layer, slot), rows + (size_t)t * dim);
        if (!commit()) return;
        for (int t = 0; t < n; t++)
            for (int i = 0; i < config.dim; i++) x[(size_t)(first + t) * dim + (size_t)i] += rows[(size_t)t * dim + (size_t)i];
    });
}

// --- activations and the lanes' tokens -------------------------------------------------------------------------

// row(t) gives the numbers of token t.
template <class Row>
void Model::multiply(const Worker& w, Place place, std::initializer_list<Product> products, int tokens, int width, bool int16,
                     const Matrix* next, Row&& row) {
    const bool adapts = w.pass.adapts && place.layer >= 0;
    int forms = adapts ? FORM_F32 : 0;
    for (const Product& product : products)
        forms |= form_of(product.a->kind) | form_of((product.up ? product.up : product.a)->kind);
    const Tokens own = tokens_of(w, tokens);
    const ActivationLayout layout = layout_for(w, own, width, forms, int16);
    if (own.count > PRIVATE_TOKENS) {
        const uint8_t* base = state_.activations.data() + (size_t)std::max(0, w.lane - 1) * lane_bytes_;
        float* low = state_.low.data() + (size_t)(own.first + w.lane * STRIP) * (size_t)low_width();
        const Activations in{own, base, layout, place, adapts ? low : nullptr};
        quantize(w, products, in, forms, int16, row);
        return matmul(w, products, in, next, {});
    }
    uint8_t* base = w.scratch.activations.data();
    float* low = adapts ? w.scratch.low.grow(PRIVATE_TOKENS * (size_t)low_width()) : nullptr;
    const Activations in{own, base, layout, place, low};
    bool ready = false;
    const auto prepare = [&] {
        for (int t = 0; t < own.count && !ready; t++)
            k_.quantize(row(own.first + t), forms, layout, base, t, is_int16(w.pass, own.first + t, int16));
        if (low && !ready) {
            float* lows = w.scratch.lows.grow(PRIVATE_TOKENS * (size_t)low_width());
            project_down(w, products, in, 0, own.count, layout, base, lows);
            store_low(in, 0, own.count, lows);
        }
        ready = true;
    };
    matmul(w, products, in, next, std::cref(prepare));
}

// The lane's activations, in the forms that the next phase's matrices multiply.
template <class Row>
void Model::quantize(const Worker& w, std::initializer_list<Product> products, const Activations& to, int forms, bool int16, Row&& row) {
    each_run(w, to, [&](int first, int n, auto&& commit) {
        const int token = first - to.first;
        const bool whole = n == STRIP && to.layout.side == STRIP && token % STRIP == 0;
        uint8_t strips[STRIP], *own = w.scratch.activations.data(), *base = (uint8_t*)to.base;
        for (int t = 0; t < n; t++) strips[t] = to.layout.tiled || to.layout.is_int16(token + t);
        const ActivationLayout layout = layout_of(to.layout.width, forms, strips, sizeof(block_q16), n, whole ? STRIP : 1);
        for (int t = 0; t < n; t++) k_.quantize(row(first + t), forms, layout, own, t, is_int16(w.pass, first + t, int16));
        float* lows = to.low ? w.scratch.lows.grow(STRIP * (size_t)low_width()) : nullptr;
        if (lows) project_down(w, products, to, token, n, layout, own, lows);
        if (!commit()) return;
        if (lows) store_low(to, token, n, lows);
        if (to.layout.tiled && forms & FORM_Q8)
            for (int t = 0; t < n; t++)
                k_.fill_tiles((const block_q16*)layout.blocks(own, t), (size_t)layout.side * sizeof(block_q16), layout.width / 32,
                              (tile_strip*)to.layout.blocks(base, (token + t) / STRIP * STRIP), (token + t) % STRIP);
        if (whole) return copy_strip(forms, layout, own, to.layout, base, token);
        for (int t = 0; t < n; t++) copy_activations(forms, layout, own, t, to.layout, base, token + t);
    });
}

size_t Model::block_room(int tokens, bool int16) const {
    if (k_.fill_tiles && tokens >= k_.tiles_from) return TILED_BYTES;
    return int16 ? sizeof(block_q16) : sizeof(block_q8);
}

ActivationLayout Model::layout_for(const Worker& w, const Tokens& tokens, int width, int forms, bool int16) {
    const int side = side_of(tokens.count);
    uint8_t* strips = w.scratch.int16_strips.grow((size_t)tokens.count / STRIP + 1);
    bool any = false;
    for (int t = 0; t < tokens.count; t++) {
        if (t % side == 0) strips[t / side] = 0;
        if (is_int16(w.pass, tokens.first + t, int16)) strips[t / side] = 1, any = true;
    }
    return layout_of(width, forms, strips, block_room(tokens.count, any), tokens.count, side);
}

// For the activations of so many tokens.
void Model::make_room(const Pass& pass) {
    size_t bytes = 0, lane_bytes = 0;
    for (int rows : {pass.tokens, (int)pass.wanted.size(), (int)pass.logits_at.size()}) {
        const bool lanes = split_by_token(rows);
        for (int lane = lanes; lane <= (lanes ? pool_.size() : 0); lane++) {
            const int tokens = tokens_of({pass, state_.scratch[0], 0, lane}, rows).count;
            const size_t own = layout_of(state_.widest, ALL_FORMS, nullptr, block_room(tokens, true), std::max(1, tokens), STRIP).end;
            (lanes ? lane_bytes : bytes) = std::max(lanes ? lane_bytes : bytes, own);
        }
    }
    bytes = std::max(bytes, lane_bytes * (size_t)pool_.size());
    const size_t low = pass.adapts ? (size_t)(pass.tokens + (pool_.size() + 2) * STRIP) * (size_t)low_width() : 0;
    if (low > state_.low.size()) pool_.settle(), state_.low.grow(low);
    if (lane_bytes > lane_bytes_ || state_.activations.size() < bytes) {
        pool_.settle();
        lane_bytes_ = std::max(lane_bytes_, lane_bytes);
        state_.activations.grow(std::max(bytes, lane_bytes_ * (size_t)pool_.size()));
    }
}

// Whether each thread goes on with its own tokens. Each reads all weights then: more threads need more tokens, or memory would
// hold them up.
bool Model::split_by_token(int tokens) const {
    return tokens >= pool_.size() * std::max(OWN_TOKENS, OWN_TOKENS_A_THREAD * pool_.size());
}

Model::Tokens Model::tokens_of(const Worker& w, int tokens) const {
    if (w.lane == 0) return {0, tokens};
    const bool all = tokens == w.pass.tokens;  // else those of the last layer, which cost the same
    const auto start = [&](int i) {
        return all ? w.pass.token_starts[(size_t)i] : (int)((int64_t)tokens * i / pool_.size());
    };
    return {start(w.lane - 1), start(w.lane) - start(w.lane - 1)};
}

// Where each lane's own tokens begin, so that all have as much to do: an int16 token costs a third more, but not in tiles.
void Model::share_tokens(Pass& pass) const {
    const int threads = pool_.size(), tokens = pass.tokens;
    const int64_t cost = 3, int16_cost = block_room(tokens / threads, true) == TILED_BYTES ? cost : 4;
    std::vector<int>& starts = pass.token_starts;
    int64_t total = 0, sum = 0;
    for (int t = 0; t < tokens; t++) total += is_int16(pass, t, int16_) ? int16_cost : cost;
    starts.assign(1, 0);
    for (int t = 0; t < tokens; t++) {
        sum += is_int16(pass, t, int16_) ? int16_cost : cost;
        while ((int)starts.size() < threads && sum * threads >= total * (int64_t)starts.size()) starts.push_back(t + 1);
    }
    starts.push_back(tokens);
}

// Of many tokens each thread goes through its own lane, then helps in others; of few all go through one together.
template <class Act> void Model::each_lane(const Worker& w, int tokens, Act&& act) const {
    if (!split_by_token(tokens)) return act(w);
    for (int i = 0; i < pool_.size(); i++)
        act(Worker{w.pass, w.scratch, w.thread, 1 + (w.thread + i) % pool_.size()});
}

}  // namespace camelid
