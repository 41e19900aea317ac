// Trees, hedges, posts with what they carry, fences.
#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {
namespace {

/// Half width of a post: never thinner than a picture pixel (two canvas pixels each side), as a person would draw it.
float post_half(const Canvas& canvas, float half, float z) noexcept { return std::max(half, 2.0F * z / canvas.focal); }

/// Light on a round post at `bend` in -1..1 across it.
Colour post_light(const World& world, Vec3 at, float bend) {
  return world.weather.light(unit(Vec3{bend, 0.1F, -0.7F}), world.shadow_at(at));
}

/// Bright and dark clumps of leaves; `a`, `b` in metres.
Colour leaves(const World& world, const Actor& actor, float a, float b, Vec3 normal, float shadow) {
  const float clumps = cloud_noise(a * 1.7F, b * 1.7F, actor.seed + 3, 3);
  const float leaf = hash01(floor_int(a * 11.0F), floor_int(b * 11.0F), actor.seed + 4);
  const Colour albedo = (0.35F + 0.9F * clumps + 0.35F * (leaf - 0.5F)) * mix(actor.main, actor.second, clumps);
  return albedo * world.weather.light(normal, shadow);
}

}  // namespace

void draw_tree(Canvas& canvas, const World& world, const Actor& actor) {
  const float z = actor.at.z;
  const float s = actor.size;
  const float trunk = post_half(canvas, 0.14F * s, 0.6F * z);
  const float crown_y = 4.3F * s;
  float half_w = 2.0F * s;
  float half_h = 2.3F * s;
  if (actor.variant == 1) half_w = 1.4F * s, half_h = 3.2F * s;  // conical
  if (actor.variant == 2) half_w = 2.8F * s, half_h = 1.9F * s;  // wide
  canvas.draw({actor.at, {1, 0, 0}, {0, 1, 0}, -trunk, trunk, 0, crown_y}, [&](float a, float b, float, Paint& paint) {
    const float bark = 0.8F + 0.4F * value_noise(a * 9.0F, b * 2.0F, actor.seed);
    paint = {bark * (actor.third * post_light(world, actor.at, a / trunk)), SceneClass::kTree};
    return true;
  });
  const float shadow = world.shadow_at(actor.at + Vec3{0, crown_y, 0});
  const Plane crown{actor.at + Vec3{0, crown_y, -0.2F},
                    {1, 0, 0},
                    {0, 1, 0},
                    -1.3F * half_w,
                    1.3F * half_w,
                    -1.3F * half_h,
                    1.3F * half_h};
  canvas.draw(crown, [&](float a, float b, float, Paint& paint) {
    float x = a / half_w;
    const float y = b / half_h;
    if (actor.variant == 1) x /= std::max(0.15F, 0.62F - 0.45F * y);
    const float ragged = cloud_noise(a * 1.3F / s, b * 1.3F / s, actor.seed + 1, 3) - 0.5F;
    const float r = std::sqrt(x * x + y * y) + 0.9F * ragged;
    if (r > 1.0F) return false;
    if (r > 0.6F && value_noise(a * 3.5F / s, b * 3.5F / s, actor.seed + 2) > 1.25F - 0.5F * r) return false;  // gaps
    const Vec3 normal = unit(Vec3{0.9F * x, 0.9F * y + 0.15F, -0.55F});
    paint = {leaves(world, actor, a, b, normal, shadow), SceneClass::kTree};
    return true;
  });
}

void draw_hedge(Canvas& canvas, const World& world, const Actor& actor) {
  const Vec3 along = unit(actor.to - actor.at);
  const float length = std::sqrt(dot(actor.to - actor.at, actor.to - actor.at));
  const float side = world.street.middle(actor.at.z) < actor.at.x ? -1.0F : 1.0F;
  const Vec3 normal = unit(Vec3{side * along.z, 0.3F, -side * along.x});
  const float tall = 1.3F * actor.size;
  canvas.draw({actor.at, along, {0, 1, 0}, 0, length, 0, 1.3F * tall}, [&](float a, float b, float, Paint& paint) {
    if (b > tall * (0.8F + 0.45F * cloud_noise(a * 1.1F, 0, actor.seed, 2))) return false;
    paint = {leaves(world, actor, a, b, normal, world.shadow_at(actor.at + a * along + Vec3{0, b, 0})),
             SceneClass::kTree};
    return true;
  });
}

