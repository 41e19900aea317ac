#include "core/rounded_copy.h"

#include "core/step_graph.h"

namespace limbeck {
namespace {

Storage& storage_of(const Tensor& t) noexcept { return *t.impl()->storage; }

bool current(const Storage& s) noexcept { return s.rounded.values && s.rounded.version == s.version(); }

/// The copy as a tensor like `t`.
Tensor copy_of(const Tensor& t) {
  return Tensor(make_ref<TensorImpl>(storage_of(t).rounded.values, t.shape(), t.strides(), 0, DType::kBF16));
}

void refresh(const Tensor& t) {
  Storage& s = storage_of(t);
  if (current(s)) return;
  if (!s.rounded.values) s.rounded.values = make_ref<Storage>(s.bytes() / 2, s.device());
  copy_tensor(t, copy_of(t));
  s.rounded.version = s.version();
}

}  // namespace

Tensor rounded_copy(const Tensor& t) {
  LIMBECK_CHECK(t.dtype() == DType::kF32, "rounded_copy", "got {}, expected f32", t.describe());
  Storage& s = storage_of(t);
  const bool fills = t.is_dense() && t.impl()->offset == 0 && s.bytes() == static_cast<std::size_t>(t.numel()) * 4;
  if (!fills) return t.detach().copy_as(DType::kBF16);
  const Tensor plain = t.detach();
  if (StepGraph* graph = StepGraph::current()) {
    graph->on_replay([plain](std::int64_t times) {
      if (times > 0) refresh(plain);
      if (times < 0) storage_of(plain).rounded.version = plain.version() - 1;  // what was recorded was not done
    });
  }
  refresh(plain);
  return copy_of(plain);
}

bfloat16* rounded_target(const Tensor& t) noexcept {
  const Storage& s = storage_of(t);
  return s.rounded.values ? static_cast<bfloat16*>(s.rounded.values->data()) : nullptr;
}

void rounded_copy_is_current(const Tensor& t) noexcept {
  Storage& s = storage_of(t);
  if (s.rounded.values) s.rounded.version = s.version();
}

}  // namespace limbeck
