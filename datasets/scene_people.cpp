// People on foot and on bicycles: flat figures that face the camera, made of thick lines and discs.
#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {
namespace {

struct Point {
  float x, y;
};

/// Distance from q to the segment p0-p1.
float segment(Point q, Point p0, Point p1) noexcept {
  const float vx = p1.x - p0.x;
  const float vy = p1.y - p0.y;
  const float t = clamp01(((q.x - p0.x) * vx + (q.y - p0.y) * vy) / (vx * vx + vy * vy + 1e-9F));
  const float dx = q.x - p0.x - t * vx;
  const float dy = q.y - p0.y - t * vy;
  return std::sqrt(dx * dx + dy * dy);
}

float disc(Point q, Point centre) noexcept {
  return std::sqrt((q.x - centre.x) * (q.x - centre.x) + (q.y - centre.y) * (q.y - centre.y));
}

/// Light on a rounded upright body: the side towards the sun is brighter. `bend` is -1 at the left rim, +1 at the
/// right.
Colour body_light(const World& world, const Actor& actor, float bend) {
  const Vec3 normal = unit(Vec3{std::min(std::max(bend, -1.0F), 1.0F), 0.25F, -0.8F});
  return world.weather.light(normal, world.shadow_at(actor.at + Vec3{0, 1, 0}));
}

Colour skin_of(const Actor& actor) noexcept {
  return mix(Colour{0.62F, 0.42F, 0.31F}, Colour{0.2F, 0.12F, 0.08F}, hash01(1, 2, actor.seed));
}

constexpr Colour kHair{0.06F, 0.045F, 0.035F};

}  // namespace

void draw_pedestrian(Canvas& canvas, const World& world, const Actor& actor) {
  const float tall = 1.72F * actor.size;
  const float gait = 0.11F * (2.0F * hash01(3, 1, actor.seed) - 1.0F);  // legs apart
  const float swing = 0.06F * (2.0F * hash01(4, 1, actor.seed) - 1.0F);
  const bool coat = hash01(5, 1, actor.seed) < 0.35F;
  const bool bag = hash01(6, 1, actor.seed) < 0.3F;
  const Colour skin = skin_of(actor);
  const Plane plane{actor.at, {1, 0, 0}, {0, 1, 0}, -0.45F * tall, 0.45F * tall, 0, tall};
  canvas.draw(plane, [&](float a, float b, float, Paint& paint) {
    const Point q{a / tall, b / tall};  // all measures below are shares of the body height
    Colour c;
    if (disc(q, {0.5F * gait * 0.3F, 0.925F}) < 0.068F) {
      c = q.y > 0.945F || hash01(7, 1, actor.seed) < 0.4F ? kHair : skin;
    } else if (segment(q, {0, 0.58F}, {0.1F * gait, 0.795F}) < 0.098F) {
      c = actor.main;
      if (q.y < 0.53F) c = 0.6F * c;
    } else if (segment(q, {-0.115F, 0.79F}, {-0.14F - swing, 0.5F}) < 0.034F ||
               segment(q, {0.115F, 0.79F}, {0.14F - swing, 0.5F}) < 0.034F) {
      c = q.y < 0.53F ? skin : 0.85F * actor.main;
    } else if (coat && q.y > 0.3F && q.y < 0.6F && std::abs(q.x) < 0.1F + 0.12F * (0.6F - q.y)) {
      c = 0.9F * actor.main;
    } else if (bag && segment(q, {0.19F, 0.38F}, {0.2F, 0.46F}) < 0.05F) {
      c = actor.third;
    } else if (segment(q, {-0.045F, 0.53F}, {-0.05F - gait, 0.03F}) < 0.046F ||
               segment(q, {0.045F, 0.53F}, {0.05F + gait, 0.03F}) < 0.046F) {
      c = q.y < 0.035F ? Colour{0.04F, 0.04F, 0.04F} : actor.second;
    } else {
      return false;
    }
    paint = {c * body_light(world, actor, 5.0F * q.x), SceneClass::kPedestrian};
    return true;
  });
}

