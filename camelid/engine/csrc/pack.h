// From blocks as files hold them to matrices packed by groups of 16 rows.
#pragma once
#include <optional>
#include <string>

#include "kernels.h"

namespace camelid {

// How blocks that files call `name` are packed; nothing if they must be requantised first.
std::optional<Kind> packed_kind(const std::string& name, bool f16_as_bf16);

// A matrix without data: sizes of its parts.
Matrix shape_of(Kind kind, int rows, int columns);

// Bytes of a row of blocks as files hold it.
size_t row_bytes_of(Kind kind, int columns);

// Fill groups first … last − 1 from the file's rows of `row_bytes` each; lanes behind the last row stay zero.
// Returns how many weights were rounded, which only happens to halves that are packed as bfloat16.
size_t pack(const Matrix& matrix, const uint8_t* blocks, size_t row_bytes, int first, int last);

}  // namespace camelid
