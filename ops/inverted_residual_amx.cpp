// What this is: inverted residuals on the matrix units (AMX); see ops/inverted_residual.h, Note [strips]. On processors without them
//   nothing here is ever called.
// Read next: ops/conv2d_amx.cpp, whose notes explain tiles, pairs, panels and chunks.
//
// Note [panels of a strip]
//   A strip does not go through one convolution after the other, but 32 wide channels (a panel) at a time through the first two:
//     pixels of x -> 32 wide channels of a pair of tiles -> a ring of a few rows -> 32 filtered channels, as operand tiles.
//   The ring holds what the kernel of the filter reaches over, in f32 and in the first-level cache; around its rows lie zeros, so that
//   the filter knows no border. Where rows are so long that the ring would not fit, half a panel goes through at a time. What the
//   filter writes is a chunk of the last product, laid out as that wants it. Only x as operand and the filtered strip must be in the
//   second-level cache.
// Note [ahead]
//   The matrix units work beside the vector units. So the products of the next pair are asked for before the sums of this one are
//   rounded, activated and filtered.
#include "ops/inverted_residual_kernels.h"

#include <algorithm>
#include <array>

#include "ops/conv2d_amx_products.h"
#include "ops/inverted_residual_filter.h"
#include "ops/task_queue.h"

#if defined(LIMBECK_AMX)

namespace limbeck::ops {
namespace {

using namespace amx;

constexpr std::int64_t kStripBytes = 1 << 20;  // of operands: half of a second-level cache
constexpr std::int64_t kRingBytes = 40 << 10;  // most of a first-level cache

template <class T>
class Strips {
 public:
  explicit Strips(const PanelStrips& job)
      : job_(job),
        plan_(gather_plan(job.widen.packed != nullptr
                              ? conv_geometry(job.x.shape, job.widen.w, job.wide, job.widen.options, false)
                              : conv_geometry(job.wide, Shape{1, 1, 1, 1}, job.wide, {}, false))),
        widen_(job.widen.packed != nullptr ? job.widen.w : Shape{1, 1, 1, 1}, job.widen.options),
        narrow_(job.narrow.w, job.narrow.options),
        height_(job.wide[2]),
        width_(job.wide[3]),
        channels_(job.wide[1]),
        panels_((channels_ + kColumns - 1) / kColumns) {
    const Conv2dOptions& o = job.filter.options;
    stride_ = o.stride[0];
    padding_ = o.padding[0];
    taps_[0] = job.filter.w[2];
    taps_[1] = job.filter.w[3];
    reach_ = (taps_[0] - 1) * o.dilation[0] + 1;
    ring_width_ =
        std::max(width_ + 2 * o.padding[1], (job.y.w() - 1) * o.stride[1] + (taps_[1] - 1) * o.dilation[1] + 1);
    ring_rows_ = reach_ + kRows / width_ + 1;  // those that a pair of tiles may begin, and what the filter still needs
    const bool one_chunk =
        job.widen.packed == nullptr || widen_.chunks() == 1;  // else its pixels would be loaded twice
    halves_ = one_chunk && ring_floats(kPixel<Width::kPanel>) * 4 > kRingBytes;
    const std::int64_t parts = 2 * max_threads();  // so that no thread waits long for another
    const std::int64_t rows = job.y.h();
    const std::int64_t most = max_threads() > 1 ? (rows * job.y.n() + parts - 1) / parts : rows;
    while (strip_rows_ < std::min(rows, most) && operand_bytes(strip_rows_ + 1) <= kStripBytes) ++strip_rows_;
    strips_ = (rows + strip_rows_ - 1) / strip_rows_;
    strip_rows_ = (rows + strips_ - 1) / strips_;
  }

  void run() const {
    parallel_tasks_with(
        job_.y.n() * strips_, [&] { return Memory(*this); },
        [&](Memory& memory, std::int64_t task) { run_strip(memory, task / strips_, task % strips_); });
  }

 private:
  static constexpr std::int64_t kPairChunk = kParts<T> * 2 * kTileBytes;

  static std::int64_t pairs_of(std::int64_t pixels) { return (pixels + kRows - 1) / kRows; }
  /// Rows of the wide map that r rows of the result read.
  [[nodiscard]] std::int64_t wide_rows(std::int64_t r) const { return std::min((r - 1) * stride_ + reach_, height_); }
  [[nodiscard]] std::int64_t source_bytes(std::int64_t r) const {
    return job_.widen.packed != nullptr ? pairs_of(wide_rows(r) * width_) * widen_.chunks() * kPairChunk : 0;
  }
  [[nodiscard]] std::int64_t filtered_bytes(std::int64_t r) const {
    return pairs_of(r * job_.y.w()) * panels_ * kPairChunk;
  }
  [[nodiscard]] std::int64_t operand_bytes(std::int64_t r) const { return source_bytes(r) + filtered_bytes(r); }
  [[nodiscard]] std::int64_t ring_floats(std::int64_t pixel) const { return ring_rows_ * ring_width_ * pixel; }

