#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "core/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
// Outside of AddressSanitizer builds cached memory needs no marking.
#define ASAN_POISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) (static_cast<void>(address), static_cast<void>(size))
#endif

namespace limbeck {
namespace {

// Note [pooled objects]
//   A step creates and destroys thousands of nodes and tensor handles of few sizes. Each thread keeps freed ones in a
//   list per 32-byte size class. An object freed by another thread joins that thread's list; lists are returned to the
//   heap when their thread ends.
constexpr std::size_t kPoolStep = 32;
constexpr std::size_t kPoolClasses = 32;  // up to 1 KiB

struct ObjectPool {
  std::array<std::vector<void*>, kPoolClasses> free_lists;
  ~ObjectPool();
};
thread_local bool pool_is_gone = false;
thread_local ObjectPool pool;

ObjectPool::~ObjectPool() {
  pool_is_gone = true;  // objects of static storage may still be destroyed after this
  for (std::size_t k = 0; k < kPoolClasses; ++k) {
    for (void* p : free_lists[k]) {
      ASAN_UNPOISON_MEMORY_REGION(p, (k + 1) * kPoolStep);
      std::free(p);
    }
  }
}

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHeader = kAlignment;  // holds the capacity in front of every block
constexpr std::size_t kHugePage = std::size_t{2} << 20U;

std::size_t& capacity_of(void* block) {
  return *reinterpret_cast<std::size_t*>(static_cast<char*>(block) - kHeader);
}

/// Rounds up so that at most 1/8 is wasted and nearby sizes share a class.
std::size_t round_size(std::size_t bytes) {
  std::size_t step = kAlignment;
  while (bytes / step >= 16) step *= 2;
  return (std::max(bytes, kAlignment) + step - 1) / step * step;
}

}  // namespace

void* RefCounted::operator new(std::size_t bytes) {
  const std::size_t k = (bytes - 1) / kPoolStep;
  if (k < kPoolClasses && !pool_is_gone) {
    auto& list = pool.free_lists[k];
    if (!list.empty()) {
      void* p = list.back();
      list.pop_back();
      ASAN_UNPOISON_MEMORY_REGION(p, bytes);
      return p;
    }
    bytes = (k + 1) * kPoolStep;
  }
  void* p = std::malloc(bytes);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void RefCounted::operator delete(void* p, std::size_t bytes) noexcept {
  const std::size_t k = (bytes - 1) / kPoolStep;
  if (k >= kPoolClasses || pool_is_gone) {
    std::free(p);
    return;
  }
  try {
    pool.free_lists[k].push_back(p);
    ASAN_POISON_MEMORY_REGION(p, (k + 1) * kPoolStep);
  } catch (...) {  // no memory for the list itself
    std::free(p);
  }
}

struct CpuAllocator::Impl {
  mutable std::mutex mutex;
  std::map<std::size_t, std::vector<void*>> free_blocks;  // by capacity
  AllocatorStats stats;
};

CpuAllocator::CpuAllocator() : impl_(new Impl) {}

CpuAllocator& CpuAllocator::get() {
  static CpuAllocator allocator;
  return allocator;
}

void* CpuAllocator::allocate(std::size_t bytes) {
  const std::size_t wanted = round_size(bytes);
  void* block = nullptr;
  {
    const std::lock_guard lock(impl_->mutex);
    auto& stats = impl_->stats;
    ++stats.requests;
    const auto it = impl_->free_blocks.lower_bound(wanted);
    if (it != impl_->free_blocks.end() && it->first <= wanted + wanted / 4) {
      block = it->second.back();
      it->second.pop_back();
      stats.cached -= it->first;
      stats.in_use += it->first;
      if (it->second.empty()) impl_->free_blocks.erase(it);
    } else {
      ++stats.system_allocations;
      stats.in_use += wanted;
    }
    stats.peak = std::max(stats.peak, stats.in_use);
  }
  if (block == nullptr) {
    const auto request = [&] {
      const bool huge = wanted >= kHugePage;
      const std::size_t alignment = huge ? kHugePage : kAlignment;
      void* base = nullptr;
      if (::posix_memalign(&base, alignment, wanted + kHeader) != 0) return static_cast<void*>(nullptr);
      // Best effort: fewer page faults and TLB misses; the kernel may ignore it.
      if (huge) static_cast<void>(::madvise(base, wanted + kHeader, MADV_HUGEPAGE));
      return static_cast<void*>(static_cast<char*>(base) + kHeader);
    };
    block = request();
    if (block == nullptr) {
      trim();
      block = request();
    }
    if (block == nullptr) {
      const std::lock_guard lock(impl_->mutex);
      impl_->stats.in_use -= wanted;
      fail("allocator", "out of memory: {} bytes requested, {} in use; use a smaller batch or crop", bytes,
           impl_->stats.in_use);
    }
    capacity_of(block) = wanted;
  }
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  if (PoisonGuard::active()) std::memset(block, 0xFF, bytes);  // NaN in every floating type
  return block;
}

void CpuAllocator::deallocate(void* p, std::size_t bytes) noexcept {
  static_cast<void>(bytes);
  if (p == nullptr) return;
  const std::size_t capacity = capacity_of(p);
  ASAN_POISON_MEMORY_REGION(p, capacity);
  const std::lock_guard lock(impl_->mutex);
  impl_->stats.in_use -= capacity;
  try {
    impl_->free_blocks[capacity].push_back(p);
    impl_->stats.cached += capacity;
  } catch (...) {  // no memory for the bookkeeping: give the block back
    ASAN_UNPOISON_MEMORY_REGION(p, capacity);
    std::free(static_cast<char*>(p) - kHeader);
  }
}

AllocatorStats CpuAllocator::stats() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->stats;
}

void CpuAllocator::reset_peak() {
  const std::lock_guard lock(impl_->mutex);
  impl_->stats.peak = impl_->stats.in_use;
}

void CpuAllocator::trim() {
  const std::lock_guard lock(impl_->mutex);
  for (auto& [capacity, blocks] : impl_->free_blocks) {
    for (void* p : blocks) {
      ASAN_UNPOISON_MEMORY_REGION(p, capacity);
      std::free(static_cast<char*>(p) - kHeader);
    }
  }
  impl_->free_blocks.clear();
  impl_->stats.cached = 0;
}

}  // namespace limbeck
