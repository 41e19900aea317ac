// Drawing lots: which camera, weather, street and houses a scene has. What stands on the street: scene_actors.cpp.
#include <algorithm>
#include <numbers>

#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;
constexpr float kStreetEnd = 110.0F;  // metres

// --- weather --------------------------------------------------------------------------------------------------------

Weather make_weather(Dice& dice) {
  Weather w;
  w.seed = dice.word();
  const float azimuth = dice.uniform(-kPi, kPi);
  float elevation = dice.uniform(0.45F, 1.2F);
  const float kind = dice.uniform(0, 1);
  if (kind < 0.45F) {  // sunny
    w.sun = {1.25F, 1.18F, 1.05F};
    w.ambient = {0.42F, 0.47F, 0.56F};
    w.zenith = {0.22F, 0.42F, 0.85F};
    w.horizon = {0.72F, 0.82F, 0.95F};
    w.clouds = dice.uniform(0.0F, 0.65F);
  } else if (kind < 0.75F) {  // overcast
    const float grey = dice.uniform(0.75F, 1.1F);
    w.sun = {0.06F, 0.06F, 0.06F};
    w.ambient = grey * Colour{0.95F, 0.98F, 1.02F};
    w.zenith = grey * Colour{0.72F, 0.76F, 0.82F};
    w.horizon = grey * Colour{0.92F, 0.94F, 0.96F};
    w.clouds = dice.uniform(0.7F, 1.0F);
  } else if (kind < 0.92F) {  // low sun
    elevation = dice.uniform(0.16F, 0.4F);
    w.sun = {1.3F, 0.95F, 0.6F};
    w.ambient = {0.36F, 0.38F, 0.5F};
    w.zenith = {0.3F, 0.42F, 0.7F};
    w.horizon = {1.0F, 0.82F, 0.6F};
    w.clouds = dice.uniform(0.1F, 0.6F);
  } else {  // dusk
    w.sun = {0.03F, 0.03F, 0.04F};
    w.ambient = {0.26F, 0.28F, 0.4F};
    w.zenith = {0.09F, 0.13F, 0.3F};
    w.horizon = {0.5F, 0.36F, 0.36F};
    w.clouds = dice.uniform(0.2F, 0.8F);
    w.lamps = true;
  }
  w.to_sun = {std::sin(azimuth) * std::cos(elevation), std::sin(elevation), std::cos(azimuth) * std::cos(elevation)};
  w.haze = mix(w.horizon, w.ambient, 0.4F);
  w.haze_distance = dice.chance(0.12F) ? dice.uniform(45, 90) : dice.uniform(180, 600);
  w.exposure = dice.uniform(0.75F, 1.25F) * (w.lamps ? 1.5F : 1.0F);
  w.balance = dice.vary({1, 1, 1}, 0.07F);
  w.blur = dice.uniform(0.0F, 0.6F);
  w.noise = dice.uniform(0.004F, 0.024F) * (w.lamps ? 1.6F : 1.0F);
  w.vignette = dice.uniform(0.0F, 0.3F);
  return w;
}

// --- street and houses ----------------------------------------------------------------------------------------------

Street make_street(Dice& dice, std::array<float, 2>& setback) {
  Street st;
  st.seed = dice.word();
  st.road_half = dice.uniform(3.1F, 5.6F);
  const float lane = dice.uniform(0.25F, 0.6F) * st.road_half;
  st.offset = dice.chance(0.85F) ? -lane : 0.6F * lane;  // drives on the right, or overtakes
  st.heading = dice.uniform(-0.05F, 0.05F);
  st.curve = dice.uniform(-0.0016F, 0.0016F);
  for (std::size_t side = 0; side < 2; ++side) {
    st.pavement[side] = dice.uniform(1.6F, 4.2F);
    st.green[side] = dice.chance(0.35F);
    setback[side] = st.green[side] ? dice.uniform(1.5F, 6.0F) : (dice.chance(0.7F) ? 0.0F : dice.uniform(0.5F, 2.0F));
    st.lot[side] = st.road_half + st.pavement[side] + setback[side];
  }
  if (dice.chance(0.55F)) {
    st.cross_z = dice.uniform(12, 45);
    st.cross_width = dice.uniform(6, 10);
    if (dice.chance(0.6F)) st.zebra_z = st.cross_z - 3.6F;
  } else if (dice.chance(0.3F)) {
    st.zebra_z = dice.uniform(7, 25);
  }
  const float tone = dice.uniform(0.13F, 0.3F);
  st.asphalt = dice.vary({tone, tone, 1.03F * tone}, 0.05F);
  // In many streets paving and asphalt have nearly one colour: only place and pattern tell them apart.
  const float slabs = dice.chance(0.45F) ? tone * dice.uniform(0.9F, 1.25F) : dice.uniform(0.26F, 0.5F);
  st.paving = dice.vary(dice.chance(0.2F) ? Colour{1.15F * slabs, 0.85F * slabs, 0.72F * slabs}
                                          : Colour{slabs, 0.98F * slabs, 0.94F * slabs},
                        0.05F);
  st.kerb = dice.vary(dice.uniform(0.3F, 0.55F) * Colour{1, 1, 0.97F}, 0.04F);
  st.lawn = dice.vary({0.11F, 0.19F, 0.05F}, 0.35F);
  st.patches = dice.uniform(0.02F, 0.3F);
  st.slab = dice.uniform(0.5F, 1.3F);
  st.edge_lines = dice.chance(0.35F);
  st.centre_line = dice.chance(0.7F);
  st.kerb_yellow = dice.chance(0.2F);
  return st;
}