  /// Where a pair of tiles of x lies, as in ReadyPair.
  struct Pair {
    const char* pixels;
    std::int64_t row_bytes;
  };

  /// What a thread needs, side by side in one block. Its size is nearly always the same, so that one convolution after the other uses
  /// memory that is in cache, and large enough for a huge page.
  struct Memory {
    static constexpr std::int64_t kLeastBytes = 2 << 20;
    TileShapes shapes;
    Workspace block;
    char* source;
    char* filtered;
    float* ring;
    float* sums;
    Pair* pairs;
    std::int64_t ring_pixel = 0;  // floats; 0: the columns around are not zeros yet

    explicit Memory(const Strips& s) : Memory(s, s.source_bytes(s.strip_rows_), s.filtered_bytes(s.strip_rows_)) {}

   private:
    Memory(const Strips& s, std::int64_t source_bytes, std::int64_t filtered_bytes)
        : block(static_cast<std::size_t>(std::max(kLeastBytes, source_bytes + filtered_bytes + s.other_bytes()))),
          source(block.as<char>()),
          filtered(source + source_bytes),
          ring(reinterpret_cast<float*>(filtered + filtered_bytes)),
          sums(ring + s.ring_floats(kPixel<Width::kPanel>)),
          pairs(reinterpret_cast<Pair*>(sums + 2 * kSums)) {}
  };
  [[nodiscard]] std::int64_t other_bytes() const {
    return (ring_floats(kPixel<Width::kPanel>) + 2 * kSums) * 4 +
           pairs_of(wide_rows(strip_rows_) * width_) * static_cast<std::int64_t>(sizeof(Pair));
  }

  /// One strip of one image.
  struct Span {
    std::int64_t image, first, last;  // rows of the result
    std::int64_t from, to;            // rows of the wide map
  };

  void run_strip(Memory& memory, std::int64_t image, std::int64_t strip) const {
    Span span{image, strip * strip_rows_, 0, 0, 0};
    span.last = std::min(job_.y.h(), span.first + strip_rows_);
    span.from = std::clamp<std::int64_t>(span.first * stride_ - padding_, 0, height_);
    span.to = std::clamp<std::int64_t>((span.last - 1) * stride_ - padding_ + reach_, span.from, height_);
    if (job_.widen.packed != nullptr) gather(memory, span);
    for (std::int64_t p = 0; p < panels_; ++p) {
      const bool full = channels_ - p * kColumns > kSide;
      if (full && !halves_) {
        run_part<Width::kPanel>(memory, span, {p, 0});
        continue;
      }
      run_part<Width::kHalf>(memory, span, {p, 0});
      if (full) {
        run_part<Width::kHalf>(memory, span, {p, 1});
      } else {
        clear_half(memory, span, {p, 1});
      }
    }
    narrow(memory, span);
  }

  /// A panel (half 0), or a half of it.
  struct Part {
    std::int64_t panel, half;
    [[nodiscard]] std::int64_t channel() const { return panel * kColumns + half * kSide; }
  };

  template <Width W>
  void run_part(Memory& memory, const Span& span, const Part& part) const {
    if (memory.ring_pixel != kPixel<W>) {
      std::fill_n(memory.ring, ring_floats(kPixel<W>), 0.0F);
      memory.ring_pixel = kPixel<W>;
    }
    const Ring ring{memory.ring, ring_rows_, ring_width_, job_.filter.options.padding[1]};
    if (job_.widen.packed != nullptr) {
      widen_and_filter<W>(memory, span, ring, part);
    } else {
      copy_and_filter<W>(memory, span, ring, part);
    }
  }

  /// The place of a pixel of the filtered strip.
  [[nodiscard]] char* operand(const Memory& memory, const Part& part, std::int64_t pixel) const {
    return memory.filtered + (pixel / kRows * panels_ + part.panel) * kPairChunk + pixel % kRows * 64 + part.half * 32;
  }

  /// Channels that do not exist, but whose places are multiplied, by zero.
  void clear_half(Memory& memory, const Span& span, const Part& part) const {
    const std::int64_t count = (span.last - span.first) * job_.y.w();
    for (std::int64_t i = 0; i < count; ++i) put_half<T>(simd::Vec{}, operand(memory, part, i));
  }

