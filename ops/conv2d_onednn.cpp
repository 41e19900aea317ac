// What this is: dense convolution through oneDNN, see ops/conv2d_engine.h. Activations stay channels-last; the weights
//   are reordered into the layout that the primitive asks for.
#include <cstring>

#include "core/onednn/primitive.h"
#include "core/parallel.h"
#include "ops/conv2d_engine.h"

namespace limbeck::ops {
namespace {

using onednn::Attributes;
using onednn::Desc;
using onednn::Dims;
using onednn::Primitive;
namespace compat = onednn::compat;

/// What a primitive depends on. Plain data, value-initialised, so that it can be compared byte by byte.
struct ConvKey {
  std::int64_t x[4], w[4], stride[2], padding[2], dilation[2], groups;
  std::int64_t dtype, bias, residual, act;
};

ConvKey make_key(const Shape& x, const Shape& w, const Conv2dOptions& o, DType dtype, const ConvEpilogue& epilogue) {
  ConvKey k{};
  for (std::size_t i = 0; i < 4; ++i) {
    k.x[i] = x[i];
    k.w[i] = w[i];
  }
  for (std::size_t i = 0; i < 2; ++i) {
    k.stride[i] = o.stride[i];
    k.padding[i] = o.padding[i];
    k.dilation[i] = o.dilation[i];
  }
  k.groups = o.groups;
  k.dtype = static_cast<std::int64_t>(dtype);
  k.bias = epilogue.bias.defined() ? 1 : 0;
  k.residual = epilogue.residual.defined() ? 1 : 0;
  k.act = static_cast<std::int64_t>(epilogue.act);
  return k;
}

/// A primitive and the layout of the weights it was made for.
struct CachedConv {
  Primitive primitive;
  Desc weights;  ///< as the primitive wants them
  Desc dense;    ///< as they are; kept, because making a descriptor allocates
};
using Cache = LruCache<ConvKey, CachedConv>;

/// [O,I/G,KH,KW] as oneDNN counts it: [G,O/G,I/G,KH,KW] if there are groups.
Dims weight_dims(const Shape& w, std::int64_t groups) {
  if (groups == 1) return onednn::dims_of(w);
  return {groups, w[0] / groups, w[1], w[2], w[3]};
}

Desc weight_any(const Shape& w, std::int64_t groups, DType dtype) {
  return {weight_dims(w, groups), onednn::type_of(dtype), dnnl::memory::format_tag::any};
}

/// limbeck's layout of f32 weights.
Desc weight_dense(const Shape& w, std::int64_t groups) {
  const auto tag = groups == 1 ? dnnl::memory::format_tag::acdb : dnnl::memory::format_tag::abdec;
  return {weight_dims(w, groups), dnnl::memory::data_type::f32, tag};
}

onednn::ConvGeometry geometry_of(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& o) {
  onednn::ConvGeometry g{{o.stride[0], o.stride[1]}, {o.dilation[0] - 1, o.dilation[1] - 1}, {}, {}};
  for (std::size_t a = 0; a < 2; ++a) {
    g.pad_begin.push_back(o.padding[a]);
    // What the last kernel position reads beyond the map; less than the padding if the stride skips some pixels.
    const std::int64_t reach = (y[2 + a] - 1) * o.stride[a] + o.dilation[a] * (w[2 + a] - 1) + 1;
    g.pad_end.push_back(reach - x[2 + a] - o.padding[a]);
  }
  return g;
}

auto forward_desc(const Shape& x, const Shape& w, const Shape& y, const Conv2dOptions& o, DType dtype, bool bias,
                  const dnnl::primitive_attr& attr) {
  const Desc bias_desc = bias ? onednn::vector_desc(w[0], DType::kF32) : Desc();
  return compat::conv_forward(onednn::engine(), dnnl::prop_kind::forward_training, onednn::dense_desc(x, dtype),
                              weight_any(w, o.groups, dtype), bias_desc, onednn::dense_desc(y, dtype),
                              geometry_of(x, w, y, o), attr);
}

CachedConv& forward_conv(const Shape& x, const Shape& w, const Shape& y, const ConvEpilogue& epilogue,
                         const Conv2dOptions& o, DType dtype) {
  thread_local Cache cache(onednn::kPrimitiveCacheSize);
  return cache.get(make_key(x, w, o, dtype, epilogue), [&] {
    Attributes attributes;
    if (epilogue.residual.defined()) attributes.sum();
    if (epilogue.act == Activation::kRelu) attributes.relu(dtype);
    if (epilogue.act == Activation::kRelu6) attributes.clip(0.0F, 6.0F);
    const bool bias = epilogue.bias.defined();
    const auto pd = forward_desc(x, w, y, o, dtype, bias, attributes.build());
    const Desc xd = onednn::dense_desc(x, dtype);
    const Desc yd = onednn::dense_desc(y, dtype);
    if (!bias) {
      return CachedConv{Primitive(pd, {{DNNL_ARG_SRC, xd}, {DNNL_ARG_WEIGHTS, pd.weights_desc()}, {DNNL_ARG_DST, yd}}),
                        pd.weights_desc(), weight_dense(w, o.groups)};
    }
    return CachedConv{Primitive(pd, {{DNNL_ARG_SRC, xd},
                                     {DNNL_ARG_WEIGHTS, pd.weights_desc()},
                                     {DNNL_ARG_BIAS, onednn::vector_desc(w[0], DType::kF32)},
                                     {DNNL_ARG_DST, yd}}),
                      pd.weights_desc(), weight_dense(w, o.groups)};
  });
}

template <class T>
void add_bias(const TensorView& y, const float* bias) {
  const std::int64_t channels = y.c();
  parallel_for(y.numel() / channels, 256, [&](auto begin, auto end) {
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      T* row = y.ptr<T>() + pixel * channels;
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) row[c] = T(static_cast<float>(row[c]) + bias[c]);
    }
  });
}

}  // namespace

