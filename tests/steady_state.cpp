// Steady-state training steps allocate nothing: counts every `operator new` of this process and every system allocation of
// tensor memory during steps 3 to 20 of a distillation step, f32 and bf16. A program of its own, because replacing the global
// operators would disturb the other tests.
// Calls from inside oneDNN are counted apart: on CPUs with matrix units its bf16 convolutions make small objects in every
// execution, which nobody outside can prevent.
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "core/autocast.h"
#include "core/config.h"
#include "core/memory.h"
#include "core/rng.h"
#include "distill/distiller.h"
#include "models/zoo.h"
#include "nn/sgd.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<long> heap_calls{0};
std::atomic<long> onednn_calls{0};

bool inside_onednn(const void* caller) {
  Dl_info info{};
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr && std::strstr(info.dli_fname, "libdnnl") != nullptr;
}

void* counted(std::size_t bytes, std::size_t alignment, const void* caller) {
  if (counting.load(std::memory_order_relaxed)) {
    if (inside_onednn(caller)) {
      onednn_calls.fetch_add(1);
    } else if (heap_calls.fetch_add(1) == 0 && std::getenv("LIMBECK_ABORT_ON_NEW") != nullptr) {
      std::abort();  // shows the culprit in gdb
    }
  }
  void* p = alignment <= alignof(std::max_align_t)
                ? std::malloc(bytes == 0 ? 1 : bytes)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, 1, __builtin_return_address(0)); }
void* operator new[](std::size_t bytes) { return counted(bytes, 1, __builtin_return_address(0)); }
void* operator new(std::size_t bytes, std::align_val_t a) {
  return counted(bytes, static_cast<std::size_t>(a), __builtin_return_address(0));
}
void* operator new[](std::size_t bytes, std::align_val_t a) {
  return counted(bytes, static_cast<std::size_t>(a), __builtin_return_address(0));
}
// The library's own form calls the first one above; that of AddressSanitizer does not, and then finds its memory freed by others.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return counted(bytes, 1, __builtin_return_address(0));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace limbeck {
namespace {

std::shared_ptr<distill::Distiller> make_objective() {
  Generator g(1);
  models::ModelSpec teacher;
  teacher.name = "deeplabv3_resnet18";
  teacher.variant = "vf";
  teacher.classes = 11;
  models::ModelSpec student;
  student.name = "mobilenet_v2_seg";
  student.classes = 11;
  std::vector<distill::Term> terms(2);
  const char* losses[] = {"{loss: channel_kd, tau: 4}", "{loss: pixel_kd}"};
  for (std::size_t i = 0; i < 2; ++i) {
    terms[i].name = i == 0 ? "cwd" : "kd";
    const Config config = Config::parse(losses[i], "steady_state");
    terms[i].loss = distill::make_loss(config);
    terms[i].weight = distill::WeightSchedule(3.0);
  }
  return std::make_shared<distill::Distiller>(models::make_model(student, g), models::make_model(teacher, g),
                                              std::move(terms));
}

/// Steps 1 and 2 may allocate; returns false when one of the steps 3 to 20 does.
bool steps_allocate_nothing(bool bf16) {
  const auto objective = make_objective();
  std::vector<nn::ParameterGroup> groups(1);
  nn::assign_parameters(groups, *objective, [](const nn::NamedTensor&) { return 0; });
  nn::Sgd optimizer(std::move(groups), {.momentum = 0.9});
  objective->train();
  Generator g(2);
  const Tensor images = Tensor::empty({2, 3, 64, 64});
  fill_normal_(images, g, 0.0, 1.0);
  const Tensor labels = Tensor::from(std::vector<std::uint8_t>(2 * 64 * 64, 3), {2, 64, 64});
  AllocatorStats before;
  for (int k = 1; k <= 20; ++k) {
    if (k == 3) {
      before = CpuAllocator::get().stats();
      heap_calls = 0;
      onednn_calls = 0;
      counting = true;
    }
    optimizer.zero_grad();
    distill::Objective o;
    {
      const AutocastGuard precision(bf16);
      o = objective->forward(images, labels, k, 20);
    }
    o.total.backward();
    optimizer.step(0.01);
  }
  counting = false;
  const auto tensors = CpuAllocator::get().stats().system_allocations - before.system_allocations;
  std::printf(
      "%s: steps 3 to 20: %llu system allocations of tensor memory, %ld calls of operator new (and %ld inside oneDNN)\n",
      bf16 ? "bf16" : "f32", static_cast<unsigned long long>(tensors), heap_calls.load(), onednn_calls.load());
  return tensors == 0 && heap_calls == 0;
}

}  // namespace
}  // namespace limbeck

int main() {
  const bool f32 = limbeck::steps_allocate_nothing(false);
  const bool bf16 = limbeck::steps_allocate_nothing(true);
  return f32 && bf16 ? 0 : 1;
}