void draw_cyclist(Canvas& canvas, const World& world, const Actor& actor) {
  const float scale = actor.size;
  const bool from_side = actor.variant == 0;
  const float facing = std::sin(actor.heading) < 0 ? -1.0F : 1.0F;
  const Colour skin = skin_of(actor);
  const bool helmet = hash01(8, 1, actor.seed) < 0.5F;
  const Colour metal = 0.8F * actor.third;
  const Colour rubber{0.03F, 0.03F, 0.03F};
  const Plane plane{actor.at, {1, 0, 0}, {0, 1, 0}, -1.0F * scale, 1.0F * scale, 0, 1.9F * scale};
  canvas.draw(plane, [&](float a, float b, float, Paint& paint) {
    const Point q{facing * a / scale, b / scale};  // metres for a rider of usual size, riding to +x
    Colour c;
    float alpha = 1;
    if (from_side) {
      const float rear = disc(q, {-0.52F, 0.34F});
      const float front = disc(q, {0.52F, 0.34F});
      if (disc(q, {0.3F, 1.58F}) < 0.115F) {
        c = q.y > 1.6F ? (helmet ? actor.third : kHair) : skin;
      } else if (segment(q, {-0.14F, 1.02F}, {0.2F, 1.4F}) < 0.14F) {
        c = actor.main;
      } else if (segment(q, {0.2F, 1.38F}, {0.34F, 1.12F}) < 0.05F ||
                 segment(q, {0.34F, 1.12F}, {0.5F, 1.06F}) < 0.045F) {
        c = q.x > 0.44F ? skin : 0.85F * actor.main;
      } else if (segment(q, {-0.12F, 0.95F}, {0.2F, 0.72F}) < 0.085F ||
                 segment(q, {0.2F, 0.72F}, {0.06F, 0.36F}) < 0.06F) {
        c = q.y < 0.42F ? rubber : actor.second;
      } else if (segment(q, {-0.52F, 0.34F}, {-0.1F, 0.32F}) < 0.03F ||
                 segment(q, {-0.1F, 0.32F}, {-0.18F, 0.88F}) < 0.03F ||
                 segment(q, {-0.1F, 0.32F}, {0.42F, 0.84F}) < 0.03F ||
                 segment(q, {-0.17F, 0.82F}, {0.42F, 0.86F}) < 0.03F ||
                 segment(q, {0.52F, 0.34F}, {0.4F, 0.98F}) < 0.03F ||
                 segment(q, {-0.28F, 0.9F}, {-0.08F, 0.92F}) < 0.04F) {
        c = metal;
      } else if (std::abs(rear - 0.31F) < 0.04F || std::abs(front - 0.31F) < 0.04F) {
        c = rubber;
      } else if (rear < 0.3F || front < 0.3F) {  // spokes: what is behind shows through, the label is solid
        c = Colour{0.2F, 0.2F, 0.2F};
        alpha = 0.22F;
      } else {
        return false;
      }
    } else {
      if (disc(q, {0, 1.6F}) < 0.115F) {
        c = q.y > 1.6F ? (helmet ? actor.third : kHair) : skin;
      } else if (segment(q, {0, 1.05F}, {0, 1.38F}) < 0.19F) {
        c = actor.main;
      } else if (segment(q, {-0.2F, 1.36F}, {-0.3F, 1.04F}) < 0.055F ||
                 segment(q, {0.2F, 1.36F}, {0.3F, 1.04F}) < 0.055F) {
        c = 0.85F * actor.main;
      } else if (segment(q, {-0.09F, 0.92F}, {-0.15F, 0.36F}) < 0.075F ||
                 segment(q, {0.09F, 0.92F}, {0.14F, 0.55F}) < 0.075F) {
        c = q.y < 0.4F ? rubber : actor.second;
      } else if (std::abs(q.x) < 0.045F && q.y < 0.7F) {
        c = rubber;
      } else if (std::abs(q.y - 1.04F) < 0.03F && std::abs(q.x) < 0.32F) {
        c = metal;
      } else {
        return false;
      }
    }
    paint = {c * body_light(world, actor, 2.5F * q.x), SceneClass::kBicyclist, alpha};
    return true;
  });
}

}  // namespace limbeck::datasets::scene
