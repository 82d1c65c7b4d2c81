// Memory in whole cache lines.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace camelid {

// Grows, never shrinks; what was in it is lost when it grows. New memory is zero.
template <class T> class Buffer {
public:
    Buffer() = default;
    explicit Buffer(size_t n) { grow(n); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr, other.size_ = 0; }
    ~Buffer() { std::free(data_); }

    T* grow(size_t n) {
        if (n <= size_) return data_;
        std::free(data_);
        data_ = nullptr, size_ = 0;
        const size_t bytes = (n * sizeof(T) + 127) / 64 * 64;
        data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
        if (!data_) throw std::bad_alloc();
        std::memset(data_, 0, bytes);
        size_ = n;
        return data_;
    }
    T* data() const { return data_; }
    size_t size() const { return size_; }
    T& operator[](size_t i) const { return data_[i]; }

private:
    T* data_ = nullptr;
    size_t size_ = 0;
};

// Many bytes that the system gives when they are first written, in large pages where it likes to. Zero at first.
class Arena {
public:
    Arena() = default;
    Arena(size_t bytes, bool large_pages);
    Arena(const Arena&) = delete;
    Arena& operator=(Arena&& other) noexcept;
    ~Arena();
    uint8_t* data() const { return data_; }

private:
    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace camelid
