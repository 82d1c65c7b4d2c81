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
    return mul(p, from_bits(shl<23>(iadd(to_int(n), iset1(127)))));  // 2^n: its exponent
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

// Of sixteen blocks: their largest number, where its quad is, and the largest number of the other quads.
struct Largest {
    float peak[LANES], rest[LANES];
    int quad[LANES];
};
inline void find_largest(F first, F second, Largest& most, int i) {
    static const int32_t numbers[2][LANES] = {{7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5, 5, 4, 4, 4, 4},
                                              {3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0}};
    // A quad's number takes the three lowest bits of its largest: no two are alike, and the first of equals leads.
    const auto keys = [](F x, const int32_t* numbers) {
        return from_bits(ior(iand(bits_of(top_of_fours(abs(x))), iset1(-8)), iload(numbers)));
    };
    const F left = keys(first, numbers[0]), right = keys(second, numbers[1]);
    const float peak = top(max(left, right));
    int32_t bits;
    std::memcpy(&bits, &peak, 4);
    most.peak[i] = peak, most.quad[i] = 7 - (bits & 7);
    most.rest[i] = top(max(without(left, set1(peak)), without(right, set1(peak))));
}

// All bits of 32 numbers but for the upper ones in a quad, whose bytes have room for seven.
struct Kept {
    alignas(64) int32_t bits[8][32];
};
constexpr Kept kept_outside() {
    Kept kept{};
    for (int quad = 0; quad < 8; quad++)
        for (int i = 0; i < 32; i++) kept.bits[quad][i] = i / 4 == quad ? 127 : -1;
    return kept;
}

// 32 numbers as whole ones, x · inverse, with room beyond bytes in all quads or in one.
inline void fill_record(const float* x, float step, float inverse, int quad, bool fine, float odd, Record& record) {
    static constexpr Kept kept_bits = kept_outside();
    const I whole[2] = {to_int(mul(load(x), set1(inverse))), to_int(mul(load(x + LANES), set1(inverse)))};
    int8_t overs[32], *to = fine ? ((FineRecord&)record).overs : overs;
    for (int i = 0; i < 2; i++) {
        const I raised = iadd(whole[i], iset1(64));
        const I mask = fine ? iset1(127) : iload(kept_bits.bits[quad] + LANES * i);
        const I kept = iand(raised, mask);
        store_s8(record.bytes + LANES * i, iadd(kept, iset1(-64)));
        store_s8(to + LANES * i, shr<7>(ixor(raised, kept)));
    }
    std::memcpy(record.over, to + 4 * quad, 4);
    record.quad = quad, record.in_first = quad < 4 ? -1 : 0;
    const uint32_t halves[2] = {(uint32_t)isum(whole[0]), (uint32_t)isum(whole[1])}, all = halves[0] + halves[1];
    record.minus8 = (int32_t)(-8u * all);
    for (int i = 0; i < 2; i++) record.minus32[i] = (int32_t)(-32u * halves[i]);
    record.scale = step + odd, record.scaled_sum = record.scale * (float)(int32_t)all;
}

// Bytes lose most where one number is far larger than its neighbours: so the largest quad of a block is left out
// of its scale and goes beyond its bytes. On English text and the default model the divergence from float32 falls from 3e-3 to
// 3e-4.
inline void prepare_records(const float* x, const RowLayout& layout, uint8_t* to) {
    constexpr float MOST = 127 * 128 + 63;  // what a byte and 128 times another one reach
    F squares = zero();
    for (int i = 0; i < layout.width; i += LANES) squares = fma(load(x + i), load(x + i), squares);
    const float odd = sum(squares) * 0.0f;  // NaN if any number is not finite: bytes would hide it
    const int blocks = layout.width / 32;
    for (int begin = 0; begin < blocks; begin += LANES) {
        const int n = blocks - begin < LANES ? blocks - begin : LANES;
        Largest most = {};
        for (int i = 0; i < n; i++) find_largest(load(x + 32 * i), load(x + 32 * i + LANES), most, i);
        const F fine = mul(load(most.peak), set1(1 / MOST)), rough = mul(load(most.rest), set1(1.0f / 127));
        const F step = max(layout.fine ? fine : max(fine, rough), set1(1e-36f));
        float steps[LANES], inverses[LANES];
        store(steps, step), store(inverses, div(set1(1.0f), step));
        for (int i = 0; i < n; i++, x += 32, to += (size_t)layout.side * layout.record_bytes())
            fill_record(x, steps[i], inverses[i], most.quad[i], layout.fine, odd, *(Record*)to);
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

}  // namespace camelid::CAMELID_ISA
