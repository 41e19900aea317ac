// What this is: the caching allocator of device memory.
// Why: cudaMalloc and cudaFree wait for the device. A training step asks for the same sizes over and over; after two
//   steps every request is served from memory that an earlier tensor left behind, without waiting (Note [one stream]).
//
// Note [blocks and segments]
//   A segment is what the driver gave: 2 MiB for small requests (up to 1 MiB), 20 MiB for those up to 10 MiB, else the
//   request rounded up to 2 MiB. It is cut into blocks of multiples of 512 bytes; a freed block is merged with free
//   neighbours. A request takes the smallest free block that fits; a large one leaves blocks alone that are much larger.
// Note [private pools]
//   While a PoolGuard lives, its thread allocates from segments of that pool only, and blocks freed go back to the pool
//   they came from. Work recorded for replay keeps its memory to itself that way: it uses its blocks whenever it is
//   replayed, so their memory is in use also while no tensor has it, and trim() leaves it alone.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>

#include "core/memory.h"

namespace limbeck::cuda {

/// Allocator of one device. Thread safe.
class Allocator {
 public:
  /// LIMBECK_CUDA_CACHE=0 in the environment passes every request straight to the driver, for memory checkers.
  explicit Allocator(int device);
  void set_caching(bool caching);
  [[nodiscard]] bool caching() const;

  /// A number for a private pool that nobody has had.
  [[nodiscard]] static int new_pool() noexcept;
  /// Makes the memory of a private pool everybody's.
  void release_pool(int pool);

  [[nodiscard]] void* allocate(std::size_t bytes);
  void deallocate(void* p) noexcept;
  [[nodiscard]] AllocatorStats stats() const;
  void reset_peak();
  void trim();
  /// The largest live blocks, for the message when memory runs out.
  [[nodiscard]] std::string largest_blocks() const;

 private:
  struct Block {
    char* data = nullptr;
    std::size_t bytes = 0;
    int pool = 0;
    bool free = false;
    bool small = false;         // of a segment for small requests
    bool direct = false;        // an allocation of its own, not cached
    const char* op = "";        // who asked
    Block* previous = nullptr;  // neighbours in the segment
    Block* next = nullptr;
  };
  struct Smaller {
    bool operator()(const Block* a, const Block* b) const noexcept {
      return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data;
    }
  };
  using FreeList = std::set<Block*, Smaller>;

  FreeList& free_list(int pool, bool small) { return free_[{pool, small}]; }
  Block* take(std::size_t bytes, int pool, bool small);
  Block* new_segment(std::size_t bytes, std::size_t request, int pool, bool small);
  void split(Block* block, std::size_t bytes);
  Block* merge(Block* left, Block* right);
  void trim_locked() noexcept;
  void count_free(const Block& block, bool becomes_free) noexcept;
  void count_peak() noexcept;
  [[nodiscard]] std::string largest_blocks_locked() const;

  mutable std::mutex mutex_;
  int device_;
  bool caching_;
  AllocatorStats stats_;
  std::size_t reserved_ = 0;  // free blocks of private pools
  std::map<std::pair<int, bool>, FreeList> free_;
  std::unordered_map<void*, Block*> live_;
};

/// While alive, this thread allocates from pool number `pool` (0 is everybody's).
class PoolGuard {
 public:
  explicit PoolGuard(int pool) noexcept;
  PoolGuard(const PoolGuard&) = delete;
  PoolGuard& operator=(const PoolGuard&) = delete;
  ~PoolGuard();
  [[nodiscard]] static int current() noexcept;

 private:
  int previous_;
};

/// The allocator of a device, made at first use.
[[nodiscard]] Allocator& allocator(int device);

/// Temporary device memory inside one kernel call; free for the next user at once (Note [one stream]).
class Scratch {
 public:
  explicit Scratch(std::size_t bytes);
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();
  template <class T>
  [[nodiscard]] T* as() const noexcept {
    return static_cast<T*>(p_);
  }

 private:
  Allocator& allocator_;
  void* p_;
};

}  // namespace limbeck::cuda