namespace {

void draw_pole(Canvas& canvas, const World& world, const Actor& actor, float radius, float tall) {
  const float half = post_half(canvas, radius, actor.at.z);
  canvas.draw({actor.at, {1, 0, 0}, {0, 1, 0}, -half, half, 0, tall}, [&](float a, float b, float, Paint& paint) {
    const float band = b < 0.8F ? 0.8F : 1.0F;
    paint = {band * (actor.main * post_light(world, actor.at + Vec3{0, b, 0}, a / half)), SceneClass::kPole};
    return true;
  });
}

/// A plate of one of six kinds, `half` metres large, centred at height y.
void draw_plate(Canvas& canvas, const World& world, const Actor& actor, float y, float half) {
  const bool wide = actor.variant >= 4;
  const float half_w = wide ? 2.2F * half : half;
  const Colour light = world.weather.light({0, 0, -1}, world.shadow_at(actor.at + Vec3{0, y, 0}));
  const Plane plate{actor.at + Vec3{0, y, -0.06F}, {1, 0, 0}, {0, 1, 0}, -half_w, half_w, -half, half};
  canvas.draw(plate, [&](float a, float b, float, Paint& paint) {
    const float x = a / half_w;
    const float v = b / half;
    const float r = std::sqrt(x * x + v * v);
    const Colour red{0.55F, 0.03F, 0.03F};
    const Colour white{0.8F, 0.8F, 0.78F};
    const Colour blue{0.03F, 0.1F, 0.45F};
    const bool mark = hash01(floor_int(3.0F * x), floor_int(3.0F * v), actor.seed) < 0.5F;
    Colour c;
    switch (actor.variant) {
      case 0:  // prohibition
        if (r > 1) return false;
        c = r > 0.72F ? red : (mark ? Colour{0.05F, 0.05F, 0.05F} : white);
        break;
      case 1:  // warning triangle
        if (v > 1.0F - 2.0F * std::abs(x)) return false;
        c = v > 0.62F - 2.0F * std::abs(x) || v < -0.78F ? red : white;
        break;
      case 2:  // stop
        if (std::max({std::abs(x), std::abs(v), 0.72F * (std::abs(x) + std::abs(v))}) > 1) return false;
        c = std::abs(v) < 0.3F && std::abs(x) < 0.75F && mark ? white : red;
        break;
      case 3:  // mandatory
        if (r > 1) return false;
        c = std::abs(x) < 0.22F || (v > 0.2F && std::abs(x) < 0.6F - 0.6F * (v - 0.2F)) ? white : blue;
        break;
      case 4:  // directions
        c = std::max(std::abs(x), std::abs(v)) > 0.9F || (mark && std::abs(v) < 0.6F) ? white : actor.second;
        break;
      default:  // information
        c = mark && std::abs(x) < 0.8F && std::abs(v) < 0.8F ? white : actor.third;
        break;
    }
    paint = {c * light, SceneClass::kSign};
    return true;
  });
}

void draw_signal(Canvas& canvas, const World& world, const Actor& actor, float y) {
  const Colour light = world.weather.light({0, 0, -1}, world.shadow_at(actor.at + Vec3{0, y, 0}));
  const int on = actor.variant % 3;
  canvas.draw({actor.at + Vec3{0, y, -0.1F}, {1, 0, 0}, {0, 1, 0}, -0.24F, 0.24F, -0.55F, 0.55F},
              [&](float a, float b, float, Paint& paint) {
                paint = {Colour{0.03F, 0.035F, 0.03F} * light, SceneClass::kSign};
                for (int lamp = 0; lamp < 3; ++lamp) {
                  const float dy = b - 0.34F * static_cast<float>(1 - lamp);
                  if (a * a + dy * dy > 0.15F * 0.15F) continue;
                  constexpr std::array<Colour, 3> kLamps{Colour{1.0F, 0.06F, 0.03F}, Colour{1.0F, 0.6F, 0.05F},
                                                         Colour{0.1F, 0.95F, 0.45F}};
                  paint.colour = (lamp == on ? 0.95F : 0.05F) * kLamps[static_cast<std::size_t>(lamp)];
                }
                return true;
              });
}

}  // namespace

