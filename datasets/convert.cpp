#include "datasets/convert.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace limbeck::datasets {

Tensor to_tensor(const Image& image, const Normalisation& normalisation, std::int64_t multiple, Rgb pad_colour) {
  LIMBECK_CHECK(multiple >= 1 && image.h > 0 && image.w > 0, "to_tensor", "picture {}x{}, multiple {}", image.w,
                image.h, multiple);
  const std::int64_t h = (image.h + multiple - 1) / multiple * multiple;
  const std::int64_t w = (image.w + multiple - 1) / multiple * multiple;
  Tensor out = Tensor::empty({1, 3, h, w});
  auto* p = out.data<float>();
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x, p += 3) {
      const std::uint8_t* source = y < image.h && x < image.w ? image.at(y, x) : pad_colour.data();
      normalisation.apply(source, p);
    }
  }
  return out;
}

Tensor to_bytes(const Image& image, const Normalisation& normalisation) {
  LIMBECK_CHECK(image.h > 0 && image.w > 0, "to_bytes", "picture {}x{}", image.w, image.h);
  Tensor out = Tensor::empty({1, 3, image.h, image.w}, DType::kU8);
  auto* p = out.data<std::uint8_t>();
  std::copy(image.rgb.begin(), image.rgb.end(), p);
  if (normalisation.bgr) {
    for (std::int64_t i = 0; i < out.numel(); i += 3) std::swap(p[i], p[i + 2]);
  }
  return out;
}

Image to_image(const Tensor& images, std::int64_t n, const Normalisation& normalisation) {
  LIMBECK_CHECK(images.ndim() == 4 && images.size(1) == 3 && n >= 0 && n < images.size(0), "to_image",
                "entry {} of {}, expected [N,3,H,W]", n, images.describe());
  const Tensor f = images.dtype() == DType::kF32 ? images : images.copy_as(DType::kF32);
  const TensorView v = f.view();
  Image out(images.size(2), images.size(3));
  for (std::int64_t y = 0; y < out.h; ++y) {
    for (std::int64_t x = 0; x < out.w; ++x) {
      for (std::int64_t c = 0; c < 3; ++c) {
        const auto k = static_cast<std::size_t>(c);
        const float value = (v.at<float>(n, c, y, x) - normalisation.shift[k]) / normalisation.scale[k];
        out.at(y, x)[normalisation.bgr ? 2 - c : c] = static_cast<std::uint8_t>(std::clamp(value + 0.5F, 0.0F, 255.0F));
      }
    }
  }
  return out;
}

Mask to_mask(const Tensor& ids, std::int64_t n) {
  LIMBECK_CHECK((ids.ndim() == 3 && n >= 0 && n < ids.size(0)) || (ids.ndim() == 2 && n == 0), "to_mask",
                "entry {} of {}, expected [N,H,W] or [H,W]", n, ids.describe());
  const TensorView v = ids.view();
  const std::size_t first = ids.ndim() == 3 ? 1 : 0;
  Mask out(ids.shape()[first], ids.shape()[first + 1]);
  const std::int64_t base = first == 1 ? n * v.strides[0] : 0;
  visit_dtype(ids.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, std::uint8_t> || std::is_same_v<T, std::int32_t> ||
                  std::is_same_v<T, std::int64_t>) {
      for (std::int64_t y = 0; y < out.h; ++y) {
        for (std::int64_t x = 0; x < out.w; ++x) {
          const T id = v.ptr<T>()[base + y * v.strides[first] + x * v.strides[first + 1]];
          if (id < T{0} || static_cast<std::int64_t>(id) > 255) {
            fail<DataError>("to_mask", "id {} at pixel x={} y={} of entry {}, expected 0..255", id, x, y, n);
          }
          out.at(y, x) = static_cast<std::uint8_t>(id);
        }
      }
    } else {
      fail("to_mask", "ids of type {}, expected u8, i32 or i64", name_of(ids.dtype()));
    }
  });
  return out;
}

Tensor to_tensor(const Mask& mask) {
  Tensor out = Tensor::empty({1, mask.h, mask.w}, DType::kU8);
  std::memcpy(out.data<std::uint8_t>(), mask.ids.data(), mask.ids.size());
  return out;
}

Sample centre_crop(const Sample& sample, std::int64_t h, std::int64_t w, Rgb pad_colour) {
  LIMBECK_CHECK(h > 0 && w > 0, "centre_crop", "window {}x{}, expected positive numbers", w, h);
  const bool masked = sample.label < 0;
  Sample out{Image(h, w, pad_colour), masked ? Mask(h, w) : Mask(), sample.name, sample.label};
  const std::int64_t top = (sample.image.h - h) / 2;
  const std::int64_t left = (sample.image.w - w) / 2;
  for (std::int64_t y = std::max<std::int64_t>(0, -top); y < std::min(h, sample.image.h - top); ++y) {
    for (std::int64_t x = std::max<std::int64_t>(0, -left); x < std::min(w, sample.image.w - left); ++x) {
      std::copy_n(sample.image.at(y + top, x + left), 3, out.image.at(y, x));
      if (masked) out.mask.at(y, x) = sample.mask.at(y + top, x + left);
    }
  }
  return out;
}

}  // namespace limbeck::datasets
