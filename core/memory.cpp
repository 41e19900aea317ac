#include "core/memory.h"

#include <omp.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

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
//   A step creates and destroys thousands of nodes, tensor handles and short lists of few sizes. Each thread keeps freed
//   ones in one chain per 32-byte size class; the link to the next lies in the freed object itself. An object freed by
//   another thread joins that thread's chain; chains are returned to the heap when their thread ends.
constexpr std::size_t kPoolStep = 32;
constexpr std::size_t kPoolClasses = 32;  // up to 1 KiB

struct ObjectPool {
  std::array<void*, kPoolClasses> chains{};
  ~ObjectPool();
};
thread_local bool pool_is_gone = false;
thread_local ObjectPool pool;

void* pop(void*& chain, std::size_t bytes) noexcept {
  void* p = chain;
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  std::memcpy(&chain, p, sizeof chain);
  return p;
}

ObjectPool::~ObjectPool() {
  pool_is_gone = true;  // objects of static storage may still be destroyed after this
  for (std::size_t k = 0; k < kPoolClasses; ++k) {
    while (chains[k] != nullptr) std::free(pop(chains[k], (k + 1) * kPoolStep));
  }
}

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20U;

/// Lies in front of every block.
struct alignas(kAlignment) Header {
  std::size_t capacity = 0;
  void* next = nullptr;  // free blocks: the next one of the same capacity
};
constexpr std::size_t kHeader = sizeof(Header);

Header& header_of(void* block) { return *reinterpret_cast<Header*>(static_cast<char*>(block) - kHeader); }

// Note [size classes]
//   Capacities are m * 2^s with m in 9..16 (from 1 for the smallest), times 64 bytes: at most 1/8 is wasted, nearby sizes
//   share a class, and the class is a small number that indexes a table.
constexpr std::size_t kSteps = 8;
constexpr std::size_t kSizeClasses = 42 * kSteps;

struct SizeClass {
  std::size_t index = 0;
  std::size_t capacity = 0;
};

SizeClass size_class(std::size_t bytes) {
  std::size_t step = kAlignment;
  std::size_t shift = 0;
  for (; bytes / step >= 2 * kSteps; step *= 2) ++shift;
  const std::size_t m = (std::max(bytes, kAlignment) + step - 1) / step;  // 1..16; 9..16 from the first doubling on
  return {shift * kSteps + m - 1, m * step};
}

/// Blocks that wait for reuse, chained by size class.
struct FreeBlocks {
  std::array<void*, kSizeClasses> chains{};

  /// A block of class `first`, or of one at most 25 % larger; null if there is none.
  void* take(const SizeClass& first) noexcept {
    const std::size_t most = first.capacity + first.capacity / 4;
    for (std::size_t k = first.index; k < std::min(first.index + 3, kSizeClasses); ++k) {
      void* block = chains[k];
      if (block == nullptr) continue;
      const Header& header = header_of(block);
      if (header.capacity > most) return nullptr;
      chains[k] = header.next;
      return block;
    }
    return nullptr;
  }
  void put(void* block) noexcept {
    Header& header = header_of(block);
    header.next = std::exchange(chains[size_class(header.capacity).index], block);
  }
  template <class Function>
  void drain(const Function& function) {
    for (void*& chain : chains) {
      while (chain != nullptr) {
        void* block = chain;
        chain = header_of(block).next;
        function(block);
      }
    }
  }
};

/// What a thread keeps of its workspaces in parallel regions; see Workspace.
struct ThreadBlocks {
  FreeBlocks free;
  ~ThreadBlocks() {
    free.drain([](void* block) { CpuAllocator::get().deallocate(block, 0); });
  }
};
thread_local ThreadBlocks thread_blocks;

}  // namespace

void* pool_allocate(std::size_t bytes) {
  if (bytes == 0) bytes = 1;
  const std::size_t k = (bytes - 1) / kPoolStep;
  if (k >= kPoolClasses) return CpuAllocator::get().allocate(bytes);
  const std::size_t rounded = (k + 1) * kPoolStep;
  if (!pool_is_gone && pool.chains[k] != nullptr) return pop(pool.chains[k], rounded);
  void* p = std::malloc(rounded);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

void pool_release(void* p, std::size_t bytes) noexcept {
  if (p == nullptr) return;
  if (bytes == 0) bytes = 1;
  const std::size_t k = (bytes - 1) / kPoolStep;
  if (k >= kPoolClasses) {
    CpuAllocator::get().deallocate(p, bytes);
  } else if (pool_is_gone) {
    std::free(p);
  } else {
    std::memcpy(p, &pool.chains[k], sizeof(void*));
    pool.chains[k] = p;
    // Not the link: the leak checker does not follow what lies in poisoned memory, and threads that live to the end keep their chains.
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + sizeof(void*), (k + 1) * kPoolStep - sizeof(void*));
  }
}