  void gather(Memory& memory, const Span& span) const {
    const std::int64_t pixel = (span.image * height_ + span.from) * width_;
    const std::int64_t count = (span.to - span.from) * width_;
    const PixelGatherer<T> gatherer(plan_, widen_, job_.x.ptr<T>(), job_.x.c(),
                                    count * job_.x.c() * static_cast<std::int64_t>(sizeof(T)), PixelOrder::kNatural);
    ReadyPair ready;
    for (std::int64_t k = 0; k * kRows < count; ++k) {
      gatherer.gather(pixel + k * kRows, std::min(kRows, count - k * kRows), 0, widen_.chunks(),
                      memory.source + k * widen_.chunks() * kPairChunk, ready);
      memory.pairs[k] = {ready.pixels, ready.row_bytes};
    }
  }

  /// multiply(k, rows, sums) for every pair k of `count` pixels, and use(k, rows, sums) behind it, when the next pair has been multiplied.
  /// Note [ahead]
  template <class Multiply, class Use>
  static void for_pairs_ahead(const Memory& memory, std::int64_t count, const Multiply& multiply, const Use& use) {
    const auto rows = [&](std::int64_t k) { return std::min(kRows, count - k * kRows); };
    const auto sums = [&](std::int64_t k) { return memory.sums + k % 2 * kSums; };
    if (count > 0) multiply(0, rows(0), sums(0));
    for (std::int64_t k = 0; k * kRows < count; ++k) {
      if (rows(k + 1) > 0) multiply(k + 1, rows(k + 1), sums(k + 1));
      use(k, rows(k), sums(k));
    }
  }

  template <Width W>
  void widen_and_filter(Memory& memory, const Span& span, const Ring& ring, const Part& part) const {
    const std::int64_t count = (span.to - span.from) * width_;
    const char* const weights = static_cast<const char*>(job_.widen.packed) + panel_offset<T>(widen_, part.panel);
    ReadyPair ready;
    ready.stretches[ready.stretch_count++] = {0, widen_.chunks()};
    std::int64_t next = span.first;
    for_pairs_ahead(
        memory, count,
        [&](std::int64_t k, std::int64_t rows, float* sums) {
          ready.pixels = memory.pairs[k].pixels;
          ready.row_bytes = memory.pairs[k].row_bytes;
          if (W == Width::kHalf && widen_.width(part.panel) == 2) {
            multiply_half<T>(ready, rows, weights, part.half, sums);
          } else {
            multiply_pair<T>(ready, rows, weights, widen_.width(part.panel), sums, false);
          }
        },
        [&](std::int64_t k, std::int64_t rows, const float* sums) {
          put_wide<W>(sums, span.from * width_ + k * kRows, rows, ring, part);
          next = filter_ready<W>(memory, span, ring, part, next, span.from + (k * kRows + rows) / width_);
        });
    filter_ready<W>(memory, span, ring, part, next, height_);
  }

  /// Sums of pixels `pixel` .. of an image into the ring.
  template <Width W>
  void put_wide(const float* sums, std::int64_t pixel, std::int64_t rows, const Ring& ring, const Part& part) const {
    const TensorView& b = job_.widen.bias;
    Vectors<W> bias{};
    for (std::int64_t v = 0; v < kVectors<W> && b.defined(); ++v) {
      const std::int64_t at = part.channel() + v * kSide;
      bias[static_cast<std::size_t>(v)] = get(b.ptr<float>() + at, simd::first_lanes(channels_ - at));
    }
    const Bounds bounds(job_.widen.act);
    std::int64_t row = pixel / width_;
    std::int64_t at = pixel % width_;
    for (std::int64_t i = 0; i < rows;) {  // stretches of a row of the map and of a tile
      const std::int64_t end = std::min({rows, i + width_ - at, i / kSide * kSide + kSide});
      const float* sum = sums + i / kSide * 512 + i % kSide * kSide;
      float* out = ring.row<W>(row) + (at + ring.padding) * kPixel<W>;
      at += end - i;
      for (; i < end; ++i, sum += kSide, out += kPixel<W>) {
        for (std::int64_t v = 0; v < kVectors<W>; ++v) {
          simd::store(out + v * kSide, bounds(simd::load(sum + v * 256) + bias[static_cast<std::size_t>(v)]));
        }
      }
      if (at == width_) {
        at = 0;
        ++row;
      }
    }
  }

  /// Without a convolution before the filter.
  template <Width W>
  void copy_and_filter(Memory& memory, const Span& span, const Ring& ring, const Part& part) const {
    std::array<__mmask16, static_cast<std::size_t>(kVectors<W>)> masks;
    for (std::int64_t v = 0; v < kVectors<W>; ++v) {
      masks[static_cast<std::size_t>(v)] = simd::first_lanes(channels_ - part.channel() - v * kSide);
    }
    std::int64_t next = span.first;
    for (std::int64_t r = span.from; r < span.to; ++r) {
      const T* x = job_.x.ptr<T>() + (span.image * height_ + r) * width_ * channels_ + part.channel();
      float* out = ring.row<W>(r) + ring.padding * kPixel<W>;
      for (std::int64_t i = 0; i < width_; ++i, x += channels_, out += kPixel<W>) {
        for (std::int64_t v = 0; v < kVectors<W>; ++v) {
          simd::store(out + v * kSide, get(x + v * kSide, masks[static_cast<std::size_t>(v)]));
        }
      }
      next = filter_ready<W>(memory, span, ring, part, next, r + 1);
    }
    filter_ready<W>(memory, span, ring, part, next, height_);
  }

