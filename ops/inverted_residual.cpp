// What this is: see ops/inverted_residual.h; and its strips on processors without matrix units.
#include "ops/inverted_residual.h"

#include <algorithm>
#include <utility>

#include "core/memory.h"
#include "ops/inverted_residual_kernels.h"
#include "ops/task_queue.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "inverted_residual";
constexpr std::int64_t kStripBytes = 1 << 20;  // of wide rows: half of a second-level cache

/// Rows [first, first + count) of image n.
TensorView rows_of(const TensorView& map, std::int64_t n, std::int64_t first, std::int64_t count) {
  TensorView v = map;
  v.shape = {1, map.c(), count, map.w()};
  v.strides = default_strides(v.shape);
  const std::int64_t at = (n * map.h() + first) * map.w() * map.c();
  v.data = map.ptr<char>() + at * static_cast<std::int64_t>(size_of(map.dtype));
  return v;
}

TensorView buffer_of(void* memory, DType dtype, std::int64_t channels, std::int64_t rows, std::int64_t width) {
  const Shape shape{1, channels, rows, width};
  return {memory, dtype, shape, default_strides(shape)};
}

/// The strips of one block, on kernels that know nothing of each other.
struct Strips {
  const PackedConv2d* widen;  // or null
  const PackedConv2d& filter;
  const PackedConv2d& narrow;
  TensorView x, residual, y;
  std::int64_t channels, stride, padding, reach;  // of the filter along the rows
  std::int64_t rows = 1;                          // of the result, in a strip
  std::int64_t strips = 1;                        // of an image

  Strips(const PackedConv2d* widen_, const PackedConv2d& filter_, const PackedConv2d& narrow_, const Tensor& x_,
         const Tensor& residual_, const Tensor& y_)
      : widen(widen_),
        filter(filter_),
        narrow(narrow_),
        x(x_.view()),
        residual(residual_.defined() ? residual_.view() : TensorView{}),
        y(y_.view()) {
    const Conv2dOptions& o = filter.options();
    channels = filter.weight_shape()[0];
    stride = o.stride[0];
    padding = o.padding[0];
    reach = (filter.weight_shape()[2] - 1) * o.dilation[0] + 1;
    const std::int64_t parts = 2 * max_threads();  // so that no thread waits long for another
    const std::int64_t most = max_threads() > 1 ? (y.h() * y.n() + parts - 1) / parts : y.h();
    while (rows < std::min(y.h(), most) && bytes(rows + 1) <= kStripBytes) ++rows;
    strips = (y.h() + rows - 1) / rows;
    rows = (y.h() + strips - 1) / strips;
  }

  [[nodiscard]] std::int64_t wide_rows(std::int64_t r) const { return std::min((r - 1) * stride + reach, x.h()); }
  [[nodiscard]] std::int64_t wide_bytes(std::int64_t r) const {
    return widen != nullptr ? wide_rows(r) * x.w() * channels * 4 : 0;
  }
  [[nodiscard]] std::int64_t filtered_bytes(std::int64_t r) const {
    return r * y.w() * channels * static_cast<std::int64_t>(size_of(filter.compute_dtype()));
  }
  [[nodiscard]] std::int64_t bytes(std::int64_t r) const { return wide_bytes(r) + filtered_bytes(r); }

  void run(char* memory, std::int64_t n, std::int64_t strip) const {
    const std::int64_t first = strip * rows;
    const std::int64_t last = std::min(y.h(), first + rows);
    const std::int64_t from = std::max<std::int64_t>(first * stride - padding, 0);
    const std::int64_t to = std::min(x.h(), (last - 1) * stride - padding + reach);
    TensorView source = rows_of(x, n, from, std::max<std::int64_t>(to - from, 1));
    if (widen != nullptr) {
      const TensorView wide = buffer_of(memory, DType::kF32, channels, source.h(), x.w());
      widen->run_rows(source, {}, {}, wide);
      source = wide;
    }
    const TensorView filtered =
        buffer_of(memory + wide_bytes(rows), filter.compute_dtype(), channels, last - first, y.w());
    filter.run_rows(source, {}, {from, x.h(), first}, filtered);
    narrow.run_rows(filtered, residual.defined() ? rows_of(residual, n, first, last - first) : TensorView{}, {},
                    rows_of(y, n, first, last - first));
  }
};

TensorView view_or_none(const Tensor& t) { return t.defined() ? t.view() : TensorView{}; }

PanelConv panel_conv(const PackedConv2d& conv, const void* packed) {
  return {packed, conv.weight_shape(), conv.options(), view_or_none(conv.bias()), conv.activation()};
}

