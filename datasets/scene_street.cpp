// The stage: ground, cast shadows, buildings, sky.
#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {

float World::shadow_at(Vec3 p) const noexcept {
  const Vec3 sun = weather.to_sun;
  if (std::abs(sun.x) < 0.05F || sun.y <= 0.02F) return 0;
  const std::size_t side = sun.x < 0 ? 0 : 1;
  const float s = p.x - street.middle(p.z);
  const float wall = sun.x < 0 ? -street.lot[0] : street.lot[1];
  const float way = (wall - s) / sun.x;  // along the ray towards the sun, until it meets the row of houses
  if (way <= 0) return 0;
  const float z = p.z + way * sun.z;
  if (z < 0 || z >= static_cast<float>(roofline[side].size())) return 0;
  const float over = roofline[side][static_cast<std::size_t>(z)] - (p.y + way * sun.y);
  return smooth_step(-0.25F, 0.25F, over);
}

// --- ground ---------------------------------------------------------------------------------------------------------

namespace {

/// Asphalt at (s, z) with its markings. `near` is 1 at the camera and fades with distance: fine detail would alias.
Colour road_colour(const Street& st, float s, float z, float near) {
  const float coarse = cloud_noise(s * 0.35F, z * 0.12F, st.seed, 2) - 0.5F;
  const float grain = near * (hash01(floor_int(s * 14.0F), floor_int(z * 14.0F), st.seed + 7) - 0.5F);
  float shade = 1.0F + 0.35F * coarse + 0.18F * grain;
  const int patch_x = floor_int(s / 2.1F);
  const int patch_z = floor_int(z / 5.3F);
  if (hash01(patch_x, patch_z, st.seed + 11) < 0.16F) shade *= 1.0F - st.patches;  // repaired squares
  shade *= 1.0F - 0.10F * std::exp(-4.0F * (std::abs(std::abs(s) - 1.7F)) * (std::abs(std::abs(s) - 1.7F)));  // ruts
  Colour c = shade * st.asphalt;

  const bool cross = st.in_cross(z);
  const Colour paint = Colour{0.78F, 0.78F, 0.74F};
  const float wear = 0.35F + 0.65F * value_noise(s * 3.0F, z * 1.5F, st.seed + 13);
  if (st.centre_line && !cross && std::abs(s) < 0.09F && fraction(z / 7.0F) < 0.5F) c = mix(c, paint, wear);
  if (st.edge_lines && !cross && std::abs(std::abs(s) - (st.road_half - 0.35F)) < 0.07F) c = mix(c, paint, 0.9F * wear);
  if (st.zebra_z > 0 && z > st.zebra_z && z < st.zebra_z + 3.0F && fraction(s / 1.0F) < 0.5F) c = mix(c, paint, wear);
  if (st.kerb_yellow && !cross && std::abs(std::abs(s) - (st.road_half - 0.2F)) < 0.07F) {
    c = mix(c, Colour{0.75F, 0.6F, 0.1F}, wear);
  }
  return c;
}

Colour pavement_colour(const Street& st, float s, float z, float near) {
  const int row = floor_int(z / st.slab);
  const float shift = row % 2 == 0 ? 0.0F : 0.5F;
  const float along = fraction(z / st.slab);
  const float across = fraction(s / st.slab + shift);
  const int column = floor_int(s / st.slab + shift);
  float shade = 0.92F + 0.16F * (hash01(row, column, st.seed + 21)) * (0.3F + 0.7F * near);
  const float joint = std::min(std::min(along, 1.0F - along), std::min(across, 1.0F - across)) * st.slab;
  if (joint < 0.03F) shade *= 1.0F - 0.35F * near;
  shade *= 1.0F + 0.3F * (cloud_noise(s * 0.5F, z * 0.25F, st.seed + 22, 2) - 0.5F);
  return shade * st.paving;
}

Colour lawn_colour(const Street& st, float s, float z, float near) {
  const float tufts = hash01(floor_int(s * 9.0F), floor_int(z * 7.0F), st.seed + 31) - 0.5F;
  const float patches = cloud_noise(s * 0.4F, z * 0.3F, st.seed + 32, 2) - 0.5F;
  return (1.0F + 0.45F * near * tufts + 0.7F * patches) * st.lawn;
}

}  // namespace