  /// Filters the result rows from `next` on that read no wide row from `ready` on; returns the first that is left.
  template <Width W>
  std::int64_t filter_ready(const Memory& memory, const Span& span, const Ring& ring, const Part& part,
                            std::int64_t next, std::int64_t ready) const {
    const Conv2dOptions& o = job_.filter.options;
    const float* const packed = static_cast<const float*>(job_.filter.packed) +
                                part.panel * (taps_[0] * taps_[1] + 1) * kColumns + part.half * kSide;
    for (; next < span.last && std::min(next * stride_ - padding_ + reach_, height_) <= ready; ++next) {
      FilterJob job;
      job.taps = taps_[1];
      job.step = o.stride[1];
      job.spacing = o.dilation[1];
      job.bias = packed;
      job.act = job_.filter.act;
      for (std::int64_t k = 0; k < taps_[0]; ++k) {
        const std::int64_t h = next * stride_ - padding_ + k * o.dilation[0];
        if (h < 0 || h >= height_) continue;
        job.rows[job.count++] = {ring.row<W>(h), packed + (1 + k * taps_[1]) * kColumns};
      }
      const std::int64_t first = (next - span.first) * job_.y.w();
      filter_row<T, W>(job, job_.y.w(), [&](std::int64_t t) { return operand(memory, part, first + t); });
    }
    return next;
  }

  void narrow(Memory& memory, const Span& span) const {
    const std::int64_t count = (span.last - span.first) * job_.y.w();
    const std::int64_t pixel = (span.image * job_.y.h() + span.first) * job_.y.w();
    const ConvEpilogue epilogue{job_.narrow.bias, job_.residual, job_.narrow.act};
    ReadyPair ready;
    ready.stretches[ready.stretch_count++] = {0, panels_};
    for (std::int64_t p = 0; p < narrow_.panels(); ++p) {
      const char* const weights = static_cast<const char*>(job_.narrow.packed) + panel_offset<T>(narrow_, p);
      for_pairs_ahead(
          memory, count,
          [&](std::int64_t k, std::int64_t rows, float* sums) {
            ready.pixels = memory.filtered + k * panels_ * kPairChunk;
            multiply_pair<T>(ready, rows, weights, narrow_.width(p), sums, false);
          },
          [&](std::int64_t k, std::int64_t rows, const float* sums) {
            finish<T>(sums, nullptr, pixel + k * kRows, rows, p, epilogue, job_.y);
          });
    }
  }

  const PanelStrips& job_;
  const GatherPlan& plan_;
  WeightShape widen_, narrow_;
  std::int64_t height_, width_, channels_, panels_;  // of the wide map
  std::int64_t stride_, padding_, reach_;            // of the filter along the rows
  std::array<std::int64_t, 2> taps_{};
  std::int64_t ring_width_, ring_rows_;
  bool halves_ = false;  // goes through in half panels
  std::int64_t strip_rows_ = 1, strips_ = 1;
};

}  // namespace

std::size_t panel_filter_floats(const Shape& w) {
  return static_cast<std::size_t>((w[0] + kColumns - 1) / kColumns * kColumns * (w[2] * w[3] + 1));
}

void panel_filter_pack(const TensorView& w, const TensorView& bias, float* packed) {
  const std::int64_t taps = w.h() * w.w();
  std::fill_n(packed, panel_filter_floats(w.shape), 0.0F);
  for (std::int64_t c = 0; c < w.n(); ++c) {
    float* const out = packed + c / kColumns * (taps + 1) * kColumns + c % kColumns;
    if (bias.defined()) out[0] = bias.ptr<float>()[c];
    for (std::int64_t k = 0; k < taps; ++k) out[(k + 1) * kColumns] = w.ptr<float>()[c * taps + k];
  }
}

void panel_strips(const PanelStrips& job) {
  visit_fast_dtype("inverted_residual", job.x.dtype, [&](auto zero) { Strips<decltype(zero)>(job).run(); });
}

}  // namespace limbeck::ops

#else

namespace limbeck::ops {

std::size_t panel_filter_floats(const Shape&) { return 0; }
void panel_filter_pack(const TensorView&, const TensorView&, float*) {}
void panel_strips(const PanelStrips&) {}

}  // namespace limbeck::ops

#endif
