// What this is: runs the threads of an emulated kernel. Each thread of a block is a fiber with a stack of its own; at a
// barrier or a shuffle it goes back to the scheduler, which wakes it when all others have come.
#include "tests/cuda_emulation/emulator.h"

#include <cuda_runtime.h>
#include <ucontext.h>

#include <csetjmp>

#include <memory>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace limbeck::emulation {
namespace {

constexpr std::size_t kStack = 64 * 1024;
constexpr unsigned kWarp = 32;

enum class State { kReady, kBarrier, kWarp, kEnded };

struct Fiber {
  ucontext_t start{};
  std::jmp_buf resume{};
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool started = false;
  State state = State::kEnded;
  std::source_location where;
  unsigned mask = 0;
  unsigned turns = 0;  // shuffles so far: their parity chooses the buffer
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<std::uint64_t> words;  // per thread and parity
  unsigned current = 0;
  std::jmp_buf scheduler{};
  Entry entry = nullptr;
  void* context = nullptr;
};

Block block;
bool running = false;
bool reverse_order = false;

/// Back to the scheduler; returns when it wakes this fiber.
void yield() {
  Fiber& self = block.fibers[block.current];
  if (_setjmp(self.resume) == 0) std::longjmp(block.scheduler, 1);
}

void fiber_main() {
  for (;;) {  // once per block that uses this fiber
    block.entry(block.context);
    block.fibers[block.current].state = State::kEnded;
    yield();
  }
}

void run_fiber(unsigned index) {
  block.current = index;
  threadIdx = {index, 0, 0};
  Fiber& fiber = block.fibers[index];
  if (_setjmp(block.scheduler) != 0) return;
  if (fiber.started) std::longjmp(fiber.resume, 1);
  fiber.started = true;
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = kStack;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, fiber_main, 0);
  setcontext(&fiber.start);
}

std::string place(const std::source_location& where) {
  const std::string_view file = where.file_name();
  return fmt::format("{}:{}", file.substr(file.rfind('/') + 1), where.line());
}

/// Fibers of a failed launch stand somewhere inside of the kernel: they begin anew.
[[noreturn]] void give_up(const std::string& what) {
  for (Fiber& fiber : block.fibers) fiber.started = false;
  running = false;
  fail("emulated kernel", "block ({}, {}, {}): {}", blockIdx.x, blockIdx.y, blockIdx.z, what);
}

bool same(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() && a.column() == b.column() && std::string_view(a.file_name()) == b.file_name();
}

/// Wakes a warp whose lanes have all come to the same shuffle. Returns true if it did.
bool release_warp(unsigned begin, unsigned count) {
  const Fiber* waiting = nullptr;
  for (unsigned i = begin; i < begin + count; ++i) {
    if (block.fibers[i].state == State::kWarp) waiting = &block.fibers[i];
  }
  if (waiting == nullptr) return false;
  for (unsigned i = begin; i < begin + count; ++i) {
    const Fiber& fiber = block.fibers[i];
    if ((waiting->mask >> (i - begin) & 1U) == 0) continue;
    if (fiber.state == State::kEnded) {
      give_up(fmt::format("a shuffle at {} waits for thread {}, which has ended", place(waiting->where), i));
    }
    if (fiber.state == State::kBarrier) {
      give_up(fmt::format("a shuffle at {} waits for thread {}, which waits at the barrier {}", place(waiting->where),
                          i, place(fiber.where)));
    }
    if (fiber.state != State::kWarp) return false;
    if (!same(fiber.where, waiting->where) || fiber.mask != waiting->mask) {
      give_up(fmt::format("thread {} is at the shuffle {}, another lane of its warp at {}", i, place(fiber.where),
                          place(waiting->where)));
    }
  }
  for (unsigned i = begin; i < begin + count; ++i) {
    if ((waiting->mask >> (i - begin) & 1U) != 0) block.fibers[i].state = State::kReady;
  }
  return true;
}