std::size_t onednn_packed_bytes(const Shape& x, const Shape& w, const Shape& y, const ConvEpilogue& epilogue,
                                const Conv2dOptions& options, DType dtype) {
  return forward_conv(x, w, y, epilogue, options, dtype).weights.get_size();
}

void onednn_pack(const Shape& x, const TensorView& w, const Shape& y, const ConvEpilogue& epilogue,
                 const Conv2dOptions& options, DType dtype, void* packed) {
  CachedConv& conv = forward_conv(x, w.shape, y, epilogue, options, dtype);
  onednn::reorder(conv.dense, w.data, conv.weights, packed);
}

void onednn_forward(const TensorView& x, const void* packed, const Shape& w, const ConvEpilogue& epilogue,
                    const Conv2dOptions& options, const TensorView& y) {
  // The sum post-operation reads the residual from the result's memory.
  if (epilogue.residual.defined()) {
    std::memcpy(y.data, epilogue.residual.data, static_cast<std::size_t>(y.numel()) * size_of(y.dtype));
  }
  Primitive& p = forward_conv(x.shape, w, y.shape, epilogue, options, x.dtype).primitive;
  if (epilogue.bias.defined()) {
    p.run({{DNNL_ARG_SRC, x.data},
           {DNNL_ARG_WEIGHTS, packed},
           {DNNL_ARG_BIAS, epilogue.bias.data},
           {DNNL_ARG_DST, y.data}});
  } else {
    p.run({{DNNL_ARG_SRC, x.data}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, y.data}});
  }
}

void onednn_backward_data(const TensorView& gy, const TensorView& w, const TensorView& bias,
                          const Conv2dOptions& options, const TensorView& gx) {
  thread_local Cache cache(onednn::kPrimitiveCacheSize);
  CachedConv& conv = cache.get(make_key(gx.shape, w.shape, options, gy.dtype, {}), [&] {
    const dnnl::primitive_attr attr = Attributes().build();
    const auto hint = forward_desc(gx.shape, w.shape, gy.shape, options, gy.dtype, false, attr);
    const Desc gxd = onednn::dense_desc(gx.shape, gy.dtype);
    const Desc gyd = onednn::dense_desc(gy.shape, gy.dtype);
    const auto pd = compat::conv_backward_data(onednn::engine(), gxd, weight_any(w.shape, options.groups, gy.dtype),
                                               gyd, geometry_of(gx.shape, w.shape, gy.shape, options), attr, hint);
    return CachedConv{
        Primitive(pd, {{DNNL_ARG_DIFF_DST, gyd}, {DNNL_ARG_WEIGHTS, pd.weights_desc()}, {DNNL_ARG_DIFF_SRC, gxd}}),
        pd.weights_desc(), weight_dense(w.shape, options.groups)};
  });
  const Workspace packed(conv.weights.get_size());
  onednn::reorder(conv.dense, w.data, conv.weights, packed.as<void>());
  conv.primitive.run(
      {{DNNL_ARG_DIFF_DST, gy.data}, {DNNL_ARG_WEIGHTS, packed.as<void>()}, {DNNL_ARG_DIFF_SRC, gx.data}});
  if (bias.defined()) {
    visit_fast_dtype("conv2d", gx.dtype, [&](auto zero) { add_bias<decltype(zero)>(gx, bias.ptr<float>()); });
  }
}

void onednn_backward_weights(const TensorView& x, const TensorView& gy, const Conv2dOptions& options,
                             const TensorView& gw) {
  thread_local Cache cache(onednn::kPrimitiveCacheSize);
  CachedConv& conv = cache.get(make_key(x.shape, gw.shape, options, x.dtype, {}), [&] {
    const dnnl::primitive_attr attr = Attributes().build();
    const auto hint = forward_desc(x.shape, gw.shape, gy.shape, options, x.dtype, false, attr);
    const Desc xd = onednn::dense_desc(x.shape, x.dtype);
    const Desc gyd = onednn::dense_desc(gy.shape, x.dtype);
    const auto pd =
        compat::conv_backward_weights(onednn::engine(), xd, weight_any(gw.shape, options.groups, DType::kF32), Desc(),
                                      gyd, geometry_of(x.shape, gw.shape, gy.shape, options), attr, hint);
    return CachedConv{
        Primitive(pd, {{DNNL_ARG_SRC, xd}, {DNNL_ARG_DIFF_DST, gyd}, {DNNL_ARG_DIFF_WEIGHTS, pd.diff_weights_desc()}}),
        pd.diff_weights_desc(), weight_dense(gw.shape, options.groups)};
  });
  const Workspace packed(conv.weights.get_size());
  conv.primitive.run(
      {{DNNL_ARG_SRC, x.data}, {DNNL_ARG_DIFF_DST, gy.data}, {DNNL_ARG_DIFF_WEIGHTS, packed.as<void>()}});
  onednn::reorder(conv.weights, packed.as<void>(), conv.dense, gw.data);
}

}  // namespace limbeck::ops