Colour wall_colour(Dice& dice, int style) {
  switch (style) {
    case 0: return dice.vary({0.34F, 0.17F, 0.12F}, 0.3F);                                // brick
    case 1: return dice.vary(dice.uniform(0.3F, 0.75F) * Colour{1, 0.93F, 0.8F}, 0.12F);  // plaster
    case 2: return dice.vary(dice.uniform(0.2F, 0.55F) * Colour{1, 1, 1.02F}, 0.06F);     // concrete
    default: return dice.vary(dice.uniform(0.2F, 0.5F) * Colour{1, 0.95F, 0.88F}, 0.15F);
  }
}

void add_houses(Dice& dice, World& world, int side, float usual_height) {
  const std::size_t index = side < 0 ? 0 : 1;
  const Street& st = world.street;
  const bool park = dice.chance(0.16F);
  float z = dice.uniform(-6, 2);
  while (z < kStreetEnd) {
    const float length = dice.uniform(6, 17);
    const bool gap = dice.chance(park ? 0.85F : 0.13F);
    const float far = z + length;
    const bool crossing = st.cross_z > 0 && far > st.cross_z - 2.0F && z < st.cross_z + st.cross_width + 2.0F;
    if (gap || crossing) {
      if (crossing && !gap)
        z = st.cross_z + st.cross_width + 2.0F;
      else
        z = far;
      continue;
    }
    Building b;
    b.side = side;
    b.seed = dice.word();
    const float lot = static_cast<float>(side) * (st.lot[index] + (dice.chance(0.3F) ? dice.uniform(0, 1.5F) : 0.0F));
    b.from = {st.middle(std::max(z, 0.0F)) + lot, 0, z};
    b.to = {st.middle(std::max(far, 0.0F)) + lot, 0, far};
    b.height = usual_height * dice.uniform(0.65F, 1.4F);
    if (dice.chance(0.06F)) b.height *= 2.2F;
    b.depth = dice.uniform(7, 14);
    b.style = dice.chance(0.08F) ? 3 : dice.pick(3);
    if (b.height < 9 && dice.chance(0.7F)) b.roof_slope = dice.uniform(0.5F, 1.0F);
    b.wall = wall_colour(dice, b.style);
    b.frame = dice.vary(dice.uniform(0.15F, 0.75F) * Colour{1, 0.98F, 0.95F}, 0.06F);
    b.roof = dice.vary(dice.chance(0.5F) ? Colour{0.3F, 0.13F, 0.09F} : Colour{0.14F, 0.14F, 0.16F}, 0.2F);
    b.shop = dice.colour(0.03F, 0.55F);
    b.storey = dice.uniform(2.8F, 3.7F);
    b.bay = dice.uniform(1.7F, 3.3F);
    b.window_w = dice.uniform(0.35F, 0.65F);
    b.window_h = dice.uniform(0.4F, 0.65F);
    b.shops = dice.chance(st.green[index] ? 0.1F : 0.5F);
    const auto first = static_cast<std::size_t>(std::max(z, 0.0F));
    const auto last = std::min(static_cast<std::size_t>(std::max(far, 0.0F)), world.roofline[index].size());
    for (std::size_t i = first; i < last; ++i) world.roofline[index][i] = b.height;
    world.buildings.push_back(b);
    z = far + (dice.chance(0.1F) ? dice.uniform(1, 3) : 0.0F);
  }
}

/// What closes the view: a house across the end of the street, and towers behind the rows.
void add_backdrop(Dice& dice, World& world, float usual_height) {
  const int count = dice.pick(7);
  for (int i = 0; i < count; ++i) {
    Building b;
    b.seed = dice.word();
    b.side = 1;
    const float z = dice.uniform(kStreetEnd + 5, 220);
    const float x = world.street.middle(z) + dice.uniform(-70, 50);
    b.from = {x, 0, z};
    b.to = {x + 0.1F, 0, z + 12};
    b.depth = dice.uniform(10, 35);
    b.height = usual_height * dice.uniform(0.7F, 2.6F);
    b.style = 1 + dice.pick(2);
    b.wall = wall_colour(dice, b.style);
    b.frame = 0.8F * b.wall;
    b.bay = 3.5F;
    world.buildings.push_back(b);
  }
}

}  // namespace

World make_world(std::uint64_t seed, std::uint64_t stream) {
  Dice dice(seed, stream);
  World world;
  world.camera.height = dice.uniform(1.2F, 1.9F);
  world.camera.fov = dice.uniform(0.85F, 1.3F);
  world.camera.horizon = dice.uniform(0.4F, 0.55F);
  world.camera.roll = dice.uniform(-0.025F, 0.025F);
  world.weather = make_weather(dice);
  std::array<float, 2> setback{};
  world.street = make_street(dice, setback);
  const float usual_height = dice.chance(0.4F) ? dice.uniform(5, 8) : dice.uniform(9, 17);
  add_houses(dice, world, -1, usual_height);
  add_houses(dice, world, 1, usual_height);
  add_backdrop(dice, world, usual_height);
  add_actors(dice, world);
  return world;
}

}  // namespace limbeck::datasets::scene