/// Bytes of the packed weights of a dense convolution, up to where the next ones may begin.
std::int64_t dense_bytes(const PackedConv2d& conv) {
  constexpr std::size_t kAlignment = 64;
  const std::size_t bytes = amx_packed_bytes(conv.weight_shape(), conv.options(), conv.compute_dtype());
  return static_cast<std::int64_t>((bytes + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace

PackedInvertedResidual::PackedInvertedResidual(std::optional<PackedConv2d> widen, PackedConv2d filter,
                                               PackedConv2d narrow)
    : widen_(std::move(widen)), filter_(std::move(filter)), narrow_(std::move(narrow)) {
  LIMBECK_CHECK((!widen_ || can_widen(*widen_)) && filter_.depthwise() && can_narrow(narrow_), kName,
                "got weights {}, {}, {}, expected those of a 1x1, a depthwise and a 1x1 convolution",
                widen_ ? widen_->weight_shape() : Shape{}, filter_.weight_shape(), narrow_.weight_shape());
  const std::int64_t wide = filter_.weight_shape()[0];
  LIMBECK_CHECK((!widen_ || widen_->weight_shape()[0] == wide) && narrow_.weight_shape()[1] == wide, kName,
                "{} channels in, {} filtered, {} out, expected the same number",
                widen_ ? widen_->weight_shape()[0] : wide, wide, narrow_.weight_shape()[1]);
}

bool PackedInvertedResidual::can_widen(const PackedConv2d& conv) noexcept {
  return !conv.depthwise() && (conv.takes_rows() || conv.in_one_chunk());
}

void PackedInvertedResidual::run_into(const Tensor& x, const Tensor& residual, const Tensor& y) const {
  const Shape wide = wide_shape(x);
  const Shape filtered = conv2d_output_shape(kName, wide, filter_.weight_shape(), filter_.options());
  const Shape shape = conv2d_output_shape(kName, filtered, narrow_.weight_shape(), narrow_.options());
  const DType compute = narrow_.compute_dtype();
  LIMBECK_CHECK(y.shape() == shape && (!residual.defined() || residual.shape() == shape), kName,
                "result {} and residual {}, expected {}", y.shape(), residual.defined() ? residual.shape() : shape,
                shape);
  for (const Tensor& map : {x, residual, y}) {
    LIMBECK_CHECK(!map.defined() || (map.dtype() == compute && map.is_dense()), kName, "got {}, expected a dense {}",
                  map.describe(), name_of(compute));
  }
  y.bump_version();
  if (narrow_.on_matrix_units()) {
    run_panels(x, residual, y);
    return;
  }
  const Strips job(widen_ ? &*widen_ : nullptr, filter_, narrow_, x, residual, y);
  for (const PackedConv2d* conv : {job.widen, &job.filter, &job.narrow}) {
    if (conv != nullptr) conv->pack_rows();
  }
  parallel_tasks_with(
      x.size(0) * job.strips, [&] { return Workspace(static_cast<std::size_t>(job.bytes(job.rows))); },
      [&](const Workspace& memory, std::int64_t task) {
        job.run(memory.as<char>(), task / job.strips, task % job.strips);
      });
}

Shape PackedInvertedResidual::wide_shape(const Tensor& x) const {
  return widen_ ? conv2d_output_shape(kName, x.shape(), widen_->weight_shape(), widen_->options()) : x.shape();
}

std::int64_t PackedInvertedResidual::packed_bytes() const {
  if (!narrow_.on_matrix_units()) return 0;
  const auto filter = static_cast<std::int64_t>(panel_filter_floats(filter_.weight_shape()) * sizeof(float));
  return filter + (widen_ ? dense_bytes(*widen_) : 0) + dense_bytes(narrow_);
}

void PackedInvertedResidual::pack_into(const Tensor& memory) const {
  LIMBECK_CHECK(memory.dtype() == DType::kU8 && memory.is_dense() && memory.numel() >= packed_bytes(), kName,
                "got {} for the packed weights, expected {} bytes", memory.describe(), packed_bytes());
  if (packed_bytes() == 0) return;
  packed_ = memory;
  char* at = static_cast<char*>(packed_.raw_data());
  const auto pack = [&](const PackedConv2d& conv) {
    amx_pack(conv.weight().view(), conv.options(), conv.compute_dtype(), at);
    at += dense_bytes(conv);
  };
  if (widen_) pack(*widen_);
  pack(narrow_);
  panel_filter_pack(filter_.weight().view(), view_or_none(filter_.bias()), reinterpret_cast<float*>(at));
}

void PackedInvertedResidual::run_panels(const Tensor& x, const Tensor& residual, const Tensor& y) const {
  if (!packed_.defined()) pack_into(Tensor::empty({packed_bytes()}, DType::kU8));
  const char* const widen = static_cast<const char*>(packed_.raw_data());
  const char* const narrow = widen + (widen_ ? dense_bytes(*widen_) : 0);
  panel_strips({.widen = widen_ ? panel_conv(*widen_, widen) : PanelConv{},
                .filter = panel_conv(filter_, narrow + dense_bytes(narrow_)),
                .narrow = panel_conv(narrow_, narrow),
                .x = x.view(),
                .wide = wide_shape(x),
                .residual = view_or_none(residual),
                .y = y.view()});
}

}  // namespace limbeck::ops
