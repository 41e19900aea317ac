// Vehicles: a body box with a narrower cabin on top, drawn as up to seven planes. Cars, vans and buses differ in
// numbers.
#include <numbers>

#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {
namespace {

/// Measures in metres. Heights: sill < belt (lower edge of the windows) < top. Insets: how far the cabin's screens
/// stand back from the ends of the body, at the belt and at the top.
struct Body {
  float length, width, sill, belt, top;
  float rear_low, rear_high, front_low, front_high;
  float wheel;
  bool box;  ///< van or bus: no bonnet, few or many side windows
};

Body body_of(const Actor& a) {
  Body b{4.2F, 1.75F, 0.26F, 0.92F, 1.44F, 0.12F, 0.75F, 1.05F, 1.75F, 0.32F, false};  // hatchback
  if (a.kind == ActorKind::kVan) b = {5.2F, 1.95F, 0.32F, 1.15F, 2.15F, 0.0F, 0.0F, 0.35F, 0.95F, 0.35F, true};
  if (a.kind == ActorKind::kBus) b = {11.0F, 2.5F, 0.32F, 1.15F, 3.05F, 0.0F, 0.0F, 0.05F, 0.2F, 0.48F, true};
  if (a.kind == ActorKind::kCar && a.variant == 1) b.rear_low = 0.75F, b.rear_high = 1.25F, b.length = 4.6F;  // saloon
  if (a.kind == ActorKind::kCar && a.variant == 2) b.belt = 1.05F, b.top = 1.72F, b.sill = 0.34F, b.wheel = 0.37F;
  for (float* v : {&b.length, &b.width, &b.belt, &b.top}) *v *= a.size;
  return b;
}

struct Painter {
  const World& world;
  const Actor& actor;
  Body body;
  Vec3 forward, right;
  float shadow;