void draw_post(Canvas& canvas, const World& world, const Actor& actor) {
  const float s = actor.size;
  switch (actor.kind) {
    case ActorKind::kBollard: draw_pole(canvas, world, actor, 0.09F, 0.9F * s); return;
    case ActorKind::kSign:
      draw_pole(canvas, world, actor, 0.045F, 2.5F * s);
      draw_plate(canvas, world, actor, 2.5F * s, actor.variant >= 4 ? 0.45F : 0.42F);
      return;
    case ActorKind::kSignal:
      draw_pole(canvas, world, actor, 0.08F, 3.0F * s);
      draw_signal(canvas, world, actor, 3.0F * s);
      return;
    default: break;
  }
  // Street lamp: a tall post with an arm over the road.
  const float tall = 6.5F * s;
  draw_pole(canvas, world, actor, 0.1F, tall);
  const float over = world.street.middle(actor.at.z) < actor.at.x ? -1.0F : 1.0F;
  const float half = post_half(canvas, 0.06F, actor.at.z);
  const Vec3 top = actor.at + Vec3{0, tall, 0};
  canvas.draw({top, {over, 0, 0}, {0, 1, 0}, 0, 1.6F, -half, half}, [&](float a, float b, float, Paint& paint) {
    const bool head = a > 1.0F;
    paint = {actor.main * post_light(world, top, b / half), SceneClass::kPole};
    if (head && world.weather.lamps) paint.colour = {1.3F, 1.05F, 0.6F};
    return true;
  });
}

void draw_fence(Canvas& canvas, const World& world, const Actor& actor) {
  const Vec3 along = unit(actor.to - actor.at);
  const float length = std::sqrt(dot(actor.to - actor.at, actor.to - actor.at));
  const float side = world.street.middle(actor.at.z) < actor.at.x ? -1.0F : 1.0F;
  const Vec3 normal{side * along.z, 0, -side * along.x};
  const float tall = (actor.variant == 3 ? 1.0F : 1.25F) * actor.size;
  canvas.draw({actor.at, along, {0, 1, 0}, 0, length, 0, tall}, [&](float a, float b, float t, Paint& paint) {
    const Colour light = world.weather.light(normal, world.shadow_at(actor.at + a * along + Vec3{0, b, 0}));
    Colour c = actor.main;
    float alpha = 1;
    // Where the bars are finer than a pixel the fence becomes an even veil.
    const float far = smooth_step(12.0F, 35.0F, t);
    switch (actor.variant) {
      case 0: {  // railing: label solid, colour shows what is behind
        const bool bar = fraction(a / 0.28F) < 0.3F || b > tall - 0.12F || (b > 0.1F && b < 0.2F);
        alpha = bar ? 1.0F - 0.4F * far : 0.05F + 0.45F * far;
        break;
      }
      case 1: {  // planks
        const int plank = floor_int(a / 0.2F);
        c = (0.75F + 0.4F * hash01(plank, 0, actor.seed)) * c;
        if (fraction(a / 0.2F) < 0.12F) c = (0.4F + 0.4F * far) * c;
        break;
      }
      case 2: {  // mesh between posts
        const bool post = fraction(a / 2.5F) < 0.05F || b > tall - 0.07F;
        const bool wire = fraction((a + b) / 0.16F) < 0.25F || fraction((a - b) / 0.16F) < 0.25F;
        alpha = post ? 1.0F : (wire ? 0.6F : 0.12F);
        break;
      }
      default: {  // guard rail
        if (b < 0.45F * tall && fraction(a / 2.0F) > 0.08F) return false;
        const float ridge = std::abs(fraction(b / (0.28F * tall)) - 0.5F);
        c = (0.6F + 0.9F * ridge) * c;
        break;
      }
    }
    paint = {c * light, SceneClass::kFence, alpha};
    return true;
  });
}

}  // namespace limbeck::datasets::scene
