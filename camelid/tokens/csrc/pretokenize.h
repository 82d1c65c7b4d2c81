// Cutting text into words, as the expressions of pretokenizers.py say; each expression is a function here.
#pragma once
#include <string>
#include <vector>

#include "text.h"

namespace camelid {

// The end of the match that begins at p, or nullptr. `steps` counts the characters that were looked at, for tests.
using Match = Text (*)(Text p, Text end, uint64_t& steps);

Match match_named(const std::string& name);  // nullptr if there is none

// Cut by each expression in turn: what one matches, and what lies between its matches, is cut by the next.
template <class Emit>
void cut(const Match* stage, const Match* last, Text p, Text end, uint64_t& steps, Emit&& emit) {
    if (stage == last) {
        if (p < end) emit(p, end);
        return;
    }
    Text between = p;
    while (p < end) {
        const Text matched = (*stage)(p, end, steps);
        if (!matched) {
            p += length_at(p);
            steps++;
            continue;
        }
        if (between < p) cut(stage + 1, last, between, p, steps, emit);
        if (stage + 1 == last)
            emit(p, matched);
        else
            cut(stage + 1, last, p, matched, steps, emit);
        p = between = matched;
    }
    if (between < end) cut(stage + 1, last, between, end, steps, emit);
}

}  // namespace camelid
