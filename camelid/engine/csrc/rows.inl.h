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

// Blocks of 32: x = scale · (128 · high + low), fourteen bits and a sign, so that products are as good as exact; or
// seven bits and a sign, which halves the work.
inline void prepare_bytes(const float* x, int width, const RowLayout& at, uint8_t* row) {
    const float most = at.fine ? 127 * 128 : 127;
    float *scale = (float*)(row + at.scale), *scaled_sum = (float*)(row + at.scaled_sum);
    int32_t *minus32 = (int32_t*)(row + at.minus32), *minus16 = (int32_t*)(row + at.minus16);
    F odd = zero();  // NaN if any number is not finite: bytes would hide it
    for (int b = 0; b < width / 32; b++) {
        const F half[2] = {load(x + 32 * b), load(x + 32 * b + 16)};
        const float peak = top(max(abs(half[0]), abs(half[1]))), inverse = peak > 0 ? most / peak : 0.0f;
        int8_t* bytes = (int8_t*)row + at.bytes + 64 * (size_t)b;
        int32_t sums[2];
        for (int i = 0; i < 2; i++) {
            const I whole = to_int(mul(half[i], set1(inverse)));
            const I high = at.fine ? to_int(mul(to_float(whole), set1(1.0f / 128))) : whole;
            store_s8(bytes + 16 * i, high);
            if (at.fine) store_s8(bytes + 32 + 16 * i, iadd(whole, imul(high, iset1(-128))));
            minus16[2 * b + i] = -(sums[i] = isum(whole));
            odd = fma(half[i], zero(), odd);
        }
        scale[b] = peak / most;
        scaled_sum[b] = scale[b] * (float)(sums[0] + sums[1]);
        minus32[b] = -(sums[0] + sums[1]);
    }
    if (width >= 32) scale[0] += sum(odd), scaled_sum[0] += sum(odd);
}

void prepare(const float* x, int width, int forms, const RowLayout& layout, uint8_t* row) {
    if (forms & FORM_BYTES) prepare_bytes(x, width, layout, row);
    if (forms & FORM_FLOATS) std::memcpy(row + layout.floats, x, sizeof(float) * (size_t)width);
    if (forms & FORM_BRAIN) {
        uint16_t* brain = (uint16_t*)(row + layout.brain);
        for (int i = 0; i < width; i++) brain[i] = to_brain(x[i]);
        if (width % 2) brain[width] = 0;
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