void draw_ground(Canvas& canvas, const World& world) {
  const Street& st = world.street;
  const Plane ground{{0, 0, 0}, {1, 0, 0}, {0, 0, 1}, -160, 160, Canvas::kNear, 500};
  const Colour shaded = world.weather.light({0, 1, 0}, 1.0F);
  const Colour sunny = world.weather.light({0, 1, 0}, 0.0F);
  canvas.draw(ground, [&](float x, float z, float t, Paint& paint) {
    const float s = x - st.middle(z);
    const float near = 1.0F / (1.0F + t * t * 0.004F);
    const std::size_t side = s < 0 ? 0 : 1;
    const float beyond = std::abs(s) - st.road_half;  // metres past the kerb
    Colour albedo;
    if (beyond < 0 || st.in_cross(z)) {
      paint.id = SceneClass::kRoad;
      albedo = road_colour(st, s, z, near);
    } else if (beyond < 0.16F) {
      paint.id = SceneClass::kPavement;
      albedo = (0.9F + 0.2F * hash01(floor_int(z), 0, st.seed + 5)) * st.kerb;
    } else if (beyond < st.pavement[side] || !st.green[side]) {
      paint.id = SceneClass::kPavement;
      albedo = pavement_colour(st, s, z, near);
    } else {
      paint.id = SceneClass::kTree;
      albedo = lawn_colour(st, s, z, near);
    }
    paint.colour = albedo * mix(sunny, shaded, world.shadow_at({x, 0, z}));
    return true;
  });
}

void draw_shadows(Canvas& canvas, const World& world) {
  const Vec3 sun = world.weather.to_sun;
  for (const Actor& actor : world.actors) {
    float radius = 0.4F;  // of the thing that stands there
    float tall = 1.7F;
    switch (actor.kind) {
      case ActorKind::kCar:
        radius = 1.6F;
        tall = 1.3F;
        break;
      case ActorKind::kVan:
        radius = 1.9F;
        tall = 2.1F;
        break;
      case ActorKind::kBus:
        radius = 3.2F;
        tall = 3.0F;
        break;
      case ActorKind::kTree:
        radius = 1.6F * actor.size;
        tall = 4.5F * actor.size;
        break;
      case ActorKind::kLamp:
      case ActorKind::kSign:
      case ActorKind::kSignal:
      case ActorKind::kBollard:
        radius = 0.12F;
        tall = 4.0F;
        break;
      case ActorKind::kFence:
      case ActorKind::kHedge: continue;
      case ActorKind::kPedestrian:
      case ActorKind::kCyclist: break;
    }
    // Contact shadow: present even under a grey sky.
    const float reach = radius * 1.15F;
    canvas.darken({actor.at, {1, 0, 0}, {0, 0, 1}, -reach, reach, -reach, reach}, [&](float a, float b) {
      return 1.0F - 0.55F * (1.0F - smooth_step(0.3F * reach, reach, std::sqrt(a * a + b * b)));
    });
    const float share = world.weather.sun.g < 0.15F ? 0.0F : 0.62F;
    if (share == 0 || sun.y < 0.1F || world.shadow_at(actor.at + Vec3{0, 0.5F, 0}) > 0.5F) continue;
    const float flat = std::sqrt(sun.x * sun.x + sun.z * sun.z);
    if (flat < 0.05F) continue;
    const Vec3 along{-sun.x / flat, 0, -sun.z / flat};
    const Vec3 across{-along.z, 0, along.x};
    const float length = std::min(tall * flat / sun.y, 12.0F);
    const bool crown = actor.kind == ActorKind::kTree;
    canvas.darken({actor.at, along, across, -radius, length + radius, -radius, radius}, [&](float a, float b) {
      const float middle = crown ? length : 0.5F * length;
      const float half = crown ? radius : 0.5F * length + radius;
      const float da = (a - middle) / half;
      const float db = b / radius;
      const float ragged = crown ? 0.5F * (value_noise(a * 1.5F, b * 1.5F, actor.seed) - 0.5F) : 0.0F;
      return 1.0F - share * (1.0F - smooth_step(0.75F, 1.05F, std::sqrt(da * da + db * db) + ragged));
    });
  }
}

// --- buildings ------------------------------------------------------------------------------------------------------

