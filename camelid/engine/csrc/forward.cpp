#include "forward.h"

#include <algorithm>

namespace camelid {
namespace {

constexpr int PRIVATE_TOKENS = 2;   // so few are prepared by every thread for itself, which saves a barrier
constexpr int OWN_TOKENS = 16, OWN_TOKENS_A_THREAD = 4;  // where each has so many, it goes on with its own

int side_of(int tokens) { return tokens <= PRIVATE_TOKENS ? tokens : STRIP; }

ActivationLayout layout_of(int width, int forms, const uint8_t* int16_strips, bool any_int16, int tokens) {
    ActivationLayout layout{int16_strips, width, side_of(tokens), any_int16 ? sizeof(block_q16) : sizeof(block_q8), 0, 0, 0};
    const size_t room = (size_t)((tokens + layout.side - 1) / layout.side * layout.side);
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

}  // namespace

Model::Model(const Config& config, const Kernels& kernels, int threads, bool int16)
    : config(config), weights(config), k_(kernels), int16_(int16), pool_(threads),
      heads_{config.head_dim, padded(config.head_dim), config.heads / config.kv_heads, false},
      state_(config, heads_, pool_.size()) {}

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
    state_.start(batch);
    share_tokens();
    for (size_t rows : {(size_t)batch.tokens, state_.wanted.size(), batch.logits_rows.size()}) make_room((int)rows);
    plan_attention(batch);
    embed(batch);
    pool_.run([&](int thread) {
        for (int layer = 0; layer < config.layers; layer++) {
            attention_block(batch, layer, thread);
            feed_forward_block(layer, thread);
        }
        head(batch, thread);
    });
}

void Model::embed(const Batch& batch) {
    for (size_t t = 0; t < (size_t)batch.tokens; t++)
        std::copy_n(batch.embedded + t * config.dim, config.dim, state_.x.data() + t * state_.dim);
}

void Model::attention_block(const Batch& batch, int layer, int thread) {
    State& s = state_;
    const Layer& l = weights.layers[(size_t)layer];
    const Matrix &q = l.matrix[Q_PROJ], &k = l.matrix[K_PROJ], &v = l.matrix[V_PROJ], &o = l.matrix[O_PROJ];

    const Activations h = quantize(thread, s.tokens, config.dim, form_of(q.kind) | form_of(k.kind) | form_of(v.kind), int16_,
                                   [&](int t, Scratch& scratch) -> const float* {
                                       const float* x = s.x.data() + (size_t)t * s.dim;
                                       if (config.norms_after) return x;
                                       norm(x, weights.norm(layer, NORM_INPUT), scratch.normed.data());
                                       return scratch.normed.data();
                                   });
    const size_t stride = (size_t)s.qkv_stride;
    const Product qkv[] = {{&q, nullptr, s.qkv.data(), stride, false},
                           {&k, nullptr, s.qkv.data() + s.q, stride, false},
                           {&v, nullptr, s.qkv.data() + s.q + s.kv, stride, false}};
    matmul(thread, qkv, 3, h);
    prefetch(o, thread);
    barrier(s.tokens);
    if (config.qk_norm || config.clip_qkv > 0) adjust_qkv(layer, thread);
    attention(batch, layer, thread);
    pool_.barrier();

    // In the last layer only the wanted rows go on: so few that fifteen bits for all cost little, where no later layer evens
    // out what is rounded. The output matrix too.
    const bool last = layer + 1 == config.layers;
    const int left = last ? (int)s.wanted.size() : s.tokens;
    if (!left) return;
    if (last && left < s.tokens) gather_wanted(thread);
    const Activations attn = quantize(thread, left, config.heads * config.head_dim, form_of(o.kind), int16_ || last,
                                      [&](int t, Scratch& scratch) {
                                          return attention_row(last ? s.wanted[(size_t)t] : t, scratch);
                                      });
    const bool after = config.norms_after;
    const Product out{&o, nullptr, after ? s.added.data() : s.x.data(), (size_t)s.dim, !after};
    matmul(thread, &out, 1, attn);
    prefetch(l.matrix[GATE_PROJ], thread);
    barrier(left);
    if (after) add_normed(layer, NORM_ATTENTION, left, thread);
}

void Model::feed_forward_block(int layer, int thread) {
    State& s = state_;
    const bool last = layer + 1 == config.layers, int16 = int16_ || last;
    const int tokens = last ? (int)s.wanted.size() : s.tokens;
    if (!tokens) return;
    const Layer& l = weights.layers[(size_t)layer];
    const Matrix &gate = l.matrix[GATE_PROJ], &up = l.matrix[UP_PROJ], &down = l.matrix[DOWN_PROJ];

    const Activations h = quantize(thread, tokens, config.dim, form_of(gate.kind) | form_of(up.kind), int16,
                                   [&](int t, Scratch& scratch) -> const float* {
                                       const float* x = s.x.data() + (size_t)t * s.dim;
                                       if (config.norms_after) return x;
                                       norm(x, weights.norm(layer, NORM_ATTENTION), scratch.normed.data());
                                       return scratch.normed.data();
                                   });
    const Product gated{&gate, &up, s.hidden.data(), (size_t)s.ffn, false};
    matmul(thread, &gated, 1, h);
    prefetch(down, thread);
    barrier(tokens);

    const Activations hidden = quantize(thread, tokens, config.ffn_dim, form_of(down.kind), int16,
                                        [&](int t, Scratch&) { return s.hidden.data() + (size_t)t * s.ffn; });
    const bool after = config.norms_after;
    const Product out{&down, nullptr, after ? s.added.data() : s.x.data(), (size_t)s.dim, !after};
    matmul(thread, &out, 1, hidden);
    prefetch(last ? weights.head : weights.layers[(size_t)layer + 1].matrix[Q_PROJ], thread);
    barrier(tokens);
    if (after) add_normed(layer, NORM_FEED_FORWARD, tokens, thread);
}

// The final norm, which gives hidden states, and the output matrix, which gives logits.
void Model::head(const Batch& batch, int thread) {
    State& s = state_;
    const int n_hidden = (int)batch.hidden_rows.size(), n_logits = (int)batch.logits_rows.size();
    const auto normed = [&](int row, Scratch& scratch) -> const float* {
        norm(s.x.data() + (size_t)row * s.dim, weights.final_norm(), scratch.normed.data());
        return scratch.normed.data();
    };
    if (n_hidden && n_logits && split_by_token((int)s.wanted.size())) pool_.barrier();  // either has other threads' rows
    each_token(thread, n_hidden, [&](int i) {
        const float* row = normed(s.hidden_at[(size_t)i], s.scratch[(size_t)thread]);
        std::copy_n(row, config.dim, batch.hidden + (size_t)i * config.dim);
    });
    if (!n_logits) return;
    const Activations h = quantize(thread, n_logits, config.dim, form_of(weights.head.kind), true,
                                   [&](int i, Scratch& scratch) { return normed(s.logits_at[(size_t)i], scratch); });
    const bool direct = s.vocab == config.vocab;
    const Product logits{&weights.head, nullptr, direct ? batch.logits : s.logits.data(), (size_t)s.vocab, false};
    matmul(thread, &logits, 1, h);
    if (direct) return;
    barrier(n_logits);
    each_token(thread, n_logits, [&](int i) {
        std::copy_n(s.logits.data() + (size_t)i * s.vocab, config.vocab, batch.logits + (size_t)i * config.vocab);
    });
}

// Brings the stream's wanted rows to the front, in order.
void Model::gather_wanted(int thread) {
    State& s = state_;
    if (thread == 0)
        for (size_t i = 0; i < s.wanted.size(); i++)
            std::copy_n(s.x.data() + (size_t)s.wanted[i] * s.dim, s.dim, s.x.data() + i * s.dim);
    pool_.barrier();
}

// OLMo's switches on what the projections gave: norms over all of q and k, and the clamp.
void Model::adjust_qkv(int layer, int thread) {
    State& s = state_;
    each_token(thread, s.tokens, [&](int t) {
        float *q = s.qkv.data() + (size_t)t * s.qkv_stride, *k = q + s.q;
        if (config.qk_norm) {
            k_.norm(q, weights.norm(layer, NORM_Q), config.heads * config.head_dim, config.eps, false, q);
            k_.norm(k, weights.norm(layer, NORM_K), config.kv_heads * config.head_dim, config.eps, false, k);
        }
        if (config.clip_qkv > 0)
            for (int i = 0; i < s.qkv_stride; i++) q[i] = std::clamp(q[i], -config.clip_qkv, config.clip_qkv);
    });
    barrier(s.tokens);
}

void Model::add_normed(int layer, int slot, int tokens, int thread) {
    State& s = state_;
    float* normed = s.scratch[(size_t)thread].normed.data();
    each_token(thread, tokens, [&](int t) {
        norm(s.added.data() + (size_t)t * s.dim, weights.norm(layer, slot), normed);
        float* x = s.x.data() + (size_t)t * s.dim;
        for (int i = 0; i < config.dim; i++) x[i] += normed[i];
    });
    barrier(tokens);
}

// --- activations and the threads' tokens -----------------------------------------------------------------------

// row(t, thread's scratch) gives the numbers of token t, in the forms that the next phase's matrices multiply.
template <class Row>
Model::Activations Model::quantize(int thread, int tokens, int width, int forms, bool int16, Row&& row) {
    const TokenRange range = tokens_of(thread, tokens);
    const ActivationLayout layout = layout_for(thread, range, width, forms, int16);
    Scratch& scratch = state_.scratch[(size_t)thread];
    uint8_t* base = range.alone ? scratch.activations.data() : state_.activations.data();
    const auto put = [&](int t) {
        k_.quantize(row(range.first + t, scratch), forms, layout, base, t, is_int16(range.first + t, int16));
    };
    if (range.alone) {
        for (int t = 0; t < range.count; t++) put(t);
    } else {
        const int run = std::min(STRIP, (tokens + pool_.size() - 1) / pool_.size());  // neighbours share lines
        for (int first = thread * run; first < tokens; first += run * pool_.size())
            for (int t = first; t < std::min(first + run, tokens); t++) put(t);
        pool_.barrier();
    }
    return {range, base, layout};
}

ActivationLayout Model::layout_for(int thread, const TokenRange& range, int width, int forms, bool int16) {
    uint8_t* strips = state_.scratch[(size_t)thread].int16_strips.data();
    const int side = side_of(range.count);
    bool any = false;
    for (int t = 0; t < range.count; t++) {
        if (t % side == 0) strips[t / side] = 0;
        if (is_int16(range.first + t, int16)) strips[t / side] = 1, any = true;
    }
    return layout_of(width, forms, strips, any, range.count);
}

// For the activations of so many tokens.
void Model::make_room(int tokens) {
    for (int thread = 0; thread < pool_.size(); thread++) {
        const TokenRange range = tokens_of(thread, std::max(1, tokens));
        const size_t bytes = layout_of(state_.widest, FORM_Q8 | FORM_BF16 | FORM_F32, nullptr, true, range.count).end;
        Scratch& scratch = state_.scratch[(size_t)thread];
        (range.alone ? scratch.activations : state_.activations).grow(bytes);
        scratch.int16_strips.grow((size_t)range.count / STRIP + 1);
    }
}

// Whether each thread goes on with its own tokens. Each reads all weights then: more threads need more tokens, or memory would
// hold them up.
bool Model::split_by_token(int tokens) const {
    return tokens >= pool_.size() * std::max(OWN_TOKENS, OWN_TOKENS_A_THREAD * pool_.size());
}

Model::TokenRange Model::tokens_of(int thread, int tokens) const {
    if (!split_by_token(tokens)) return {0, tokens, tokens <= PRIVATE_TOKENS, false};
    const bool all = tokens == state_.tokens;  // else those of the last layer, which cost the same
    const auto start = [&](int i) { return all ? state_.token_starts[(size_t)i] : (int)((int64_t)tokens * i / pool_.size()); };
    return {start(thread), start(thread + 1) - start(thread), true, true};
}

// Where each thread's own tokens begin, so that all have as much to do: an int16 token costs a third more.
void Model::share_tokens() {
    constexpr int64_t cost = 3, int16_cost = 4;
    const int threads = pool_.size(), tokens = state_.tokens;
    std::vector<int>& starts = state_.token_starts;
    int64_t total = 0, sum = 0;
    for (int t = 0; t < tokens; t++) total += is_int16(t, int16_) ? int16_cost : cost;
    starts.assign(1, 0);
    for (int t = 0; t < tokens; t++) {
        sum += is_int16(t, int16_) ? int16_cost : cost;
        while ((int)starts.size() < threads && sum * threads >= total * (int64_t)starts.size()) starts.push_back(t + 1);
    }
    starts.push_back(tokens);
}

// Lets a thread go on when all tokens are there that it will read: at once if they are its own.
void Model::barrier(int tokens) {
    if (!split_by_token(tokens)) pool_.barrier();
}

}  // namespace camelid
