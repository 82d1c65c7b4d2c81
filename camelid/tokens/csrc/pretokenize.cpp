#include "pretokenize.h"

#include <cstring>
#include <memory>

#include "unicode_table.h"

namespace camelid {
namespace {

constexpr uint32_t CODES = 0x110000;

struct Table {
    std::unique_ptr<uint8_t[]> classes{new uint8_t[CODES]};
    Table() {
        constexpr size_t runs = sizeof CLASS_RUNS / sizeof *CLASS_RUNS;
        for (size_t run = 0; run < runs; run++) {
            const uint32_t first = CLASS_RUNS[run] >> 8, next = run + 1 < runs ? CLASS_RUNS[run + 1] >> 8 : CODES;
            std::memset(&classes[first], CLASS_RUNS[run] & 0xFF, next - first);
        }
    }
};

const Table TABLE;

}  // namespace

const uint8_t* class_table() { return TABLE.classes.get(); }
const uint8_t* const CLASSES = class_table();

namespace {

// Past characters that have one of the classes.
Text skip(Text p, Text end, uint8_t any, uint64_t& steps) {
    const Text start = p;
    int length;
    while (p < end && class_at(p, length) & any) p += length;
    steps += p - start + 1;
    return p;
}

constexpr uint8_t WORDLIKE = LETTER | NUMBER | SPACE;

// Past characters that are neither letters, numbers nor spaces.
Text skip_signs(Text p, Text end, uint64_t& steps) {
    const Text start = p;
    int length;
    while (p < end && !(class_at(p, length) & WORDLIKE)) p += length;
    steps += p - start + 1;
    return p;
}

bool is_sign(Text p, Text end) {
    int length;
    return p < end && !(class_at(p, length) & WORDLIKE);
}

// \s+(?!\S)|\s+ : a run of spaces, without the last one if something follows; with `lines`, \s*[\r\n]+ is tried before.
Text spaces(Text p, Text end, bool lines, uint64_t& steps) {
    const Text start = p;
    Text last = nullptr, line = nullptr;
    int length;
    for (uint8_t bits; p < end && (bits = class_at(p, length)) & SPACE; p += length) {
        last = p;
        if (bits & LINE_END) line = p + length;
    }
    steps += p - start + 1;
    if (lines && line) return line;
    return p < end && last > start ? last : p == start ? nullptr : p;
}

// 's|'t|'re|'ve|'m|'ll|'d at an apostrophe. `fold`: in capitals too, as the expression says it: by Unicode's folding (which
// knows ſ for s), or letter by letter.
enum Fold { NONE, UNICODE, ASCII };
template <Fold FOLD>
Text contraction(Text p, Text end) {
    if (p >= end || *p != '\'' || end - p < 2) return nullptr;
    const uint8_t lower = FOLD == NONE ? 0 : 0x20, one = p[1] | lower, two = end - p > 2 ? p[2] | lower : 0;
    if (one == 's' || one == 't' || one == 'm' || one == 'd') return p + 2;
    if ((one == 'r' && two == 'e') || (one == 'v' && two == 'e') || (one == 'l' && two == 'l')) return p + 3;
    if (FOLD == UNICODE && end - p > 2 && p[1] == 0xC5 && p[2] == 0xBF) return p + 3;
    return nullptr;
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
Text gpt2(Text p, Text end, uint64_t& steps) {
    if (const Text matched = contraction<NONE>(p, end)) return matched;
    const Text word = *p == ' ' && p + 1 < end ? p + 1 : p;
    const uint8_t first = class_before(word, end);
    if (first & LETTER) return skip(word, end, LETTER, steps);
    if (first & NUMBER) return skip(word, end, NUMBER, steps);
    if (!(first & SPACE)) return skip_signs(word, end, steps);
    return spaces(p, end, false, steps);
}

//  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ ; `slash`: [\r\n/]*
Text rest(Text p, Text end, bool slash, uint64_t& steps) {
    const Text sign = *p == ' ' ? p + 1 : p;
    if (!is_sign(sign, end)) return spaces(p, end, true, steps);
    p = skip_signs(sign, end, steps);
    const Text start = p;
    while (p < end && (*p == '\r' || *p == '\n' || (slash && *p == '/'))) p++;
    steps += p - start;
    return p;
}

// \p{N}{1,most}
Text numbers(Text p, Text end, int most) {
    int length;
    for (; most && p < end && class_at(p, length) & NUMBER; most--) p += length;
    return p;
}

// (?i:'s|…)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| and the rest
template <int DIGITS, Fold FOLD>
Text llama3(Text p, Text end, uint64_t& steps) {
    int length;
    const uint8_t first = class_at(p, length);
    if (first & LETTER) return skip(p, end, LETTER, steps);
    if (const Text matched = contraction<FOLD>(p, end)) return matched;
    if (first & NUMBER) return numbers(p, end, DIGITS);
    if (!(first & LINE_END) && class_before(p + length, end) & LETTER) return skip(p + length, end, LETTER, steps);
    return rest(p, end, false, steps);
}

// [UPPER]*[LOWER]+ : the first set gives back characters until one is left that the second one has too.
Text cased_word(Text p, Text end, uint64_t& steps) {
    const Text start = p;
    Text both = nullptr;
    int length;
    for (uint8_t bits; p < end && (bits = class_at(p, length)) & UPPER; p += length)
        if (bits & LOWER) both = p + length;
    steps += p - start + 1;
    return class_before(p, end) & LOWER ? skip(p, end, LOWER, steps) : both;
}

// prefix?[UPPER]*[LOWER]+(contraction)?|prefix?[UPPER]+[LOWER]*(contraction)?|\p{N}{1,DIGITS}| and the rest
template <int DIGITS, bool SHORT>
Text cased(Text p, Text end, uint64_t& steps) {
    int length;
    const uint8_t first = class_at(p, length);
    const bool prefix = !(first & (LINE_END | LETTER | NUMBER));
    Text matched = prefix ? cased_word(p + length, end, steps) : nullptr;
    if (!matched) matched = cased_word(p, end, steps);
    if (!matched) {
        const Text word = prefix && class_before(p + length, end) & UPPER ? p + length : p;
        if (class_before(word, end) & UPPER) matched = skip(skip(word, end, UPPER, steps), end, LOWER, steps);
    }
    if (!matched) return first & NUMBER ? numbers(p, end, DIGITS) : rest(p, end, true, steps);
    const Text tail = SHORT ? contraction<UNICODE>(matched, end) : nullptr;
    return tail ? tail : matched;
}

// The Digits step: each numeric character alone.
Text digit(Text p, Text, uint64_t&) {
    int length;
    return class_at(p, length) & DIGIT ? p + length : nullptr;
}

Text number(Text p, Text, uint64_t&) {
    int length;
    return class_at(p, length) & NUMBER ? p + length : nullptr;
}

Text all_numbers(Text p, Text end, uint64_t& steps) {
    return class_before(p, end) & NUMBER ? skip(p, end, NUMBER, steps) : nullptr;
}

Text three_digits(Text p, Text end, uint64_t&) {
    const auto is_digit = [](uint8_t byte) { return byte >= '0' && byte <= '9'; };
    return end - p >= 3 && is_digit(p[0]) && is_digit(p[1]) && is_digit(p[2]) ? p + 3 : nullptr;
}

// [\p{P}\$\+<=>\^~\|]+ ; BACKTICK: with ` too
template <bool BACKTICK>
Text punctuation(Text p, Text end, uint64_t& steps) {
    const Text start = p;
    int length;
    while (p < end) {
        const bool is_symbol = class_at(p, length) & PUNCTUATION || (*p && std::strchr("$+<=>^~|", *p)) ||
                           (BACKTICK && *p == '`');
        if (!is_symbol) break;
        p += length;
    }
    steps += p - start;
    return p > start ? p : nullptr;
}

Text line_end(Text p, Text, uint64_t&) { return *p == '\r' || *p == '\n' ? p + 1 : nullptr; }

// \s?[class]+
template <uint8_t CLASS>
Text after_space(Text p, Text end, uint64_t& steps) {
    int length;
    const uint8_t first = class_at(p, length);
    const Text word = first & SPACE ? p + length : p;
    return class_before(word, end) & CLASS ? skip(word, end, CLASS, steps) : nullptr;
}

// [一-龥ࠀ-一가-퟿]+
Text east_asian(Text p, Text end, uint64_t& steps) {
    const Text start = p;
    while (p < end) {
        const int length = length_at(p);
        const uint32_t code = code_at(p, length);
        if (!((code >= 0x800 && code <= 0x9FA5) || (code >= 0xAC00 && code <= 0xD7FF))) break;
        p += length;
    }
    steps += p - start;
    return p > start ? p : nullptr;
}

bool is_block(Text p, Text end) { return end - p >= 3 && p[0] == 0xE2 && p[1] == 0x96 && p[2] == 0x81; }

// What SentencePiece's trainer takes for words, see words.py: ▁+(?=▁)|▁?\p{L}[\p{L}\p{M}]*|\p{N}|▁?[^\s▁\p{L}\p{N}]+|▁|\s+
Text llama2(Text p, Text end, uint64_t& steps) {
    if (is_block(p, end) && is_block(p + 3, end)) {
        const Text start = p;
        while (is_block(p + 3, end)) p += 3;
        steps += p - start;
        return p;
    }
    const Text word = is_block(p, end) ? p + 3 : p;
    int length;
    if (class_before(word, end) & LETTER) {
        Text q = word;
        // Marks are what is upper and lower, and no letter.
        for (uint8_t bits; q < end && ((bits = class_at(q, length)) & LETTER || (bits & UPPER && bits & LOWER));) q += length;
        steps += q - word;
        return q;
    }
    Text q = word;
    while (is_sign(q, end) && !is_block(q, end)) q += length_at(q);
    steps += q - word;
    if (q > word || word > p) return q;
    if (class_at(p, length) & NUMBER) return p + length;
    return skip(p, end, SPACE, steps);
}

struct Named {
    const char* name;
    Match match;
};

constexpr Named MATCHES[] = {
    {"gpt2", gpt2},
    {"digits", digit},
    {"llama3", llama3<3, UNICODE>},
    {"llama3-letters", llama3<3, ASCII>},
    {"qwen2", llama3<1, UNICODE>},
    {"qwen2-letters", llama3<1, ASCII>},
    {"tekken", cased<1, false>},
    {"gpt-4o", cased<3, true>},
    {"number", number},
    {"numbers", all_numbers},
    {"three-digits", three_digits},
    {"punctuation", punctuation<false>},
    {"punctuation-backtick", punctuation<true>},
    {"line-end", line_end},
    {"letters", after_space<LETTER>},
    {"signs", after_space<PUNCTUATION>},
    {"east-asian", east_asian},
    {"llama2", llama2},
};

}  // namespace

Match match_named(const std::string& name) {
    for (const Named& named : MATCHES)
        if (name == named.name) return named.match;
    return nullptr;
}

}  // namespace camelid
