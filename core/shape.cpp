#include "core/shape.h"

#include <algorithm>

namespace limbeck {

std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(begin(), end(), ", ")); }

Strides row_major_strides(const Shape& shape) {
  Strides strides;
  strides.resize(shape.size());
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= std::max<std::int64_t>(shape[i], 1);
  }
  return strides;
}

Strides channels_last_strides(const Shape& shape) {
  LIMBECK_CHECK(shape.size() == 4, "shape", "channels-last needs 4 dimensions, got {}", shape);
  const std::int64_t c = std::max<std::int64_t>(shape[1], 1);
  const std::int64_t h = std::max<std::int64_t>(shape[2], 1);
  const std::int64_t w = std::max<std::int64_t>(shape[3], 1);
  return {h * w * c, 1, w * c, c};
}

Strides default_strides(const Shape& shape) {
  return shape.size() == 4 ? channels_last_strides(shape) : row_major_strides(shape);
}

Shape broadcast_shapes(std::string_view where, const Shape& a, const Shape& b) {
  Shape out;
  out.resize(std::max(a.size(), b.size()));
  for (std::size_t i = 0; i < out.size(); ++i) {  // i counts from the last dimension
    const std::int64_t sa = i < a.size() ? a[a.size() - 1 - i] : 1;
    const std::int64_t sb = i < b.size() ? b[b.size() - 1 - i] : 1;
    LIMBECK_CHECK(sa == sb || sa == 1 || sb == 1, where, "shapes {} and {} do not broadcast: {} against {}", a, b, sa,
                  sb);
    out[out.size() - 1 - i] = sa == 1 ? sb : sa;
  }
  return out;
}

}  // namespace limbeck