struct CpuAllocator::Impl {
  mutable std::mutex mutex;
  FreeBlocks free;
  AllocatorStats stats;
};

CpuAllocator::CpuAllocator() : impl_(new Impl) {}

CpuAllocator& CpuAllocator::get() {
  static CpuAllocator allocator;
  return allocator;
}

void* CpuAllocator::allocate(std::size_t bytes) {
  const SizeClass wanted = size_class(bytes);
  LIMBECK_CHECK(wanted.index < kSizeClasses, "allocator", "{} bytes requested: no machine has that", bytes);
  void* block = nullptr;
  {
    const std::lock_guard lock(impl_->mutex);
    auto& stats = impl_->stats;
    ++stats.requests;
    block = impl_->free.take(wanted);
    if (block != nullptr) {
      stats.cached -= header_of(block).capacity;
      stats.in_use += header_of(block).capacity;
    } else {
      ++stats.system_allocations;
      stats.in_use += wanted.capacity;
    }
    stats.peak = std::max(stats.peak, stats.in_use);
  }
  if (block == nullptr) {
    const auto request = [&] {
      const bool huge = wanted.capacity >= kHugePage;
      const std::size_t alignment = huge ? kHugePage : kAlignment;
      void* base = nullptr;
      if (::posix_memalign(&base, alignment, wanted.capacity + kHeader) != 0) return static_cast<void*>(nullptr);
      // Best effort: fewer page faults and TLB misses; the kernel may ignore it.
      if (huge) static_cast<void>(::madvise(base, wanted.capacity + kHeader, MADV_HUGEPAGE));
      return static_cast<void*>(static_cast<char*>(base) + kHeader);
    };
    block = request();
    if (block == nullptr) {
      trim();
      block = request();
    }
    if (block == nullptr) {
      const std::lock_guard lock(impl_->mutex);
      impl_->stats.in_use -= wanted.capacity;
      fail("allocator", "out of memory: {} bytes requested, {} in use; use a smaller batch, crop or tile", bytes,
           impl_->stats.in_use);
    }
    header_of(block) = {wanted.capacity, nullptr};
  }
  ASAN_UNPOISON_MEMORY_REGION(block, bytes);
  if (PoisonGuard::active()) std::memset(block, 0xFF, bytes);  // NaN in every floating type
  return block;
}

void CpuAllocator::deallocate(void* p, std::size_t bytes) noexcept {
  static_cast<void>(bytes);
  if (p == nullptr) return;
  const Header& header = header_of(p);
  ASAN_POISON_MEMORY_REGION(p, header.capacity);
  const std::lock_guard lock(impl_->mutex);
  impl_->free.put(p);
  impl_->stats.in_use -= header.capacity;
  impl_->stats.cached += header.capacity;
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
  impl_->free.drain([](void* block) {
    ASAN_UNPOISON_MEMORY_REGION(block, header_of(block).capacity);
    std::free(static_cast<char*>(block) - kHeader);
  });
  impl_->stats.cached = 0;
}

Workspace::Workspace(std::size_t bytes) : thread_local_(omp_in_parallel() != 0) {
  if (bytes == 0) return;
  if (thread_local_) {
    p_ = thread_blocks.free.take(size_class(bytes));
    if (p_ != nullptr) {
      ASAN_UNPOISON_MEMORY_REGION(p_, bytes);
      if (PoisonGuard::active()) std::memset(p_, 0xFF, bytes);
      return;
    }
  }
  p_ = CpuAllocator::get().allocate(bytes);
}

Workspace::~Workspace() {
  if (p_ == nullptr) return;
  if (thread_local_) {
    ASAN_POISON_MEMORY_REGION(p_, header_of(p_).capacity);
    thread_blocks.free.put(p_);
  } else {
    CpuAllocator::get().deallocate(p_, 0);
  }
}

}  // namespace limbeck
