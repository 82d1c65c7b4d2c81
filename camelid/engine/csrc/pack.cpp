#include "pack.h"

#include <cstring>

#include "half.h"

namespace camelid {
namespace {

using Lane = size_t (*)(const uint8_t* row, int columns, const Matrix& m, uint8_t* group, int lane);

uint32_t word(const uint8_t* p) {
    uint32_t w;
    std::memcpy(&w, p, 4);
    return w;
}
void put_word(uint8_t* p, uint32_t w) { std::memcpy(p, &w, 4); }
uint8_t* register_at(uint8_t* payload, int index, int lane) { return payload + 64 * index + 4 * lane; }
void copy_half(uint8_t* to, int lane, const uint8_t* from) { std::memcpy(to + 2 * lane, from, 2); }

// Sixteen bytes of low and high nibbles: word q holds columns 4q … 4q + 3 low and 16 + 4q … high, as Q4_0 has them.
void put_nibbles(uint8_t* payload, int lane, const uint8_t* packed) {
    for (int q = 0; q < 4; q++) std::memcpy(register_at(payload, q, lane), packed + 4 * q, 4);
}

// The fifth bits: bit q of byte j belongs to column 4q + j.
void put_fifth_bits(uint8_t* payload, int lane, uint32_t bits) {
    uint32_t sorted = 0;
    for (int q = 0; q < 8; q++) {
        const uint32_t four = bits >> (4 * q) & 15u;
        sorted |= ((four & 1u) | (four & 2u) << 7 | (four & 4u) << 14 | (four & 8u) << 21) << q;
    }
    put_word(register_at(payload, 4, lane), sorted);
}

// Q4_0, Q4_1, Q5_0, Q5_1: one or two halves, four bytes of fifth bits or none, sixteen bytes.
template <int HALVES, bool FIFTH> size_t simple(const uint8_t* row, int columns, const Matrix& m, uint8_t* group, int lane) {
    const Traits& t = traits(m.kind);
    for (int b = 0; b < columns / 32; b++) {
        uint8_t *payload = group + block_at(t, b), *scales = payload + t.block_bytes;
        for (int i = 0; i < HALVES; i++) copy_half(scales + 32 * i, lane, row + 2 * i);
        row += 2 * HALVES;
        if (FIFTH) put_fifth_bits(payload, lane, word(row)), row += 4;
        put_nibbles(payload, lane, row);
        row += 16;
    }
    return 0;
}

size_t bytes(const uint8_t* row, int columns, const Matrix& m, uint8_t* group, int lane) {
    const Traits& t = traits(m.kind);
    for (int b = 0; b < columns / 32; b++, row += 34) {
        uint8_t* payload = group + block_at(t, b);
        copy_half(payload + t.block_bytes, lane, row);
        for (int q = 0; q < 8; q++) std::memcpy(register_at(payload, q, lane), row + 2 + 4 * q, 4);
    }
    return 0;
}

// Q4_K and Q5_K: two halves, twelve bytes of six-bit scales and minima, fifth bits or none, nibbles of 64 columns a run.
template <bool FIFTH> size_t super(const uint8_t* row, int columns, const Matrix& m, uint8_t* group, int lane) {
    const Traits& t = traits(m.kind);
    for (int s = 0; s < columns / 256; s++) {
        uint8_t* supers = group + super_at(t, 8 * s);
        copy_half(supers, lane, row), copy_half(supers + 32, lane, row + 2);
        const uint8_t *packed = row + 4, *fifth = row + 16, *nibbles = row + (FIFTH ? 48 : 16);
        for (int j = 0; j < 8; j++) {
            uint8_t *payload = group + block_at(t, 8 * s + j), *scales = payload + t.block_bytes;
            scales[lane] = j < 4 ? packed[j] & 63 : (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
            scales[16 + lane] = j < 4 ? packed[j + 4] & 63 : packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
            const uint8_t* run = nibbles + 32 * (j / 2);
            for (int q = 0; q < 4; q++) {
                const uint32_t first = word(run + 4 * q), second = word(run + 16 + 4 * q);
                const uint32_t low = (first & 0x0f0f0f0fu) | (second & 0x0f0f0f0fu) << 4;
                const uint32_t high = (first >> 4 & 0x0f0f0f0fu) | (second & 0xf0f0f0f0u);
                put_word(register_at(payload, q, lane), j % 2 ? high : low);
            }
            if (FIFTH) {
                uint32_t sorted = 0;
                for (int q = 0; q < 8; q++) sorted |= (word(fifth + 4 * q) >> j & 0x01010101u) << q;
                put_word(register_at(payload, 4, lane), sorted);
            }
        }
        row += FIFTH ? 176 : 144;
    }
    return 0;
}

// Q6_K: 128 bytes of nibbles, 64 bytes of upper bit pairs, sixteen signed scales, one half.
size_t six(const uint8_t* row, int columns, const Matrix& m, uint8_t* group, int lane) {
    const Traits& t = traits(m.kind);
    for (int s = 0; s < columns / 256; s++, row += 210) {
        copy_half(group + super_at(t, 8 * s), lane, row + 208);
        for (int j = 0; j < 8; j++) {  // 32 columns
            uint8_t *payload = group + block_at(t, 8 * s + j), *scales = payload + t.block_bytes;
            scales[lane] = row[192 + 2 * j], scales[16 + lane] = row[192 + 2 * j + 1];
            const uint8_t *low = row + 64 * (j / 4) + 32 * (j % 2), *high = row + 128 + 32 * (j / 4);
            const int nibble = j % 4 / 2 * 4, pair = j % 4 * 2;
            uint32_t upper[2] = {0, 0};
            for (int q = 0; q < 8; q++) upper[q / 4] |= (word(high + 4 * q) >> pair & 0x03030303u) << (2 * (q % 4));
            for (int q = 0; q < 4; q++) {
                const uint32_t first = word(low + 4 * q) >> nibble & 0x0f0f0f0fu;
                const uint32_t second = word(low + 16 + 4 * q) >> nibble & 0x0f0f0f0fu;
                put_word(register_at(payload, q, lane), first | second << 4);
            }
            put_word(register_at(payload, 4, lane), upper[0]), put_word(register_at(payload, 5, lane), upper[1]);
        }
    }
    return 0;
}

size_t floats(const uint8_t* row, int columns, const Matrix&, uint8_t* group, int lane) {
    for (int k = 0; k < columns; k++) std::memcpy(group + 64 * (size_t)k + 4 * lane, row + 4 * (size_t)k, 4);
    return 0;
}

size_t halves(const uint8_t* row, int columns, const Matrix&, uint8_t* group, int lane) {
    for (int k = 0; k < columns; k++) std::memcpy(group + 32 * (size_t)k + 2 * lane, row + 2 * (size_t)k, 2);
    return 0;
}

size_t brains(const uint8_t* row, int columns, const Matrix&, uint8_t* group, int lane) {
    size_t rounded = 0;
    for (int k = 0; k < columns; k++) {
        uint16_t half;
        std::memcpy(&half, row + 2 * (size_t)k, 2);
        const float weight = from_half(half);
        const uint16_t brain = to_brain(weight);
        rounded += weight != from_brain(brain);
        std::memcpy(group + 64 * (size_t)(k / 2) + 4 * lane + 2 * (k % 2), &brain, 2);
    }
    return rounded;
}

Lane lane_packer(Kind kind) {
    switch (kind) {
        case Kind::Q4_0: return simple<1, false>;
        case Kind::Q4_1: return simple<2, false>;
        case Kind::Q5_0: return simple<1, true>;
        case Kind::Q5_1: return simple<2, true>;
        case Kind::Q8_0: return bytes;
        case Kind::Q4_K: return super<false>;
        case Kind::Q5_K: return super<true>;
        case Kind::Q6_K: return six;
        case Kind::F32: return floats;
        case Kind::BF16:
        case Kind::F16: return halves;
        case Kind::F16_AS_BF16: return brains;
    }
    return nullptr;
}

size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

std::optional<Kind> packed_kind(const std::string& quant, bool halves_as_brain) {
    constexpr const char* names[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F32", "BF16", "F16"};
    for (int i = 0; i < 11; i++)
        if (quant == names[i]) return Kind(i) == Kind::F16 && halves_as_brain ? Kind::F16_AS_BF16 : Kind(i);
    return std::nullopt;
}

Matrix shape_of(Kind kind, int rows, int columns) {
    const Traits& t = traits(kind);
    Matrix m{kind, rows, columns, (rows + LANES - 1) / LANES, 0, nullptr};
    m.group_bytes = whole_lines(is_float(kind) ? (size_t)(columns + columns % 2) * t.block_bytes : block_at(t, columns / 32));
    return m;
}

size_t row_bytes_of(Kind kind, int columns) {
    const Traits& t = traits(kind);
    if (is_float(kind)) return (size_t)columns * (kind == Kind::F32 ? 4 : 2);
    const int small = columns / 32, large = columns / 256;
    if (t.scales == Scales::SUPER16) return (size_t)large * 210;
    if (t.scales == Scales::SUPER) return (size_t)large * (t.bits == 5 ? 176 : 144);
    return (size_t)small * (size_t)(4 * t.bits + (t.scales == Scales::TWO ? 4 : 2));
}

size_t pack(const Matrix& matrix, const uint8_t* blocks, size_t row_bytes, int first, int last) {
    const Lane fill = lane_packer(matrix.kind);
    size_t rounded = 0;
    for (int g = first; g < last; g++) {
        uint8_t* group = matrix.data + (size_t)g * matrix.group_bytes;
        for (int lane = 0; lane < LANES && g * LANES + lane < matrix.rows; lane++)
            rounded += fill(blocks + (size_t)(g * LANES + lane) * row_bytes, matrix.columns, matrix, group, lane);
    }
    return rounded;
}

}  // namespace camelid
