// What this is: the reference-counted pointer, the small-object pool and the caching CPU allocator.
// What it is not: Storage or Tensor (core/tensor.h).
// Why: a training step repeats the same sizes thousands of times; handing big blocks back to the system costs
//      a page fault per 4 KiB on the next use. After two steps every request is served from the cache.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace limbeck {

/// Memory for small objects from per-size free lists of the calling thread (see Note [pooled objects]); requests above
/// 1 KiB come from the CpuAllocator. `bytes` must be the same in both calls. Throws std::bad_alloc.
[[nodiscard]] void* pool_allocate(std::size_t bytes);
void pool_release(void* p, std::size_t bytes) noexcept;

/// The pool as a standard allocator, for the short lists that a step builds anew each time.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) noexcept {}
  [[nodiscard]] T* allocate(std::size_t n) { return static_cast<T*>(pool_allocate(n * sizeof(T))); }
  void deallocate(T* p, std::size_t n) noexcept { pool_release(p, n * sizeof(T)); }
  friend bool operator==(const PoolAllocator&, const PoolAllocator&) noexcept { return true; }
};
template <class T>
using PooledVector = std::vector<T, PoolAllocator<T>>;
using PooledString = std::basic_string<char, std::char_traits<char>, PoolAllocator<char>>;

/// Base for classes whose objects come from the pool.
struct Pooled {
  static void* operator new(std::size_t bytes) { return pool_allocate(bytes); }
  static void operator delete(void* p, std::size_t bytes) noexcept { pool_release(p, bytes); }
};

/// Base of objects owned by Ref<T>.
class RefCounted : public Pooled {
 public:
  RefCounted() = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;
  virtual ~RefCounted() = default;

  void retain() const noexcept { count_.fetch_add(1, std::memory_order_relaxed); }
  /// Drops one reference; returns true if it was the last and the caller must delete.
  [[nodiscard]] bool release_ref() const noexcept { return count_.fetch_sub(1, std::memory_order_acq_rel) == 1; }
  [[nodiscard]] std::int64_t use_count() const noexcept { return count_.load(std::memory_order_relaxed); }

 private:
  mutable std::atomic<std::int64_t> count_{0};
};

/// Intrusive shared pointer to a RefCounted.
template <class T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}
  explicit Ref(T* p) : p_(p) {
    if (p_ != nullptr) p_->retain();
  }
  Ref(const Ref& o) : Ref(o.p_) {}
  Ref(Ref&& o) noexcept : p_(std::exchange(o.p_, nullptr)) {}
  template <class U>
  Ref(const Ref<U>& o) : Ref(static_cast<T*>(o.get())) {}
  Ref& operator=(Ref o) noexcept {
    std::swap(p_, o.p_);
    return *this;
  }
  ~Ref() {
    if (p_ != nullptr && p_->release_ref()) delete p_;
  }

  [[nodiscard]] T* get() const noexcept { return p_; }
  T* operator->() const noexcept { return p_; }
  T& operator*() const noexcept { return *p_; }
  explicit operator bool() const noexcept { return p_ != nullptr; }
  friend bool operator==(const Ref& a, const Ref& b) noexcept { return a.p_ == b.p_; }

 private:
  T* p_ = nullptr;
};

template <class T, class... Args>
[[nodiscard]] Ref<T> make_ref(Args&&... args) {
  return Ref<T>(new T(std::forward<Args>(args)...));
}

/// Counters of one allocator. All sizes in bytes.
struct AllocatorStats {
  std::size_t in_use = 0;                ///< handed out now
  std::size_t peak = 0;                  ///< largest in_use since the last reset_peak()
  std::size_t cached = 0;                ///< held for reuse
  std::uint64_t requests = 0;            ///< calls of allocate()
  std::uint64_t system_allocations = 0;  ///< requests that had to ask the operating system
};

/// Caching allocator of CPU memory: 64-byte aligned blocks, freed blocks kept by size class.
/// Thread safe. A block is reused when it is at most 25 % larger than the (slightly rounded) request.
class CpuAllocator {
 public:
  static CpuAllocator& get();

  /// Returns `bytes` of uninitialised memory; throws Error naming the size when the system has none left.
  [[nodiscard]] void* allocate(std::size_t bytes);
  void deallocate(void* p, std::size_t bytes) noexcept;

  [[nodiscard]] AllocatorStats stats() const;
  void reset_peak();
  /// Returns cached blocks to the system.
  void trim();

 private:
  CpuAllocator();
  struct Impl;
  Impl* impl_;  // leaked on purpose: tensors with static storage may outlive any destructor order
};

/// While alive, freshly allocated memory is filled with NaN (0xFF bytes), so that a kernel which forgets an element of its
/// output cannot pass a test by luck. Process wide.
class PoisonGuard {
 public:
  PoisonGuard() noexcept { ++depth_; }
  PoisonGuard(const PoisonGuard&) = delete;
  PoisonGuard& operator=(const PoisonGuard&) = delete;
  ~PoisonGuard() { --depth_; }
  [[nodiscard]] static bool active() noexcept { return depth_.load(std::memory_order_relaxed) > 0; }

 private:
  static inline std::atomic<int> depth_{0};
};

/// Temporary memory inside one kernel call, from the caching allocator. Inside a parallel region each thread keeps what it
/// used: how many threads hold a buffer at the same moment is chance, and with one common cache so would be the number
/// of system allocations.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes);
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(p_);
  }

 private:
  void* p_ = nullptr;
  bool thread_local_ = false;
};

}  // namespace limbeck
