// What this is: the only place that knows which oneDNN is installed. Debian 12 ships 2.6, newer systems 3.x; the 3.x API
//   merged the operation descriptor into the primitive descriptor, renamed accessors and dropped the scale of post-ops.
// What it is not: policy. Caching, memory and execution live in core/onednn/primitive.h.
// Read next: core/onednn/engine.h.
#pragma once

#include <dnnl.hpp>

#include <cstddef>

namespace limbeck::onednn::compat {

using Dims = dnnl::memory::dims;
using Desc = dnnl::memory::desc;

/// Geometry of a convolution in oneDNN's terms: `dilation` counts the holes, i.e. 0 is an ordinary convolution.
struct ConvGeometry {
  Dims stride, dilation, pad_begin, pad_end;
};

#if DNNL_VERSION_MAJOR >= 3

inline dnnl::matmul::primitive_desc matmul(const dnnl::engine& engine, const Desc& a, const Desc& b, const Desc& bias,
                                           const Desc& c, const dnnl::primitive_attr& attr) {
  if (bias.is_zero()) return {engine, a, b, c, attr};
  return {engine, a, b, bias, c, attr};
}

inline dnnl::convolution_forward::primitive_desc conv_forward(const dnnl::engine& engine, dnnl::prop_kind kind,
                                                              const Desc& x, const Desc& w, const Desc& bias,
                                                              const Desc& y, const ConvGeometry& g,
                                                              const dnnl::primitive_attr& attr) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  if (bias.is_zero()) {
    return {engine, kind, algorithm, x, w, y, g.stride, g.dilation, g.pad_begin, g.pad_end, attr};
  }
  return {engine, kind, algorithm, x, w, bias, y, g.stride, g.dilation, g.pad_begin, g.pad_end, attr};
}

inline dnnl::convolution_backward_data::primitive_desc conv_backward_data(
    const dnnl::engine& engine, const Desc& gx, const Desc& w, const Desc& gy, const ConvGeometry& g,
    const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& hint) {
  return {engine, dnnl::algorithm::convolution_direct, gx, w, gy, g.stride, g.dilation, g.pad_begin, g.pad_end, hint,
          attr};
}

inline dnnl::convolution_backward_weights::primitive_desc conv_backward_weights(
    const dnnl::engine& engine, const Desc& x, const Desc& gw, const Desc& gbias, const Desc& gy, const ConvGeometry& g,
    const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& hint) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  if (gbias.is_zero()) {
    return {engine, algorithm, x, gw, gy, g.stride, g.dilation, g.pad_begin, g.pad_end, hint, attr};
  }
  return {engine, algorithm, x, gw, gbias, gy, g.stride, g.dilation, g.pad_begin, g.pad_end, hint, attr};
}

inline void append_eltwise(dnnl::post_ops& ops, dnnl::algorithm algorithm, float alpha, float beta) {
  ops.append_eltwise(algorithm, alpha, beta);
}

#else

inline dnnl::matmul::primitive_desc matmul(const dnnl::engine& engine, const Desc& a, const Desc& b, const Desc& bias,
                                           const Desc& c, const dnnl::primitive_attr& attr) {
  if (bias.is_zero()) return {dnnl::matmul::desc(a, b, c), attr, engine};
  return {dnnl::matmul::desc(a, b, bias, c), attr, engine};
}

inline dnnl::convolution_forward::primitive_desc conv_forward(const dnnl::engine& engine, dnnl::prop_kind kind,
                                                              const Desc& x, const Desc& w, const Desc& bias,
                                                              const Desc& y, const ConvGeometry& g,
                                                              const dnnl::primitive_attr& attr) {
  using D = dnnl::convolution_forward::desc;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  if (bias.is_zero()) {
    return {D(kind, algorithm, x, w, y, g.stride, g.dilation, g.pad_begin, g.pad_end), attr, engine};
  }
  return {D(kind, algorithm, x, w, bias, y, g.stride, g.dilation, g.pad_begin, g.pad_end), attr, engine};
}

inline dnnl::convolution_backward_data::primitive_desc conv_backward_data(
    const dnnl::engine& engine, const Desc& gx, const Desc& w, const Desc& gy, const ConvGeometry& g,
    const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& hint) {
  const dnnl::convolution_backward_data::desc d(dnnl::algorithm::convolution_direct, gx, w, gy, g.stride, g.dilation,
                                                g.pad_begin, g.pad_end);
  return {d, attr, engine, hint};
}

inline dnnl::convolution_backward_weights::primitive_desc conv_backward_weights(
    const dnnl::engine& engine, const Desc& x, const Desc& gw, const Desc& gbias, const Desc& gy, const ConvGeometry& g,
    const dnnl::primitive_attr& attr, const dnnl::convolution_forward::primitive_desc& hint) {
  using D = dnnl::convolution_backward_weights::desc;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  if (gbias.is_zero()) {
    return {D(algorithm, x, gw, gy, g.stride, g.dilation, g.pad_begin, g.pad_end), attr, engine, hint};
  }
  return {D(algorithm, x, gw, gbias, gy, g.stride, g.dilation, g.pad_begin, g.pad_end), attr, engine, hint};
}

inline void append_eltwise(dnnl::post_ops& ops, dnnl::algorithm algorithm, float alpha, float beta) {
  ops.append_eltwise(1.0F, algorithm, alpha, beta);
}

#endif

}  // namespace limbeck::onednn::compat
