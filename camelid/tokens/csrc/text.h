// UTF-8 and classes of characters. All text comes from Python's str, so it is valid.
#pragma once
#include <cstddef>
#include <cstdint>

namespace camelid {

using Text = const uint8_t*;

// Bits of a class, as in tests/tokens/unicode_table.py. UPPER and LOWER are the sets of the cased expressions: both hold
// letters without case and marks. DIGIT is what the `Digits` step cuts apart, by a newer Unicode than NUMBER.
enum : uint8_t { LETTER = 1, NUMBER = 2, SPACE = 4, UPPER = 8, LOWER = 16, PUNCTUATION = 32, DIGIT = 64, LINE_END = 128 };

const uint8_t* class_table();  // by code point
extern const uint8_t* const CLASSES;

inline int length_at(Text p) { return *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4; }

inline uint32_t code_at(Text p, int length) {
    switch (length) {
        case 1: return p[0];
        case 2: return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
        case 3: return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
        default: return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    }
}

inline uint8_t class_at(Text p, int& length) {
    length = length_at(p);
    return CLASSES[code_at(p, length)];
}

// The class at p, or none at the end.
inline uint8_t class_before(Text p, Text end) {
    int length;
    return p < end ? class_at(p, length) : 0;
}

}  // namespace camelid
