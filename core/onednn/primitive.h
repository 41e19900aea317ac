// What this is: one compiled oneDNN primitive with its memory objects, and the attributes that fuse work into it.
// Why: creating a primitive costs up to a millisecond and building argument maps costs heap traffic. A Primitive is made
//   once, kept in an LruCache, and then only receives pointers.
// Read next: ops/matmul_onednn.cpp and ops/conv2d_onednn.cpp for use.
//
//   struct Key { std::int64_t m, k, n; ... };                       // plain data, value-initialised
//   thread_local LruCache<Key, Primitive> cache(kPrimitiveCacheSize);
//   Primitive& p = cache.get(key, [&] {
//     const auto pd = compat::matmul(engine(), a, b, Desc(), c, Attributes().relu().build());
//     return Primitive(pd, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
//   });
//   p.run({{DNNL_ARG_SRC, x.data}, {DNNL_ARG_WEIGHTS, w.data}, {DNNL_ARG_DST, y.data}});
//
// Note [primitives and threads]
//   A Primitive holds the pointers of the running call, so it belongs to one thread: keep caches thread_local.
#pragma once

#include <initializer_list>
#include <utility>
#include <vector>

#include "core/lru_cache.h"
#include "core/onednn/engine.h"

namespace limbeck::onednn {

/// Entries of one thread's cache of one family. A segmentation network has about 80 distinct convolutions per pass.
inline constexpr std::size_t kPrimitiveCacheSize = 512;

/// Post-operations, applied to the result in call order, and the scratchpad mode that Primitive needs.
class Attributes {
 public:
  /// Adds the old content of the destination: y = op(x) + y.
  Attributes& sum();
  /// `result` is the type the primitive writes; see Note [NaN through ReLU] in primitive.cpp.
  Attributes& relu(DType result = DType::kF32);
  /// min(max(y, low), high); ReLU6 is clip(0, 6).
  Attributes& clip(float low, float high);
  [[nodiscard]] dnnl::primitive_attr build() const;

 private:
  dnnl::post_ops post_ops_;
};

/// A primitive, its memory objects and its scratchpad size. Movable, not copyable.
class Primitive {
 public:
  using ArgDesc = std::pair<int, Desc>;
  using ArgPointer = std::pair<int, const void*>;

  Primitive() = default;
  Primitive(Primitive&&) = default;
  Primitive& operator=(Primitive&&) = default;
  /// `pd` is any oneDNN primitive descriptor; `args` lists every tensor argument with its descriptor.
  template <class PrimitiveDesc>
  Primitive(const PrimitiveDesc& pd, std::initializer_list<ArgDesc> args)
      : Primitive(dnnl::primitive(pd.get()), pd.scratchpad_desc(), args) {}

  /// Runs on the calling thread's stream. `pointers` must name each argument given to the constructor, in any order;
  /// an argument with a null pointer is passed on as empty. The scratchpad comes from the caching allocator.
  void run(std::initializer_list<ArgPointer> pointers);

  [[nodiscard]] bool defined() const noexcept { return static_cast<bool>(primitive_); }
  /// The descriptor given for argument `arg`.
  [[nodiscard]] Desc desc(int arg) const;

 private:
  Primitive(const dnnl::primitive& primitive, const Desc& scratchpad, std::initializer_list<ArgDesc> args);

  dnnl::primitive primitive_;
  std::vector<dnnl::memory> memories_;      // one per argument, the scratchpad last
  std::vector<dnnl_exec_arg_t> exec_args_;  // points into memories_
  std::size_t scratchpad_bytes_ = 0;
};

/// Copies between layouts or element types (f32 <-> bf16) with a cached reorder primitive of the calling thread.
void reorder(const Desc& from, const void* source, const Desc& to, void* destination);

}  // namespace limbeck::onednn
