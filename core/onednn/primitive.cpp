// What this is: running cached primitives; see core/onednn/primitive.h.
#include "core/onednn/primitive.h"

#include <limits>
#include <list>

#include "core/memory.h"

namespace limbeck::onednn {

namespace {

void check(dnnl_status_t status, const char* what) {
  LIMBECK_CHECK(status == dnnl_success, "onednn", "{} failed with status {}", what, static_cast<int>(status));
}

}  // namespace

Attributes& Attributes::sum() {
  post_ops_.append_sum(1.0F);
  return *this;
}

// Note [NaN through ReLU]
//   With slope 0, oneDNN's matrix-unit (AMX) kernels compute max(x, 0), which is 0 for NaN: a diverged network would look sane.
//   With any other slope they compare, and NaN stays. The smallest slope there is makes negative results at most 1e-41,
//   which bf16 rounds to zero. f32 results would keep such numbers, and those kernels do not need it.
Attributes& Attributes::relu(DType result) {
  const float slope = result == DType::kBF16 ? std::numeric_limits<float>::denorm_min() : 0.0F;
  compat::append_eltwise(post_ops_, dnnl::algorithm::eltwise_relu, slope, 0.0F);
  return *this;
}

Attributes& Attributes::clip(float low, float high) {
  compat::append_eltwise(post_ops_, dnnl::algorithm::eltwise_clip, low, high);
  return *this;
}

dnnl::primitive_attr Attributes::build() const {
  dnnl::primitive_attr attr;
  attr.set_post_ops(post_ops_);
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

Primitive::Primitive(const dnnl::primitive& primitive, const Desc& scratchpad, std::initializer_list<ArgDesc> args)
    : primitive_(primitive), scratchpad_bytes_(scratchpad.get_size()) {
  memories_.reserve(args.size() + 1);
  for (const auto& [name, desc] : args) {
    memories_.emplace_back(desc, engine(), nullptr);
    exec_args_.push_back({name, memories_.back().get()});
  }
  memories_.emplace_back(scratchpad, engine(), nullptr);
  exec_args_.push_back({DNNL_ARG_SCRATCHPAD, memories_.back().get()});
}

void Primitive::run(std::initializer_list<ArgPointer> pointers) {
  const Workspace scratch(scratchpad_bytes_);
  std::size_t matched = 0;
  for (std::size_t i = 0; i + 1 < exec_args_.size(); ++i) {
    for (const auto& [name, pointer] : pointers) {
      if (name != exec_args_[i].arg) continue;
      memories_[i].set_data_handle(const_cast<void*>(pointer));  // the API has no const; sources are only read
      ++matched;
      break;
    }
  }
  LIMBECK_CHECK(matched + 1 == exec_args_.size(), "onednn", "{} of {} arguments given to a primitive", matched,
                exec_args_.size() - 1);
  memories_.back().set_data_handle(scratch.as<void>());
  // The C entry point takes a plain array; the C++ one would copy a hash map on every call.
  check(
      dnnl_primitive_execute(primitive_.get(), stream().get(), static_cast<int>(exec_args_.size()), exec_args_.data()),
      "execution");
  check(dnnl_stream_wait(stream().get()), "wait");
}

Desc Primitive::desc(int arg) const {
  for (std::size_t i = 0; i + 1 < exec_args_.size(); ++i) {
    if (exec_args_[i].arg == arg) return memories_[i].get_desc();
  }
  fail("onednn", "the primitive has no argument {}", arg);
}

namespace {

struct ReorderEntry {
  Desc from, to;
  Primitive primitive;
};

}  // namespace

void reorder(const Desc& from, const void* source, const Desc& to, void* destination) {
  // Descriptors are opaque in oneDNN 3, so they cannot be a byte-wise key. A short list searched by equality does; the
  // most recent entry is moved to the front.
  constexpr std::size_t kMostEntries = 256;
  thread_local std::list<ReorderEntry> entries;
  auto it = entries.begin();
  while (it != entries.end() && !(it->from == from && it->to == to)) ++it;
  if (it == entries.end()) {
    const dnnl::reorder::primitive_desc pd(engine(), from, engine(), to, Attributes().build());
    entries.push_front({from, to, Primitive(pd, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}})});
    if (entries.size() > kMostEntries) entries.pop_back();
  } else if (it != entries.begin()) {
    entries.splice(entries.begin(), entries, it);
  }
  entries.front().primitive.run({{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, destination}});
}

}  // namespace limbeck::onednn
