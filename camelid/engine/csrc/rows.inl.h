// What happens to one token's row between the matrices, for any instruction set.
#pragma once

namespace camelid::CAMELID_ISA {

// e^x to about two units in the last place; 0 far below, and NaN stays NaN. Cody and Waite's reduction: x = n ln 2 + r.
inline F exp(F x) {
    const F limited = min(set1(88.0f), max(set1(-87.0f), x));  // the second operand is what a NaN leaves
    const F n = round(mul(limited, set1(1.44269504f)));
    F r = fma(n, set1(-0.693359375f), limited);
    r = fma(n, set1(2.12194440e-4f), r);
    F p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    p = fma(p, mul(r, r), add(r, set1(1.0f)));
    return mul(p, pow2(n));
}

void norm(const float* x, const float* weight, int width, float eps, bool centred, float* out) {
    const int n = (width + LANES - 1) / LANES * LANES;
    F mean = zero();
    if (centred) {
        F total = zero();
        for (int i = 0; i < n; i += LANES) total = add(total, load(x + i));
        mean = set1(sum(total) / (float)width);
    }
    F squares = zero();
    for (int i = 0; i < n; i += LANES) {
        const F v = centred ? mul(sub(load(x + i), mean), load(weight + i)) : load(x + i);  // weight: 1, 0 behind
        squares = fma(v, v, squares);
    }
    const F scale = set1(1.0f / std::sqrt(sum(squares) / (float)width + eps));
    for (int i = 0; i < n; i += LANES) store(out + i, mul(mul(sub(load(x + i), mean), scale), load(weight + i)));
}

// A block is wide where its largest number is this many times the row's root mean square: a quarter of them on English text
// and the default model, which carry most of what eight bits lose. KL to float32 falls from 3.4e-3 to 0.3e-3.
constexpr float STANDS_OUT = 3.0f;

// Stores 32 whole numbers of eight bits and their sums.
inline void prepare_round(Round& round, I first, I second) {
    store_s8(round.bytes, first), store_s8(round.bytes + LANES, second);
    round.minus_half[0] = -isum(first), round.minus_half[1] = -isum(second);
    round.minus = round.minus_half[0] + round.minus_half[1];
}

// Blocks of 32: x = high + low, fourteen bits and a sign in all, so that products are as good as exact. A block that is not
// wide has high bytes only; nobody reads its low ones.
inline void prepare_records(const float* x, const RowLayout& layout, Record* record) {
    F squares = zero();
    for (int i = 0; i < layout.width; i += LANES) squares = fma(load(x + i), load(x + i), squares);
    const float usual = STANDS_OUT * std::sqrt(sum(squares) / (float)layout.width);
    const float odd = usual * 0.0f;  // NaN if any number is not finite: bytes would hide it
    for (int b = 0; b < layout.width / 32; b++, x += 32, record += layout.side) {
        const F first = load(x), second = load(x + LANES);
        const float peak = top(max(abs(first), abs(second)));
        const bool wide = layout.fine || peak > usual;
        const float most = wide ? 127 * 128 : 127;
        const F inverse = set1(peak > 0 ? most / peak : 0.0f);
        const I whole[2] = {to_int(mul(first, inverse)), to_int(mul(second, inverse))};
        record->high.scale = peak / 127 + odd, record->low.scale = peak / (127 * 128) + odd;
        record->wide = wide, record->low.minus = 0;
        if (wide) {
            const F part = set1(1.0f / 128);
            const I high[2] = {to_int(mul(to_float(whole[0]), part)), to_int(mul(to_float(whole[1]), part))};
            prepare_round(record->high, high[0], high[1]);
            prepare_round(record->low, iadd(whole[0], imul(high[0], iset1(-128))), iadd(whole[1], imul(high[1], iset1(-128))));
        } else {
            prepare_round(record->high, whole[0], whole[1]);
        }
        record->scaled_sum = record->low.scale * (float)-(128 * record->high.minus + record->low.minus);
    }
}

void prepare(const float* x, int forms, const RowLayout& layout, uint8_t* rows, int token) {
    const int width = layout.width;
    if (forms & FORM_BYTES) prepare_records(x, layout, layout.records(rows, token));
    if (forms & FORM_FLOATS) {
        float* numbers = layout.numbers(rows, token);
        for (int i = 0; i < width; i++) numbers[(size_t)i * layout.side] = x[i];
    }
    if (forms & FORM_BRAIN) {
        uint32_t* pairs = layout.pairs(rows, token);
        for (int i = 0; i < width; i += 2) {
            const uint32_t second = i + 1 < width ? to_brain(x[i + 1]) : 0;
            pairs[(size_t)(i / 2) * layout.side] = to_brain(x[i]) | second << 16;
        }
    }
}

void silu(const float* gate, const float* up, int n, float* out) {
    for (int i = 0; i < n; i += LANES) {
        const F g = load(gate + i);
        const F sigmoid = div(set1(1.0f), add(set1(1.0f), exp(sub(zero(), g))));
        store(out + i, mul(mul(g, sigmoid), load(up + i)));
    }
}

void rotate(const float* x, const float* cos, const float* sin, int width, float scale, float* out) {
    const int half = width / 2;
    int i = 0;
    for (; i + LANES <= half; i += LANES) {
        const F c = load(cos + i), s = load(sin + i), first = load(x + i), second = load(x + half + i);
        store(out + i, mul(sub(mul(first, c), mul(second, s)), set1(scale)));
        store(out + half + i, mul(add(mul(second, c), mul(first, s)), set1(scale)));
    }
    for (; i < half; i++) {
        const float first = x[i], second = x[half + i];
        out[i] = (first * cos[i] - second * sin[i]) * scale;
        out[half + i] = (second * cos[i] + first * sin[i]) * scale;
    }
}

void write_key(const float* key, int width, uint16_t* page, int place) {
    alignas(64) uint16_t halves[LANES];
    for (int i = 0; i < width; i += LANES) {
        alignas(64) float part[LANES] = {};
        const int n = width - i < LANES ? width - i : LANES;
        std::memcpy(part, key + i, sizeof(float) * (size_t)n);
        store_f16(halves, load(part));
        for (int j = 0; j < n; j++) page[(i + j) * LANES + place] = halves[j];
    }
}

void write_value(const float* value, const Heads& heads, uint16_t* page, int place) {
    for (int i = 0; i < heads.padded; i += LANES) {
        alignas(64) float part[LANES] = {};
        const int n = heads.width - i < LANES ? heads.width - i : LANES;
        std::memcpy(part, value + i, sizeof(float) * (size_t)n);
        store_f16(page + place * heads.padded + i, load(part));
    }
}

}  // namespace camelid::CAMELID_ISA