  [[nodiscard]] Colour lit(Colour albedo, Vec3 normal) const { return albedo * world.weather.light(normal, shadow); }
  /// Glass mirrors the sky where it looks up and the street where it does not.
  [[nodiscard]] Colour glass(float up) const {
    return mix(Colour{0.03F, 0.035F, 0.04F}, 0.55F * world.weather.horizon, clamp01(up));
  }
  /// Paint with a highlight along the shoulder.
  [[nodiscard]] Colour paint(float height) const {
    const float shoulder = smooth_step(0.0F, 1.0F, height / body.belt);
    return (0.72F + 0.4F * shoulder) * actor.main;
  }
  /// How far the cabin's sides lean inwards up to the roof.
  [[nodiscard]] float lean() const noexcept { return body.box ? 0.0F : 0.1F * body.width; }
  [[nodiscard]] bool faces_camera(Vec3 point, Vec3 normal) const {
    return dot(normal, Vec3{0, world.camera.height, 0} - point) > 0;
  }
};

Paint opaque(Colour c) { return {c, SceneClass::kCar, 1.0F}; }

/// Front or rear of the body up to the belt, and for boxes up to the top. `rear` chooses the lights.
void draw_end(Canvas& canvas, const Painter& p, bool rear) {
  const Body& bd = p.body;
  const Vec3 normal = rear ? -1.0F * p.forward : p.forward;
  const Vec3 middle = p.actor.at + 0.5F * bd.length * normal;
  if (!p.faces_camera(middle, normal)) return;
  const float half = 0.5F * bd.width;
  const float high = bd.box && rear ? bd.top : bd.belt;
  const auto shade = [&](float a, float b, float, Paint& paint) {
    const float side = std::abs(a) / half;
    const float round = 0.12F;  // corner radius
    const float cx = std::max(0.0F, std::abs(a) - (half - round));
    const float cy = std::max(0.0F, b - (high - round));
    if (cx * cx + cy * cy > round * round) return false;
    Colour c = p.lit(p.paint(b), normal);
    const float up = (b - bd.sill) / (bd.belt - bd.sill);
    if (up < 0.3F) c = 0.55F * c;                                                          // bumper
    if (up > 0.18F && up < 0.36F && side < 0.3F) c = p.lit({0.75F, 0.74F, 0.6F}, normal);  // number plate
    if (side > 0.62F && side < 0.96F && up > 0.5F && up < 0.78F) {
      c = rear ? p.lit({0.55F, 0.02F, 0.02F}, normal) : p.lit({0.8F, 0.8F, 0.75F}, normal);
      if (p.world.weather.lamps) c = c + (rear ? Colour{0.7F, 0.04F, 0.03F} : Colour{1.2F, 1.1F, 0.85F});
    } else if (!rear && up > 0.35F && up < 0.62F && side < 0.55F) {
      c = p.lit({0.04F, 0.04F, 0.045F}, normal);  // grille
    }
    if (bd.box && rear && b > bd.belt && b < bd.top - 0.3F && side < 0.85F && side > 0.05F) c = p.glass(0.3F);
    paint = opaque(c);
    return true;
  };
  canvas.draw({middle, p.right, {0, 1, 0}, -half, half, bd.sill, high}, shade);
  // Tyres stand at the axle, below and behind the bumper.
  const Vec3 axle = p.actor.at + (0.31F * bd.length) * normal;
  canvas.draw({axle, p.right, {0, 1, 0}, -half, half, 0, bd.sill}, [&](float a, float, float, Paint& paint) {
    const float side = std::abs(a) / half;
    if (side < 0.7F || side > 0.98F) return false;
    paint = opaque(p.lit({0.03F, 0.03F, 0.03F}, normal));
    return true;
  });
}

/// Wind screen or rear window: a slanted plane between belt and top.
void draw_screen(Canvas& canvas, const Painter& p, bool rear) {
  const Body& bd = p.body;
  const Vec3 out = rear ? -1.0F * p.forward : p.forward;
  const float low = rear ? bd.rear_low : bd.front_low;
  const float high = rear ? bd.rear_high : bd.front_high;
  if (bd.box && rear) return;
  const Vec3 foot = p.actor.at + (0.5F * bd.length - low) * out + Vec3{0, bd.belt, 0};
  const Vec3 rise = Vec3{0, bd.top - bd.belt, 0} - (high - low) * out;
  const float slant = std::sqrt(dot(rise, rise));
  const Vec3 normal = unit(Vec3{0, high - low, 0} + (bd.top - bd.belt) * out);
  if (!p.faces_camera(foot, normal)) return;
  const float half = 0.5F * bd.width;
  canvas.draw({foot, p.right, unit(rise), -half, half, 0, slant}, [&](float a, float b, float, Paint& paint) {
    const float edge = half - p.lean() * b / slant;
    if (std::abs(a) > edge) return false;
    const bool pane = std::abs(a) < edge - 0.08F && b > 0.04F && b < slant - 0.07F;
    paint =
        opaque(pane ? p.glass(0.15F + 0.55F * b / slant + 0.3F * normal.y * (a / half)) : p.lit(p.actor.main, normal));
    return true;
  });
}

void draw_body_side(Canvas& canvas, const Painter& p, Vec3 middle, Vec3 normal) {
  const Body& bd = p.body;
  const float half = 0.5F * bd.length;
  const float axle = (bd.length > 8 ? 0.28F : 0.31F) * bd.length;
  // a runs from the rear (-half) to the front, b upwards
  canvas.draw({middle, p.forward, {0, 1, 0}, -half, half, 0, bd.belt}, [&](float a, float b, float, Paint& paint) {
    for (const float centre : {-axle, axle}) {
      const float dx = a - centre;
      const float dy = b - bd.wheel;
      const float r = std::sqrt(dx * dx + dy * dy);
      if (r < bd.wheel) {
        paint = opaque(p.lit(r < 0.55F * bd.wheel ? Colour{0.32F, 0.32F, 0.33F} : Colour{0.03F, 0.03F, 0.03F}, normal));
        return true;
      }
    }
    if (b < bd.sill) return false;
    const float round = 0.15F;
    const float cx = std::max(0.0F, std::abs(a) - (half - round));
    const float cy = std::max(0.0F, b - (bd.belt - round));
    if (!bd.box && cx * cx + cy * cy > round * round) return false;
    Colour c = p.lit(p.paint(b), normal);
    if (b < bd.sill + 0.1F) c = 0.5F * c;
    const bool seam = std::abs(std::abs(a + 0.1F) - 0.5F) < 0.02F;
    paint = opaque(seam && !bd.box ? 0.7F * c : c);
    return true;
  });
}

void draw_cabin_side(Canvas& canvas, const Painter& p, Vec3 middle, Vec3 normal) {
  const Body& bd = p.body;
  const float half = 0.5F * bd.length;
  const bool bus = bd.length > 8;
  const Vec3 rise = Vec3{0, bd.top - bd.belt, 0} - p.lean() * normal;
  const float slant = std::sqrt(dot(rise, rise));
  const Plane plane{middle + Vec3{0, bd.belt, 0}, p.forward, unit(rise), -half, half, 0, slant};
  canvas.draw(plane, [&](float a, float b, float, Paint& paint) {
    const float up = b / slant;
    const float rear = -half + bd.rear_low + up * (bd.rear_high - bd.rear_low);
    const float front = half - bd.front_low - up * (bd.front_high - bd.front_low);
    if (a < rear || a > front) return false;
    bool pane = up > 0.08F && up < 0.82F && a > rear + 0.12F && a < front - 0.1F && std::abs(a + 0.2F) > 0.05F;
    if (bd.box) {
      const bool window = bus ? fraction((a + half) / 1.5F) > 0.08F : a > front - 1.0F;
      pane = up > 0.12F && up < 0.72F && window && a < front - 0.1F;
    }
    const bool advertisement = bus && up > 0.75F && up < 0.95F && std::abs(a) < 0.4F * half;
    paint = opaque(pane ? p.glass(0.1F + 0.6F * up) : p.lit(advertisement ? p.actor.second : p.actor.main, normal));
    return true;
  });
}

void draw_side(Canvas& canvas, const Painter& p, float sign) {
  const Vec3 normal = sign * p.right;
  const Vec3 middle = p.actor.at + 0.5F * p.body.width * normal;
  if (!p.faces_camera(middle, normal)) return;
  draw_body_side(canvas, p, middle, normal);
  draw_cabin_side(canvas, p, middle, normal);
}

/// Bonnet, boot lid and roof, seen when the camera is higher than they are.
void draw_top(Canvas& canvas, const Painter& p, float height, float from, float to, float half) {
  if (p.world.camera.height <= height || to <= from) return;
  canvas.draw({p.actor.at + Vec3{0, height, 0}, p.right, p.forward, -half, half, from, to},
              [&](float, float, float, Paint& paint) {
                paint = opaque(p.lit(1.05F * p.actor.main, {0, 1, 0}) + 0.06F * p.world.weather.zenith);
                return true;
              });
}

}  // namespace

