// The camera's share: haze, exposure, optics, sensor; and the labels.
#include <numbers>

#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {
namespace {

/// Stuff has soft borders that a person would draw as one line; only things get an ignore rim.
bool is_thing(std::uint8_t id) noexcept {
  switch (static_cast<SceneClass>(id)) {
    case SceneClass::kSky:
    case SceneClass::kBuilding:
    case SceneClass::kRoad:
    case SceneClass::kPavement:
    case SceneClass::kTree: return false;
    default: return true;
  }
}

/// Label of a 2x2 block: one id, or kIgnoreId across the border of a thing, or the most frequent stuff.
std::uint8_t block_label(const std::array<std::uint8_t, 4>& id) noexcept {
  if (id[0] == id[1] && id[0] == id[2] && id[0] == id[3]) return id[0];
  std::uint8_t best = id[0];
  int best_count = 0;
  for (const auto candidate : id) {
    if (is_thing(candidate)) return kIgnoreId;
    const int count = static_cast<int>(std::count(id.begin(), id.end(), candidate));
    if (count > best_count) best = candidate, best_count = count;
  }
  return best;
}

/// Thickens the rim with the picture size, so that its share of the picture stays about the same.
void widen_rim(Mask& mask, std::int64_t radius) {
  if (radius <= 0) return;
  const Mask thin = mask;
  for (std::int64_t y = 0; y < mask.h; ++y) {
    for (std::int64_t x = 0; x < mask.w; ++x) {
      if (thin.at(y, x) != kIgnoreId) continue;
      for (std::int64_t v = std::max<std::int64_t>(0, y - radius); v <= std::min(mask.h - 1, y + radius); ++v) {
        for (std::int64_t u = std::max<std::int64_t>(0, x - radius); u <= std::min(mask.w - 1, x + radius); ++u) {
          mask.at(v, u) = kIgnoreId;
        }
      }
    }
  }
}

/// Horizontal and vertical Gaussian of three to seven taps over a plane of h x w x 3 floats.
void blur(std::vector<float>& v, std::int64_t h, std::int64_t w, float sigma) {
  if (sigma < 0.15F) return;
  const auto radius = static_cast<std::int64_t>(std::ceil(2.2F * sigma));
  std::vector<float> kernel;
  float sum = 0;
  for (std::int64_t k = -radius; k <= radius; ++k) {
    const float d = static_cast<float>(k) / sigma;
    kernel.push_back(std::exp(-0.5F * d * d));
    sum += kernel.back();
  }
  for (auto& k : kernel) k /= sum;
  std::vector<float> temp(v.size());
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      for (std::int64_t c = 0; c < 3; ++c) {
        float acc = 0;
        for (std::int64_t k = -radius; k <= radius; ++k) {
          const std::int64_t u = std::clamp<std::int64_t>(x + k, 0, w - 1);
          acc += kernel[static_cast<std::size_t>(k + radius)] * v[static_cast<std::size_t>((y * w + u) * 3 + c)];
        }
        temp[static_cast<std::size_t>((y * w + x) * 3 + c)] = acc;
      }
    }
  }
  for (std::int64_t y = 0; y < h; ++y) {
    float* out = v.data() + y * w * 3;
    std::fill_n(out, w * 3, 0.0F);
    for (std::int64_t k = -radius; k <= radius; ++k) {
      const float* row = temp.data() + std::clamp<std::int64_t>(y + k, 0, h - 1) * w * 3;
      const float weight = kernel[static_cast<std::size_t>(k + radius)];
      for (std::int64_t i = 0; i < w * 3; ++i) out[i] += weight * row[i];
    }
  }
}

}  // namespace

Sample finish(const Canvas& canvas, const World& world) {
  const Weather& we = world.weather;
  const std::int64_t h = canvas.h / 2;
  const std::int64_t w = canvas.w / 2;
  Sample out{Image(h, w), Mask(h, w), {}};
  std::vector<float> light(static_cast<std::size_t>(h * w * 3));
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      Colour sum;
      std::array<std::uint8_t, 4> ids{};
      for (std::size_t k = 0; k < 4; ++k) {
        const auto i = static_cast<std::size_t>((2 * y + static_cast<std::int64_t>(k / 2)) * canvas.w + 2 * x +
                                                static_cast<std::int64_t>(k % 2));
        ids[k] = canvas.id[i];
        const float z = canvas.depth[i];
        const float clear = z == Canvas::kFar ? 1.0F : std::exp(-z / we.haze_distance);
        sum = sum + mix(we.haze, canvas.colour[i], clear);
      }
      out.mask.at(y, x) = block_label(ids);
      const float dx = 2.0F * (static_cast<float>(x) + 0.5F) / static_cast<float>(w) - 1.0F;
      const float dy = 2.0F * (static_cast<float>(y) + 0.5F) / static_cast<float>(h) - 1.0F;
      const float gain = 0.25F * we.exposure * (1.0F - 0.5F * we.vignette * (dx * dx + dy * dy));
      const Colour c = gain * (we.balance * sum);
      float* p = light.data() + (y * w + x) * 3;
      p[0] = c.r, p[1] = c.g, p[2] = c.b;
    }
  }
  widen_rim(out.mask, (h + 64) / 192 - (h < 128 ? 1 : 0));
  blur(light, h, w, we.blur * static_cast<float>(w) / 128.0F);
  for (std::size_t i = 0; i < light.size(); ++i) {
    // Filmic shoulder, then gamma 2; noise is added where the sensor's numbers are.
    const float v = std::max(0.0F, light[i]);
    const float tone = std::sqrt(v * (1.0F + 0.1F * v) / (1.0F + 0.55F * v));
    const auto cell = static_cast<int>(i);
    const float bell = hash01(cell, 0, we.seed) + hash01(cell, 1, we.seed) + hash01(cell, 2, we.seed) - 1.5F;
    const float noisy = tone + 2.0F * bell * we.noise * (0.5F + tone);
    out.image.rgb[i] = static_cast<std::uint8_t>(clamp01(noisy) * 255.0F + 0.5F);
  }
  return out;
}

}  // namespace limbeck::datasets::scene
