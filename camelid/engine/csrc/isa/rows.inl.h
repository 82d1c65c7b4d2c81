// What happens to one token's row between the matrices, for any instruction set.
#pragma once

namespace camelid::CAMELID_ISA {

// e^x of N registers, to about two units in the last place; 0 far below, and NaN stays NaN. Cody and Waite's reduction:
// x = n ln 2 + r. They take each step together: a chain of steps alone fills the processor's queue with what waits.
template <int N> inline INLINE void exp(F (&x)[N]) {
    F n[N], p[N];
    const auto step = [&](auto&& of) INLINE { each<N>([&](auto i) INLINE { of(x[i], n[i], p[i]); }); };
    const auto power = [&](float c) INLINE { step([=](F& r, F&, F& p) INLINE { p = fma(p, r, set1(c)); }); };
    step([](F& x, F&, F&) INLINE { x = min(set1(88.0f), max(set1(-87.0f), x)); });  // the second operand is what a NaN leaves
    step([](F& x, F& n, F&) INLINE { n = round(mul(x, set1(1.44269504f))); });
    step([](F& x, F& n, F&) INLINE { x = fma(n, set1(-0.693359375f), x); });
    step([](F& r, F& n, F&) INLINE { r = fma(n, set1(2.12194440e-4f), r); });
    step([](F&, F&, F& p) INLINE { p = set1(1.9875691500e-4f); });
    power(1.3981999507e-3f), power(8.3334519073e-3f), power(4.1665795894e-2f), power(1.6666665459e-1f), power(5.0000001201e-1f);
    step([](F& r, F&, F& p) INLINE { p = fma(p, mul(r, r), add(r, set1(1.0f))); });
    step([](F& x, F& n, F& p) INLINE { x = mul(p, from_bits(shl<23>(iadd(to_int(n), iset1(127))))); });  // 2^n: its exponent
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

// Lane i of the result: what the lanes of register i, of(i), give when they are joined two by two. Registers from `n` on
// leave anything. Of the levels of this tree, those of up to NEAR registers join lanes within fours.
template <int N, int NEAR, int FIRST = 0, class Of, class Join> inline INLINE auto in_lanes(int n, Of&& of, Join&& join) {
    if constexpr (N == 1) {
        return of(FIRST);
    } else {
        const auto a = in_lanes<N / 2, NEAR, FIRST>(n, of, join);
        const auto b = FIRST + N / 2 < n ? in_lanes<N / 2, NEAR, FIRST + N / 2>(n, of, join) : a;
        return join(a, b, [](I a, I b) INLINE { return N <= NEAR ? evens(a, b) : even_fours(a, b); },
                    [](I a, I b) INLINE { return N <= NEAR ? odds(a, b) : odd_fours(a, b); });
    }
}

// Of sixteen blocks, in lanes: the largest magnitude of a group of four, with 7 − the group's number as its three lowest bits,
// and that of the next group.
struct Largest {
    I first, second;
};
inline Largest find_largest(const float* x, int blocks) {
    const auto fours_of = [=](int pair) INLINE {  // lanes: groups of four q and q + 4 of both blocks, for q of 0 … 3
        const auto magnitudes = [=](int i) INLINE { return iand(bits_of(load(x + 64 * pair + LANES * i)), iset1(0x7fffffff)); };
        const I most = in_lanes<4, 4>(2 * (blocks - 2 * pair), magnitudes, [](I a, I b, auto even, auto odd) INLINE {
            return imax(even(a, b), odd(a, b));  // of numbers that are not negative bits are ordered as they are
        });
        static const int32_t numbers[LANES] = {7, 3, 7, 3, 6, 2, 6, 2, 5, 1, 5, 1, 4, 0, 4, 0};
        return Largest{ior(iand(most, iset1(-8)), iload(numbers)), izero()};
    };
    const auto larger = [](const Largest& a, const Largest& b, auto even, auto odd) INLINE {
        const I left = even(a.first, b.first), right = odd(a.first, b.first);
        const I others = imax(even(a.second, b.second), odd(a.second, b.second));
        return Largest{imax(left, right), imax(others, imin(left, right))};
    };
    return in_lanes<8, 2>((blocks + 1) / 2, fours_of, larger);
}

// Up to sixteen blocks of 32 numbers. Bytes lose most where one number is far larger than its neighbours: so the largest group
// of four of a block is left out of its scale and has high bytes. On English text and the default model the divergence from
// float32 falls from 3e-3 to 3e-4. `in_q16`: they go to blocks of block_q16.
inline void quantize_blocks(const float* x, int blocks, bool int16, bool in_q16, uint8_t* to, size_t stride) {
    constexpr float MOST = 63 * 256 + 127;  // fifteen bits
    alignas(64) int32_t fours[LANES], integers[LANES][32], sums[2 * LANES];
    int8_t high_bytes[LANES][32];
    alignas(64) float scales[LANES], inverses[LANES];
    for (int i = 0; i < blocks; i++) prefetch_to_write(to + (size_t)i * stride);
    const Largest most = find_largest(x, blocks);
    const F peak = from_bits(most.first), step16 = mul(peak, set1(1 / MOST)), step8 = mul(from_bits(most.second), set1(1.0f / 127));
    const F step = max(int16 ? step16 : max(step16, step8), set1(1e-36f));
    istore(fours, ixor(iand(most.first, iset1(7)), iset1(7)));
    store(scales, add(step, mul(peak, zero())));  // NaN if any number is not finite: bytes would hide it
    store(inverses, div(set1(1.0f), step));
    for (int i = 0; i < blocks; i++)
        for (int half = 0; half < 2; half++) {
            block_q16& block = *(block_q16*)(to + (size_t)i * stride);
            const I n = to_int(mul(load(x + 32 * i + LANES * half), set1(inverses[i]))), raised = iadd(n, iset1(128));
            istore(integers[i] + LANES * half, n), store_s8(block.bytes + LANES * half, n);
            store_s8((in_q16 ? block.high_bytes : high_bytes[i]) + LANES * half, shr<8>(raised));
        }
    const auto add_up = [](I a, I b, auto even, auto odd) INLINE { return iadd(even(a, b), odd(a, b)); };
    for (int i = 0; i < blocks; i += LANES / 2) {
        const I sum = in_lanes<LANES, 4>(2 * (blocks - i), [&](int j) INLINE { return iload(integers[i] + LANES * j); }, add_up);
        istore(sums + 2 * i, sum);
    }
    for (int i = 0; i < blocks; i++) {
        block_q8& block = *(block_q8*)(to + (size_t)i * stride);
        std::memcpy(block.high, (in_q16 ? ((block_q16&)block).high_bytes : high_bytes[i]) + 4 * fours[i], 4);
        const uint32_t first = (uint32_t)sums[2 * i], second = (uint32_t)sums[2 * i + 1];
        block.group_of_four = 64 * fours[i], block.in_first = fours[i] < 4 ? -1 : 0;
        block.minus8 = (int32_t)(-8u * (first + second));
        block.minus32[0] = (int32_t)(-32u * first), block.minus32[1] = (int32_t)(-32u * second);
        block.scale = scales[i], block.scaled_sum = scales[i] * (float)(int32_t)(first + second);
    }
}

void quantize(const float* x, int forms, const ActivationLayout& layout, uint8_t* activations, int token, bool int16) {
    const int width = layout.width;
    if (forms & FORM_Q8) {
        const int blocks = width / 32;
        const size_t stride = (size_t)layout.side * layout.block_bytes(token);
        uint8_t* to = layout.blocks(activations, token);
        for (int i = 0; i < blocks; i += LANES)
            quantize_blocks(x + 32 * i, blocks - i < LANES ? blocks - i : LANES, int16, layout.is_int16(token),
                            to + (size_t)i * stride, stride);
    }
    if (forms & FORM_F32) {
        float* floats = layout.f32(activations, token);
        for (int i = 0; i < width; i++) floats[(size_t)i * layout.side] = x[i];
    }
    if (forms & FORM_BF16) {
        uint32_t* pairs = layout.bf16(activations, token);
        for (int i = 0; i < width; i += 2) {
            const uint32_t second = i + 1 < width ? to_bf16(x[i + 1]) : 0;
            pairs[(size_t)(i / 2) * layout.side] = to_bf16(x[i]) | second << 16;
        }
    }
}

template <int N> inline INLINE void silu_of(const float* gate, const float* up, float* out) {
    F power[N];
    each<N>([&](auto i) INLINE { power[i] = sub(zero(), load(gate + LANES * i)); });
    exp(power);
    each<N>([&](auto i) INLINE {
        const F activated = div(load(gate + LANES * i), add(set1(1.0f), power[i]));
        store(out + LANES * i, mul(activated, load(up + LANES * i)));
    });
}

void silu(const float* gate, const float* up, int n, float* out) {
    in_tiles<4>(n / LANES, 0, [&](auto count, int i) { silu_of<count()>(gate + LANES * i, up + LANES * i, out + LANES * i); });
}

void rope(const float* x, const float* cos, const float* sin, int width, float scale, float* out) {
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