namespace {

/// Colour of a wall point: a metres along, b metres up; `glow` is light of its own (lit windows).
Colour wall_colour(const Building& bd, const Weather& weather, float a, float b, float t, float height, Colour& glow) {
  const float near = 1.0F / (1.0F + t * t * 0.0015F);
  float shade = 1.0F + 0.3F * (cloud_noise(a * 0.5F, b * 0.35F, bd.seed, 2) - 0.5F);
  if (bd.style == 0) {  // brick courses, larger than life so that they survive the pixels
    const int course = floor_int(b / 0.22F);
    const int brick = floor_int(a / 0.55F + (course % 2 == 0 ? 0.0F : 0.5F));
    shade *= 1.0F + near * 0.35F * (hash01(course, brick, bd.seed + 1) - 0.5F);
    if (fraction(b / 0.22F) < 0.2F) shade *= 1.0F + 0.2F * near;
  }
  Colour c = shade * bd.wall;
  if (b < 0.6F) c = 0.75F * c;          // plinth
  if (b > height - 0.4F) c = bd.frame;  // cornice

  const int storey = floor_int(b / bd.storey);
  const float up = fraction(b / bd.storey);
  if (bd.style == 3 || b > height - 0.8F) {
    // A blank wall; sometimes with an advertisement, which is still building.
    const int block = floor_int(a / 5.0F);
    const float in = a - 5.0F * static_cast<float>(block);
    if (hash01(block, 3, bd.seed) < 0.35F && in > 0.6F && in < 4.2F && b > 0.9F && b < 3.0F) {
      const float hue = hash01(block, 4, bd.seed);
      c = Colour{0.2F + 0.7F * hue, 0.3F + 0.5F * fraction(hue * 7.0F), 0.2F + 0.7F * fraction(hue * 13.0F)};
      if (value_noise(a * 1.4F, b * 1.9F, bd.seed + 9) > 0.55F) c = Colour{0.15F, 0.12F, 0.15F};
    }
    return c;
  }
  if (storey == 0 && bd.shops) {
    if (b > 2.75F && b < 3.15F) {  // fascia with lettering
      const bool letter =
          fraction(a / 6.0F) < 0.7F && hash01(floor_int(a * 3.0F), floor_int(b * 8.0F), bd.seed + 2) < 0.4F;
      return letter ? Colour{0.85F, 0.85F, 0.8F} : bd.shop;
    }
    const float pane = fraction(a / 3.1F);
    if (b > 0.5F && b < 2.7F && pane > 0.07F && pane < 0.93F) {
      const float inside = cloud_noise(a * 1.3F, b * 1.6F, bd.seed + 3, 2);
      if (weather.lamps) glow = 0.55F * Colour{1.0F, 0.85F, 0.6F};
      return mix(0.18F * weather.zenith + Colour{0.05F, 0.06F, 0.07F}, Colour{0.5F, 0.42F, 0.35F}, inside * inside);
    }
    return bd.frame;
  }
  const int bay = floor_int(a / bd.bay);
  const float across = fraction(a / bd.bay);
  const float du = std::abs(across - 0.5F) - 0.5F * bd.window_w;
  const float dv = std::abs(up - 0.52F) - 0.5F * bd.window_h;
  if (storey == 0 && hash01(bay, 5, bd.seed) < 0.25F && std::abs(across - 0.5F) < 0.22F && b < 2.3F) {
    return 0.6F * bd.shop;  // door
  }
  const bool bands = bd.style == 2;  // office windows run along the whole storey
  if (dv > 0 || (du > 0 && !bands)) return c;
  if (dv * bd.storey > -0.09F || (!bands && du * bd.bay > -0.09F) || (bands && across < 0.06F)) return bd.frame;
  const float pick = hash01(bay, storey, bd.seed + 6);
  if (weather.lamps && pick < 0.35F) glow = (0.35F + pick) * Colour{1.0F, 0.8F, 0.5F};
  const float mirror = 0.15F + 0.45F * hash01(bay, storey, bd.seed + 7) * up;
  Colour glass = mix(Colour{0.04F, 0.05F, 0.06F}, weather.zenith, mirror);
  if (pick > 0.7F) glass = mix(glass, Colour{0.55F, 0.52F, 0.46F}, 0.55F);  // curtains
  return glass;
}

}  // namespace

