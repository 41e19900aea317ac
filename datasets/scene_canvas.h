// What this is: the drawing half of the scene generator: vectors, noise, a pinhole camera and a z-buffer on which
//   textured planes of the world are drawn.
// What it is not: what a street looks like (scene_world.h lays it out, scene_*.cpp draw it).
// Read next: scene_world.h.
//
// Coordinates: metres, x to the right, y up from the ground, z forward; the camera stands at (0, height, 0) and looks
// along z. The canvas is twice as fine as the final picture in both directions.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/scenes.h"

namespace limbeck::datasets::scene {

struct Vec3 {
  float x = 0, y = 0, z = 0;
  friend Vec3 operator+(Vec3 a, Vec3 b) noexcept { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
  friend Vec3 operator-(Vec3 a, Vec3 b) noexcept { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
  friend Vec3 operator*(float s, Vec3 a) noexcept { return {s * a.x, s * a.y, s * a.z}; }
};
[[nodiscard]] inline float dot(Vec3 a, Vec3 b) noexcept { return a.x * b.x + a.y * b.y + a.z * b.z; }
[[nodiscard]] inline Vec3 cross(Vec3 a, Vec3 b) noexcept {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
[[nodiscard]] inline Vec3 unit(Vec3 a) noexcept { return (1.0F / std::sqrt(dot(a, a))) * a; }

/// Light intensity, linear, 1 = white in full exposure.
struct Colour {
  float r = 0, g = 0, b = 0;
  friend Colour operator+(Colour a, Colour b) noexcept { return {a.r + b.r, a.g + b.g, a.b + b.b}; }
  friend Colour operator*(Colour a, Colour b) noexcept { return {a.r * b.r, a.g * b.g, a.b * b.b}; }
  friend Colour operator*(float s, Colour a) noexcept { return {s * a.r, s * a.g, s * a.b}; }
};
[[nodiscard]] inline Colour mix(Colour a, Colour b, float t) noexcept { return (1.0F - t) * a + t * b; }
[[nodiscard]] inline float clamp01(float v) noexcept { return std::min(std::max(v, 0.0F), 1.0F); }
[[nodiscard]] inline float smooth_step(float low, float high, float v) noexcept {
  const float t = clamp01((v - low) / (high - low));
  return t * t * (3.0F - 2.0F * t);
}

// --- noise: pure functions of position and seed -----------------------------------------------------------------

[[nodiscard]] inline std::uint32_t hash(std::uint32_t a, std::uint32_t b, std::uint32_t seed) noexcept {
  std::uint32_t h = seed ^ (a * 0x9E3779B1U) ^ (b * 0x85EBCA77U);
  h = (h ^ (h >> 15U)) * 0x2C1B3C6DU;
  h = (h ^ (h >> 12U)) * 0x297A2D39U;
  return h ^ (h >> 15U);
}
/// Uniform in [0, 1) for an integer cell.
[[nodiscard]] inline float hash01(int a, int b, std::uint32_t seed) noexcept {
  return static_cast<float>(hash(static_cast<std::uint32_t>(a), static_cast<std::uint32_t>(b), seed) >> 8U) *
         0x1.0p-24F;
}
[[nodiscard]] inline int floor_int(float v) noexcept { return static_cast<int>(std::floor(v)); }
[[nodiscard]] inline float fraction(float v) noexcept { return v - std::floor(v); }
/// Smooth random surface in [0, 1] with features of size 1.
[[nodiscard]] inline float value_noise(float x, float y, std::uint32_t seed) noexcept {
  const int ix = floor_int(x);
  const int iy = floor_int(y);
  const float fx = x - static_cast<float>(ix);
  const float fy = y - static_cast<float>(iy);
  const float sx = fx * fx * (3.0F - 2.0F * fx);
  const float sy = fy * fy * (3.0F - 2.0F * fy);
  const float top = hash01(ix, iy, seed) + sx * (hash01(ix + 1, iy, seed) - hash01(ix, iy, seed));
  const float low = hash01(ix, iy + 1, seed) + sx * (hash01(ix + 1, iy + 1, seed) - hash01(ix, iy + 1, seed));
  return top + sy * (low - top);
}
/// Sum of octaves, each half the size and half the weight of the one before; in [0, 1].
[[nodiscard]] inline float cloud_noise(float x, float y, std::uint32_t seed, int octaves) noexcept {
  float sum = 0;
  float weight = 0.5F;
  float total = 0;
  for (int i = 0; i < octaves; ++i) {
    sum += weight * value_noise(x, y, seed + static_cast<std::uint32_t>(i));
    total += weight;
    weight *= 0.5F;
    x *= 2.03F;
    y *= 2.03F;
  }
  return sum / total;
}

// --- camera and canvas ------------------------------------------------------------------------------------------

struct Camera {
  float height = 1.4F;   ///< metres above the ground
  float fov = 1.1F;      ///< horizontal angle, radians
  float horizon = 0.5F;  ///< row of the horizon as a share of the picture height
  float roll = 0;        ///< radians
};

/// Part of a plane: origin + a * u + b * v for a in [a0, a1], b in [b0, b1]; u and v are unit vectors at right angles.
struct Plane {
  Vec3 origin, u, v;
  float a0 = 0, a1 = 1, b0 = 0, b1 = 1;
};

/// What a shader says about a point. Alpha below 1 lets the point behind show; the id counts from alpha 0.
struct Paint {
  Colour colour;
  SceneClass id = SceneClass::kBuilding;
  float alpha = 1;
};

class Canvas {
 public:
  static constexpr float kNear = 0.4F;
  static constexpr float kFar = std::numeric_limits<float>::infinity();

  Canvas(const Camera& camera, std::int64_t height, std::int64_t width)
      : h(height),
        w(width),
        colour(static_cast<std::size_t>(height * width)),
        depth(colour.size(), kFar),
        id(colour.size(), static_cast<std::uint8_t>(SceneClass::kSky)),
        camera_(camera) {
    focal = 0.5F * static_cast<float>(w) / std::tan(0.5F * camera.fov);
    centre_x_ = 0.5F * static_cast<float>(w);
    centre_y_ = camera.horizon * static_cast<float>(h);
    cos_ = std::cos(camera.roll);
    sin_ = std::sin(camera.roll);
  }

  std::int64_t h, w;
  float focal = 1;  ///< in canvas pixels
  std::vector<Colour> colour;
  std::vector<float> depth;
  std::vector<std::uint8_t> id;

  /// Direction (x, y) of the ray through the middle of a canvas pixel; its z is 1.
  [[nodiscard]] std::array<float, 2> ray(std::int64_t row, std::int64_t column) const noexcept {
    const float px = static_cast<float>(column) + 0.5F - centre_x_;
    const float py = centre_y_ - (static_cast<float>(row) + 0.5F);
    return {(px * cos_ + py * sin_) / focal, (py * cos_ - px * sin_) / focal};
  }

  /// Calls `shade(a, b, depth, paint)` for every pixel where the plane is nearer than what is there. Where it returns
  /// true the paint is laid on: opaque paint replaces, translucent paint mixes with what is there.
  template <class Shader>
  void draw(const Plane& plane, const Shader& shade) {
    visit(plane, 1.0F, [&](std::size_t i, float a, float b, float t) {
      Paint paint;
      if (!shade(a, b, t, paint)) return;
      colour[i] = paint.alpha >= 1.0F ? paint.colour : mix(colour[i], paint.colour, paint.alpha);
      depth[i] = t;
      id[i] = static_cast<std::uint8_t>(paint.id);
    });
  }

  /// Calls `factor(a, b)` on pixels of an already drawn surface in this plane and multiplies their colour: shadows.
  template <class Factor>
  void darken(const Plane& plane, const Factor& factor) {
    visit(plane, 0.999F, [&](std::size_t i, float a, float b, float) { colour[i] = factor(a, b) * colour[i]; });
  }

 private:
  struct Box {
    std::int64_t top = 0, bottom = -1, left = 0, right = -1;
  };

  /// Pixels that may show the plane: its corners, cut at the near plane, projected.
  [[nodiscard]] Box bounds(const Plane& p) const noexcept {
    const std::array<Vec3, 4> corner{p.origin + p.a0 * p.u + p.b0 * p.v, p.origin + p.a1 * p.u + p.b0 * p.v,
                                     p.origin + p.a1 * p.u + p.b1 * p.v, p.origin + p.a0 * p.u + p.b1 * p.v};
    float left = 1e9F;
    float right = -1e9F;
    float top = 1e9F;
    float bottom = -1e9F;
    const auto add = [&](Vec3 q) {
      const float dx = q.x / q.z * focal;
      const float dy = (q.y - camera_.height) / q.z * focal;
      const float px = centre_x_ + dx * cos_ - dy * sin_;
      const float py = centre_y_ - (dx * sin_ + dy * cos_);
      left = std::min(left, px);
      right = std::max(right, px);
      top = std::min(top, py);
      bottom = std::max(bottom, py);
    };
    for (std::size_t k = 0; k < 4; ++k) {
      const Vec3 a = corner[k];
      const Vec3 b = corner[(k + 1) % 4];
      if (a.z >= kNear) add(a);
      if ((a.z >= kNear) != (b.z >= kNear)) add(a + ((kNear - a.z) / (b.z - a.z)) * (b - a));
    }
    if (left > right) return {};
    const auto cell = [](float v, std::int64_t most) {
      return static_cast<std::int64_t>(std::min(std::max(v, -1.0F), static_cast<float>(most)));
    };
    return {std::max<std::int64_t>(0, cell(top, h) - 1), std::min(h - 1, cell(bottom, h) + 1),
            std::max<std::int64_t>(0, cell(left, w) - 1), std::min(w - 1, cell(right, w) + 1)};
  }

  template <class Body>
  void visit(const Plane& p, float bias, const Body& body) {
    const Vec3 to_origin = p.origin - Vec3{0, camera_.height, 0};
    const Vec3 normal = cross(p.u, p.v);
    const float distance = dot(normal, to_origin);
    const float offset_a = -dot(to_origin, p.u);
    const float offset_b = -dot(to_origin, p.v);
    const Box box = bounds(p);
    for (std::int64_t y = box.top; y <= box.bottom; ++y) {
      for (std::int64_t x = box.left; x <= box.right; ++x) {
        const auto [dx, dy] = ray(y, x);
        const float t = distance / (normal.x * dx + normal.y * dy + normal.z);
        const auto i = static_cast<std::size_t>(y * w + x);
        if (!(t > kNear) || t * bias >= depth[i]) continue;
        const float a = t * (p.u.x * dx + p.u.y * dy + p.u.z) + offset_a;
        if (a < p.a0 || a > p.a1) continue;
        const float b = t * (p.v.x * dx + p.v.y * dy + p.v.z) + offset_b;
        if (b < p.b0 || b > p.b1) continue;
        body(i, a, b, t);
      }
    }
  }

  Camera camera_;
  float centre_x_ = 0, centre_y_ = 0, cos_ = 1, sin_ = 0;
};

}  // namespace limbeck::datasets::scene