/// Wakes the block if all threads have come to the same barrier; a thread elsewhere is an error, as nothing else can run.
void release_block(unsigned threads) {
  const Fiber& first = block.fibers[0];
  for (unsigned i = 0; i < threads; ++i) {
    const Fiber& fiber = block.fibers[i];
    if (fiber.state == first.state && (fiber.state == State::kEnded || same(fiber.where, first.where))) continue;
    const Fiber& waiting = fiber.state == State::kBarrier ? fiber : first;
    const Fiber& other = fiber.state == State::kBarrier ? first : fiber;
    give_up(fmt::format("divergent barrier: some threads wait at {}, others {}", place(waiting.where),
                        other.state == State::kEnded ? "have ended" : "wait at " + place(other.where)));
  }
  for (unsigned i = 0; i < threads; ++i) block.fibers[i].state = State::kReady;
}

void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) {
    block.fibers[i].state = State::kReady;
    block.fibers[i].turns = 0;
  }
  for (;;) {
    for (unsigned k = 0; k < threads; ++k) {
      const unsigned i = reverse_order ? threads - 1 - k : k;
      if (block.fibers[i].state == State::kReady) run_fiber(i);
    }
    bool woken = false;
    for (unsigned begin = 0; begin < threads; begin += kWarp) woken = release_warp(begin, kWarp) || woken;
    if (woken) continue;
    bool ended = true;
    for (unsigned i = 0; i < threads; ++i) ended = ended && block.fibers[i].state == State::kEnded;
    if (ended) return;
    release_block(threads);
  }
}

}  // namespace

void set_reverse_order(bool reverse) { reverse_order = reverse; }

void barrier(const std::source_location& where) {
  Fiber& self = block.fibers[block.current];
  self.state = State::kBarrier;
  self.where = where;
  yield();
}

const std::uint64_t* exchange(unsigned mask, std::uint64_t value, const std::source_location& where) {
  const unsigned index = block.current;
  Fiber& self = block.fibers[index];
  std::uint64_t* words = block.words.data() + (self.turns % 2) * block.fibers.size();
  words[index] = value;
  ++self.turns;
  self.state = State::kWarp;
  self.where = where;
  self.mask = mask;
  yield();
  return words + index / kWarp * kWarp;
}

void run_grid(const cudaLaunchConfig_t& config, Entry entry, void* context) {
  const unsigned threads = config.blockDim.x;
  LIMBECK_CHECK(!running, "emulated kernel", "a kernel launches a kernel");
  LIMBECK_CHECK(
      threads % kWarp == 0 && threads > 0 && threads <= 1024 && config.blockDim.y == 1 && config.blockDim.z == 1,
      "emulated kernel", "blocks of {} x {} x {} threads, expected 32 to 1024 in whole warps, in one dimension",
      threads, config.blockDim.y, config.blockDim.z);
  LIMBECK_CHECK(config.gridDim.x > 0 && config.gridDim.y > 0 && config.gridDim.z > 0 && config.gridDim.y <= 65535 &&
                    config.gridDim.z <= 65535 && config.gridDim.x < (1U << 31U),
                "emulated kernel", "a grid of {} x {} x {} blocks", config.gridDim.x, config.gridDim.y,
                config.gridDim.z);
  const DeviceAccess access;
  running = true;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  block.words.resize(2 * block.fibers.size());
  block.entry = entry;
  block.context = context;
  const std::uint64_t blocks = std::uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  for (std::uint64_t k = 0; k < blocks; ++k) {
    const std::uint64_t b = reverse_order ? blocks - 1 - k : k;
    blockIdx = {static_cast<unsigned>(b % gridDim.x), static_cast<unsigned>(b / gridDim.x % gridDim.y),
                static_cast<unsigned>(b / gridDim.x / gridDim.y)};
    run_block(threads);
  }
  running = false;
}

}  // namespace limbeck::emulation
