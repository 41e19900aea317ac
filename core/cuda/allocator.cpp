#include "core/cuda/allocator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "core/cuda.h"
#include "core/cuda/runtime.h"

namespace limbeck::cuda {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20U;
constexpr std::size_t kRound = 512;
constexpr std::size_t kSmallRequest = kMiB;
constexpr std::size_t kSmallSegment = 2 * kMiB;
constexpr std::size_t kMiddleRequest = 10 * kMiB;
constexpr std::size_t kMiddleSegment = 20 * kMiB;

thread_local int current_pool = 0;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

/// While a stream records, the driver refuses to give its thread memory, unless the thread says that it knows that this is no
/// work of the stream.
class RelaxedCapture {
 public:
  RelaxedCapture() { static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;
  ~RelaxedCapture() { static_cast<void>(cudaThreadExchangeStreamCaptureMode(&mode_)); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace

PoolGuard::PoolGuard(int pool) noexcept : previous_(current_pool) { current_pool = pool; }
PoolGuard::~PoolGuard() { current_pool = previous_; }
int PoolGuard::current() noexcept { return current_pool; }

Allocator::Allocator(int device) : device_(device) {
  const char* cache = std::getenv("LIMBECK_CUDA_CACHE");
  caching_ = cache == nullptr || std::string_view(cache) != "0";
}

void Allocator::set_caching(bool caching) {
  const std::lock_guard lock(mutex_);
  caching_ = caching;
}

bool Allocator::caching() const {
  const std::lock_guard lock(mutex_);
  return caching_;
}

int Allocator::new_pool() noexcept {
  static std::atomic<int> last{0};
  return ++last;
}

void Allocator::release_pool(int pool) {
  const std::lock_guard lock(mutex_);
  for (auto& [p, block] : live_) {
    if (block->pool == pool) block->pool = 0;
  }
  for (const bool small : {false, true}) {
    const auto found = free_.find({pool, small});
    if (found == free_.end()) continue;
    for (Block* block : found->second) {
      reserved_ -= block->bytes;
      block->pool = 0;
      free_list(0, small).insert(block);
    }
    free_.erase({pool, small});
  }
}

/// Keeps count of a block that is about to enter or leave a free list.
void Allocator::count_free(const Block& block, bool becomes_free) noexcept {
  const std::size_t reserved = block.pool != 0 ? block.bytes : 0;
  stats_.cached = becomes_free ? stats_.cached + block.bytes : stats_.cached - block.bytes;
  reserved_ = becomes_free ? reserved_ + reserved : reserved_ - reserved;
}

void Allocator::count_peak() noexcept { stats_.peak = std::max(stats_.peak, stats_.in_use + reserved_); }

/// Cuts a block of `bytes` off; the rest is free.
void Allocator::split(Block* block, std::size_t bytes) {
  auto* rest = new Block{block->data + bytes, block->bytes - bytes, block->pool, true, block->small, false, "", block,
                         block->next};
  if (block->next != nullptr) block->next->previous = rest;
  block->next = rest;
  block->bytes = bytes;
  free_list(rest->pool, rest->small).insert(rest);
  count_free(*rest, true);
}

/// `right` becomes part of `left`; neither is in a free list.
Allocator::Block* Allocator::merge(Block* left, Block* right) {
  left->bytes += right->bytes;
  left->next = right->next;
  if (left->next != nullptr) left->next->previous = left;
  delete right;
  return left;
}

Allocator::Block* Allocator::take(std::size_t bytes, int pool, bool small) {
  FreeList& list = free_list(pool, small);
  Block wanted{nullptr, bytes};
  const auto found = list.lower_bound(&wanted);
  if (found == list.end()) return nullptr;
  Block* block = *found;
  // A big segment kept whole serves the next big request; cutting a sliver off it would force a new one.
  if (!small && bytes < kMiddleRequest && block->bytes > 2 * kMiddleSegment) return nullptr;
  list.erase(found);
  count_free(*block, false);
  if (block->bytes - bytes >= (small ? kRound : kSmallRequest)) split(block, bytes);
  return block;
}

Allocator::Block* Allocator::new_segment(std::size_t bytes, std::size_t request, int pool, bool small) {
  void* data = nullptr;
  ++stats_.system_allocations;
  const RelaxedCapture relaxed;
  cudaError_t status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation && !capturing()) {
    static_cast<void>(cudaGetLastError());
    trim_locked();
    status = cudaMalloc(&data, bytes);
  }
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    std::size_t free = 0;
    std::size_t total = 0;
    static_cast<void>(cudaMemGetInfo(&free, &total));
    fail("allocator",
         "cuda:{} is out of memory: {} wants {:.1f} MiB, {:.1f} MiB are in use by this program, {:.1f} of {:.1f} "
         "MiB are free on the device; largest live blocks: {}; use a smaller batch or crop, or bf16",
         device_, current_op(), static_cast<double>(request) / kMiB, static_cast<double>(stats_.in_use) / kMiB,
         static_cast<double>(free) / kMiB, static_cast<double>(total) / kMiB, largest_blocks_locked());
  }
  check(status, "cudaMalloc");
  return new Block{static_cast<char*>(data), bytes, pool, false, small, false, "", nullptr, nullptr};
}

void* Allocator::allocate(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  ++stats_.requests;
  const int pool = current_pool;
  const std::size_t rounded =
      caching_ ? round_up(std::max<std::size_t>(bytes, 1), kRound) : std::max<std::size_t>(bytes, 1);
  const bool small = caching_ && rounded <= kSmallRequest;
  Block* block = caching_ ? take(rounded, pool, small) : nullptr;
  if (block == nullptr) {
    std::size_t segment = round_up(rounded, kSmallSegment);
    if (!caching_) segment = rounded;
    if (caching_ && !small && rounded < kMiddleRequest) segment = kMiddleSegment;
    block = new_segment(segment, bytes, pool, small);
    block->direct = !caching_;
    if (block->bytes - rounded >= (small ? kRound : kSmallRequest)) split(block, rounded);
  }
  block->free = false;
  block->op = current_op();
  live_.emplace(block->data, block);
  stats_.in_use += block->bytes;
  count_peak();
  return block->data;
}

void Allocator::deallocate(void* p) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(p);
  if (found == live_.end()) return;
  Block* block = found->second;
  live_.erase(found);
  stats_.in_use -= block->bytes;
  if (block->direct) {
    static_cast<void>(cudaFree(block->data));
    delete block;
    return;
  }
  count_free(*block, true);
  block->free = true;
  if (Block* left = block->previous; left != nullptr && left->free) {
    free_list(left->pool, left->small).erase(left);
    block = merge(left, block);
  }
  if (Block* right = block->next; right != nullptr && right->free) {
    free_list(right->pool, right->small).erase(right);
    block = merge(block, right);
  }
  free_list(block->pool, block->small).insert(block);
}

AllocatorStats Allocator::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Allocator::reset_peak() {
  const std::lock_guard lock(mutex_);
  stats_.peak = 0;
  count_peak();
}

void Allocator::trim() {
  const std::lock_guard lock(mutex_);
  trim_locked();
}

void Allocator::trim_locked() noexcept {
  // cudaFree waits for the device, so no kernel can still be using the memory.
  for (auto& [key, list] : free_) {
    if (key.first != 0) continue;
    for (auto it = list.begin(); it != list.end();) {
      Block* block = *it;
      if (block->previous != nullptr || block->next != nullptr) {
        ++it;
        continue;
      }
      it = list.erase(it);
      count_free(*block, false);
      static_cast<void>(cudaFree(block->data));
      delete block;
    }
  }
}

std::string Allocator::largest_blocks() const {
  const std::lock_guard lock(mutex_);
  return largest_blocks_locked();
}

std::string Allocator::largest_blocks_locked() const {
  std::vector<const Block*> blocks;
  for (const auto& [p, block] : live_) blocks.push_back(block);
  const std::size_t shown = std::min<std::size_t>(blocks.size(), 8);
  std::partial_sort(blocks.begin(), blocks.begin() + static_cast<std::ptrdiff_t>(shown), blocks.end(),
                    [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
  std::string text;
  for (std::size_t i = 0; i < shown; ++i) {
    text += fmt::format("{}{:.1f} MiB (asked for after {})", i == 0 ? "" : ", ",
                        static_cast<double>(blocks[i]->bytes) / kMiB, blocks[i]->op);
  }
  return text.empty() ? "none" : text;
}

Allocator& allocator(int device) {
  static auto* allocators = new std::array<std::unique_ptr<Allocator>, 128>;  // leaked: see CpuAllocator
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto& entry = allocators->at(static_cast<std::size_t>(device));
  if (!entry) entry = std::make_unique<Allocator>(device);
  return *entry;
}

Scratch::Scratch(std::size_t bytes)
    : allocator_(allocator(current_device().index)), p_(cuda::allocate(current_device(), bytes)) {}
Scratch::~Scratch() { allocator_.deallocate(p_); }

void* allocate(Device device, std::size_t bytes) {
  activate(device, current_op());
  void* p = allocator(device.index).allocate(bytes);
  if (PoisonGuard::active() && bytes > 0) check(cudaMemsetAsync(p, 0xFF, bytes, stream()), "cudaMemsetAsync");
  return p;
}

void deallocate(Device device, void* p, std::size_t) noexcept {
  if (p != nullptr) allocator(device.index).deallocate(p);
}

AllocatorStats memory_stats(Device device) { return allocator(device.index).stats(); }
void reset_peak(Device device) { allocator(device.index).reset_peak(); }
void trim(Device device) {
  activate(device, "trim");
  allocator(device.index).trim();
}

}  // namespace limbeck::cuda