void draw_building(Canvas& canvas, const World& world, const Building& bd) {
  const Vec3 along = unit(bd.to - bd.from);
  const float length = std::sqrt(dot(bd.to - bd.from, bd.to - bd.from));
  const auto side = static_cast<float>(bd.side);
  const auto paint_wall = [&](Vec3 foot, Vec3 u, Vec3 normal, float a, float b, float t, float top) {
    Colour glow;
    const Colour albedo = wall_colour(bd, world.weather, a, b, t, top, glow);
    const float shadow = normal.z < -0.9F ? 0.0F : world.shadow_at(foot + a * u + Vec3{0.3F * normal.x, b, 0});
    return albedo * world.weather.light(normal, shadow) + glow;
  };

  const Vec3 street_normal = unit(Vec3{-side * along.z, 0, side * along.x});
  canvas.draw({bd.from, along, {0, 1, 0}, 0, length, 0, bd.height}, [&](float a, float b, float t, Paint& paint) {
    paint = {paint_wall(bd.from, along, street_normal, a, b, t, bd.height), SceneClass::kBuilding};
    return true;
  });
  const Vec3 outward{side, 0, 0};
  const float ridge = bd.roof_slope * 0.5F * bd.depth;
  canvas.draw(
      {bd.from, outward, {0, 1, 0}, 0, bd.depth, 0, bd.height + ridge}, [&](float a, float b, float t, Paint& paint) {
        if (b > bd.height && b - bd.height > bd.roof_slope * std::min(a, bd.depth - a)) return false;
        paint = {paint_wall(bd.from, outward, {0, 0, -1}, a + 40.0F, b, t, bd.height + ridge), SceneClass::kBuilding};
        return true;
      });
  if (bd.roof_slope <= 0) return;
  const Vec3 up_roof = unit(Vec3{side, bd.roof_slope, 0});
  const Vec3 roof_normal = unit(Vec3{-side * bd.roof_slope, 1, 0});
  const float slant = 0.5F * bd.depth * std::sqrt(1.0F + bd.roof_slope * bd.roof_slope);
  canvas.draw({bd.from + Vec3{0, bd.height, 0}, along, up_roof, -0.3F, length + 0.3F, -0.3F, slant},
              [&](float a, float b, float, Paint& paint) {
                const float rows = fraction(b / 0.4F) < 0.25F ? 0.8F : 1.0F;
                const float tiles = 0.85F + 0.3F * hash01(floor_int(a / 0.4F), floor_int(b / 0.4F), bd.seed + 8);
                paint = {rows * tiles * (bd.roof * world.weather.light(roof_normal)), SceneClass::kBuilding};
                return true;
              });
}

// --- sky ------------------------------------------------------------------------------------------------------------

void draw_sky(Canvas& canvas, const World& world) {
  const Weather& we = world.weather;
  for (std::int64_t y = 0; y < canvas.h; ++y) {
    for (std::int64_t x = 0; x < canvas.w; ++x) {
      const auto i = static_cast<std::size_t>(y * canvas.w + x);
      if (canvas.depth[i] != Canvas::kFar) continue;
      const auto [dx, dy] = canvas.ray(y, x);
      const float up = std::max(dy, 0.0F) / std::sqrt(1.0F + dx * dx + dy * dy);
      Colour c = mix(we.horizon, we.zenith, smooth_step(0.0F, 0.55F, up));
      const float flat = 1.0F / (up + 0.15F);
      const float cover = cloud_noise(dx * flat * 1.2F + 5.0F, flat * 1.6F, we.seed, 3);
      const float cloud = smooth_step(0.72F - 0.5F * we.clouds, 0.92F - 0.4F * we.clouds, cover);
      const Colour bright = 0.55F * we.sun + 1.15F * we.ambient;
      c = mix(c, mix(bright, 0.7F * bright, cover), 0.85F * cloud);
      const Vec3 ray = unit(Vec3{dx, dy, 1});
      const float glow = std::max(0.0F, dot(ray, we.to_sun));
      const float glow4 = glow * glow * glow * glow;
      canvas.colour[i] = c + (0.35F * glow4 * glow4 * glow4) * we.sun;
      canvas.id[i] = static_cast<std::uint8_t>(SceneClass::kSky);
    }
  }
}

}  // namespace limbeck::datasets::scene