void draw_vehicle(Canvas& canvas, const World& world, const Actor& actor) {
  const Vec3 forward{std::sin(actor.heading), 0, std::cos(actor.heading)};
  const Vec3 right{forward.z, 0, -forward.x};
  const Painter p{world, actor, body_of(actor), forward, right, world.shadow_at(actor.at + Vec3{0, 0.8F, 0})};
  const Body& bd = p.body;
  const float half = 0.5F * bd.length;
  draw_end(canvas, p, true);
  draw_end(canvas, p, false);
  draw_side(canvas, p, -1);
  draw_side(canvas, p, 1);
  draw_screen(canvas, p, true);
  draw_screen(canvas, p, false);
  draw_top(canvas, p, bd.belt, -half, -half + bd.rear_low, 0.5F * bd.width);
  draw_top(canvas, p, bd.belt, half - bd.front_low, half, 0.5F * bd.width);
  draw_top(canvas, p, bd.top, -half + bd.rear_high, half - bd.front_high, 0.5F * bd.width - p.lean());
  // The dark underside closes the gap between the wheels.
  canvas.draw({actor.at + Vec3{0, bd.sill, 0} - 0.3F * half * forward,
               right,
               {0, -1, 0},
               -0.45F * bd.width,
               0.45F * bd.width,
               0,
               bd.sill - 0.12F},
              [&](float, float, float, Paint& paint) {
                paint = opaque(Colour{0.012F, 0.012F, 0.013F});
                return true;
              });
}

}  // namespace limbeck::datasets::scene
