#include "pack.h"

#include <cstring>

#include "isa/half.h"

namespace camelid {
namespace {

uint32_t word(const void* p) {
    uint32_t w;
    std::memcpy(&w, p, 4);
    return w;
}
void put_word(uint8_t* p, uint32_t w) { std::memcpy(p, &w, 4); }
uint8_t* register_at(uint8_t* payload, int index, int lane) { return payload + 64 * index + 4 * lane; }
void put_half(uint8_t* to, int lane, const block_f16& half) { std::memcpy(to + 2 * lane, &half, 2); }

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

// pack_block<K>(block, i, group, lane) puts a row's block number i into a lane of its group, and returns how many weights were
// rounded. Of blocks of 32 columns this is where the weights and the scales go:
template <Kind K> struct Place {
    uint8_t *payload, *scales;
    Place(uint8_t* group, int i) : payload(group + block_at(traits(K), i)), scales(payload + traits(K).payload_bytes) {}
};

template <Kind K> size_t pack_block(const block_q4_0& block, int i, uint8_t* group, int lane) {
    const Place<K> to(group, i);
    put_half(to.scales, lane, block.d);
    put_nibbles(to.payload, lane, block.qs);
    return 0;
}

template <Kind K> size_t pack_block(const block_q4_1& block, int i, uint8_t* group, int lane) {
    const Place<K> to(group, i);
    put_half(to.scales, lane, block.d), put_half(to.scales + 32, lane, block.m);
    put_nibbles(to.payload, lane, block.qs);
    return 0;
}

template <Kind K> size_t pack_block(const block_q5_0& block, int i, uint8_t* group, int lane) {
    const Place<K> to(group, i);
    put_half(to.scales, lane, block.d);
    put_nibbles(to.payload, lane, block.qs), put_fifth_bits(to.payload, lane, word(block.qh));
    return 0;
}

template <Kind K> size_t pack_block(const block_q5_1& block, int i, uint8_t* group, int lane) {
    const Place<K> to(group, i);
    put_half(to.scales, lane, block.d), put_half(to.scales + 32, lane, block.m);
    put_nibbles(to.payload, lane, block.qs), put_fifth_bits(to.payload, lane, word(block.qh));
    return 0;
}

template <Kind K> size_t pack_block(const block_q8_0& block, int i, uint8_t* group, int lane) {
    const Place<K> to(group, i);
    put_half(to.scales, lane, block.d);
    for (int q = 0; q < 8; q++) std::memcpy(register_at(to.payload, q, lane), block.qs + 4 * q, 4);
    return 0;
}

// Q4_K and Q5_K: 32 columns number j of a block. Its scales and minima have six bits each, its nibbles lie in runs of 64 columns.
template <Kind K> void pack_k(const uint8_t* scales, const uint8_t* nibbles, int i, int j, uint8_t* group, int lane) {
    const Place<K> to(group, 8 * i + j);
    to.scales[lane] = j < 4 ? scales[j] & 63 : (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4;
    to.scales[16 + lane] = j < 4 ? scales[j + 4] & 63 : scales[j + 4] >> 4 | (scales[j] >> 6) << 4;
    const uint8_t* run = nibbles + 32 * (j / 2);
    for (int q = 0; q < 4; q++) {
        const uint32_t first = word(run + 4 * q), second = word(run + 16 + 4 * q);
        const uint32_t low = (first & 0x0f0f0f0fu) | (second & 0x0f0f0f0fu) << 4;
        const uint32_t high = (first >> 4 & 0x0f0f0f0fu) | (second & 0xf0f0f0f0u);
        put_word(register_at(to.payload, q, lane), j % 2 ? high : low);
    }
}

template <Kind K> size_t pack_block(const block_q4_K& block, int i, uint8_t* group, int lane) {
    uint8_t* supers = group + super_at(traits(K), 8 * i);
    put_half(supers, lane, block.d), put_half(supers + 32, lane, block.dmin);
    for (int j = 0; j < 8; j++) pack_k<K>(block.scales, block.qs, i, j, group, lane);
    return 0;
}

template <Kind K> size_t pack_block(const block_q5_K& block, int i, uint8_t* group, int lane) {
    uint8_t* supers = group + super_at(traits(K), 8 * i);
    put_half(supers, lane, block.d), put_half(supers + 32, lane, block.dmin);
    for (int j = 0; j < 8; j++) {
        pack_k<K>(block.scales, block.qs, i, j, group, lane);
        uint32_t sorted = 0;
        for (int q = 0; q < 8; q++) sorted |= (word(block.qh + 4 * q) >> j & 0x01010101u) << q;
        put_word(register_at(Place<K>(group, 8 * i + j).payload, 4, lane), sorted);
    }
    return 0;
}

template <Kind K> size_t pack_block(const block_q6_K& block, int i, uint8_t* group, int lane) {
    put_half(group + super_at(traits(K), 8 * i), lane, block.d);
    for (int j = 0; j < 8; j++) {  // 32 columns
        const Place<K> to(group, 8 * i + j);
        to.scales[lane] = (uint8_t)block.scales[2 * j], to.scales[16 + lane] = (uint8_t)block.scales[2 * j + 1];
        const uint8_t *low = block.ql + 64 * (j / 4) + 32 * (j % 2), *high = block.qh + 32 * (j / 4);
        const int nibble = j % 4 / 2 * 4, pair = j % 4 * 2;
        uint32_t upper[2] = {0, 0};
        for (int q = 0; q < 8; q++) upper[q / 4] |= (word(high + 4 * q) >> pair & 0x03030303u) << (2 * (q % 4));
        for (int q = 0; q < 4; q++) {
            const uint32_t first = word(low + 4 * q) >> nibble & 0x0f0f0f0fu;
            const uint32_t second = word(low + 16 + 4 * q) >> nibble & 0x0f0f0f0fu;
            put_word(register_at(to.payload, q, lane), first | second << 4);
        }
        put_word(register_at(to.payload, 4, lane), upper[0]), put_word(register_at(to.payload, 5, lane), upper[1]);
    }
    return 0;
}

template <Kind K> size_t pack_block(const block_f32& block, int i, uint8_t* group, int lane) {
    std::memcpy(group + 64 * (size_t)i + 4 * lane, &block, 4);
    return 0;
}

template <Kind K> size_t pack_block(const block_bf16& block, int i, uint8_t* group, int lane) {
    std::memcpy(group + 32 * (size_t)i + 2 * lane, &block, 2);
    return 0;
}

template <Kind K> size_t pack_block(const block_f16& block, int i, uint8_t* group, int lane) {
    if constexpr (K == Kind::F16) {
        std::memcpy(group + 32 * (size_t)i + 2 * lane, &block, 2);
        return 0;
    }
    uint16_t half;
    std::memcpy(&half, &block, 2);
    const float weight = from_f16(half);
    const uint16_t bf16 = to_bf16(weight);
    std::memcpy(group + 64 * (size_t)(i / 2) + 4 * lane + 2 * (i % 2), &bf16, 2);
    return weight != from_bf16(bf16);
}

// A row into a lane of its group.
template <Kind K, class Block> size_t pack_row(const uint8_t* row, int columns, uint8_t* group, int lane) {
    const Block* blocks = (const Block*)row;
    size_t rounded = 0;
    for (int i = 0; i < columns / traits(K).block_columns; i++) rounded += pack_block<K>(blocks[i], i, group, lane);
    return rounded;
}

using RowPacker = size_t (*)(const uint8_t* row, int columns, uint8_t* group, int lane);
#define CAMELID_PACKER(NAME, BLOCK, ...) pack_row<Kind::NAME, BLOCK>,
constexpr RowPacker ROW_PACKERS[] = {CAMELID_KINDS(CAMELID_PACKER)};
#undef CAMELID_PACKER

size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

std::optional<Kind> packed_kind(const std::string& name, bool f16_as_bf16) {
    for (int i = 0; i < N_FILE_KINDS; i++)
        if (name == TRAITS[i].name) return Kind(i) == Kind::F16 && f16_as_bf16 ? Kind::F16_AS_BF16 : Kind(i);
    return std::nullopt;
}

Matrix shape_of(Kind kind, int rows, int columns) {
    const Traits& t = traits(kind);
    Matrix m{kind, rows, columns, (rows + LANES - 1) / LANES, 0, nullptr, nullptr};
    m.group_bytes = whole_lines(is_float(kind) ? (size_t)(columns + columns % 2) * t.payload_bytes : block_at(t, columns / 32));
    return m;
}

size_t row_bytes_of(Kind kind, int columns) {
    const Traits& t = traits(kind);
    return (size_t)(columns / t.block_columns) * (size_t)t.block_bytes;
}

size_t pack(const Matrix& matrix, const uint8_t* blocks, size_t row_bytes, int first, int last) {
    const RowPacker pack_row = ROW_PACKERS[(int)matrix.kind];
    size_t rounded = 0;
    for (int g = first; g < last; g++) {
        uint8_t* group = matrix.data + (size_t)g * matrix.group_bytes;
        for (int lane = 0; lane < LANES && g * LANES + lane < matrix.rows; lane++)
            rounded += pack_row(blocks + (size_t)(g * LANES + lane) * row_bytes, matrix.columns, group, lane);
    }
    return rounded;
}

}  // namespace camelid
