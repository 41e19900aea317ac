// Drawing lots: traffic, people, trees, fences, posts. Distances and counts are chosen so that the class shares
// resemble those of real driving scenes.
#include <algorithm>
#include <numbers>

#include "datasets/scene_world.h"

namespace limbeck::datasets::scene {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;

Actor make_actor(Dice& dice, ActorKind kind, Vec3 at) {
  Actor a;
  a.kind = kind;
  a.at = at;
  a.seed = dice.word();
  return a;
}

Colour car_colour(Dice& dice) {
  constexpr std::array<Colour, 9> kPaints{{{0.7F, 0.7F, 0.7F},
                                           {0.42F, 0.43F, 0.45F},
                                           {0.2F, 0.2F, 0.21F},
                                           {0.03F, 0.03F, 0.035F},
                                           {0.4F, 0.03F, 0.03F},
                                           {0.03F, 0.08F, 0.3F},
                                           {0.05F, 0.14F, 0.08F},
                                           {0.45F, 0.38F, 0.25F},
                                           {0.55F, 0.42F, 0.05F}}};
  return dice.vary(kPaints[static_cast<std::size_t>(dice.pick(9))], 0.15F);
}

void add_vehicle(Dice& dice, World& world, float s, float z, float heading, bool big_allowed) {
  const float kind = dice.uniform(0, 1);
  Actor a = make_actor(dice,
                       kind < 0.84F || !big_allowed ? ActorKind::kCar
                       : kind < 0.95F               ? ActorKind::kVan
                                                    : ActorKind::kBus,
                       {world.street.middle(z) + s, 0, z});
  a.heading = heading + std::atan(world.street.heading + 2 * world.street.curve * z) + dice.uniform(-0.03F, 0.03F);
  a.size = dice.uniform(0.93F, 1.07F);
  a.variant = dice.pick(3);
  a.main = a.kind == ActorKind::kCar
               ? car_colour(dice)
               : dice.vary(dice.chance(0.5F) ? Colour{0.65F, 0.65F, 0.64F} : dice.colour(0.05F, 0.6F), 0.1F);
  a.second = dice.colour(0.05F, 0.7F);
  world.actors.push_back(a);
}

void add_traffic(Dice& dice, World& world) {
  const Street& st = world.street;
  for (const float side : {-1.0F, 1.0F}) {  // parked
    if (st.road_half < 3.6F || !dice.chance(0.5F)) continue;
    const float density = dice.uniform(0.35F, 0.95F);
    for (float z = dice.uniform(3.5F, 9); z < 75; z += dice.uniform(5.3F, 6.8F)) {
      const bool clear = !st.in_cross(z) && (st.zebra_z < 0 || std::abs(z - st.zebra_z - 1.5F) > 4);
      if (clear && dice.chance(density))
        add_vehicle(dice, world, side * (st.road_half - 1.0F), z, side > 0 ? 0 : kPi, true);
    }
  }
  for (const float side : {-1.0F, 1.0F}) {  // driving: away on the right, towards us on the left
    float z = side > 0 ? dice.uniform(8, 40) : dice.uniform(5, 30);
    while (z < 90 && dice.chance(0.62F)) {
      add_vehicle(dice, world, side * 0.42F * st.road_half, z, side > 0 ? 0 : kPi, true);
      z += dice.uniform(8, 30);
    }
  }
  if (st.cross_z > 0 && dice.chance(0.4F)) {  // crossing
    const float z = st.cross_z + 0.5F * st.cross_width;
    const float heading = dice.chance(0.5F) ? 0.5F * kPi : -0.5F * kPi;
    add_vehicle(dice, world, dice.uniform(-6, 6), z, heading, true);
  }
}

void dress(Dice& dice, Actor& a) {
  a.main = dice.colour(0.03F, 0.5F);
  if (dice.chance(0.5F)) a.main = dice.vary(dice.uniform(0.03F, 0.3F) * Colour{1, 1, 1.05F}, 0.15F);
  a.second = dice.vary(dice.uniform(0.02F, 0.2F) * Colour{0.9F, 0.95F, 1.2F}, 0.2F);
  a.third = dice.colour(0.03F, 0.6F);
}

void add_people(Dice& dice, World& world) {
  const Street& st = world.street;
  int walkers = 1 + dice.pick(6);
  if (dice.chance(0.35F)) walkers += 5;
  for (int i = 0; i < walkers; ++i) {
    const std::size_t side = dice.chance(0.5F) ? 0 : 1;
    const float sign = side == 0 ? -1.0F : 1.0F;
    const bool on_road = dice.chance(0.12F);
    const float z = st.zebra_z > 0 && on_road ? st.zebra_z + dice.uniform(0.3F, 2.7F) : dice.near(4, 34);
    const float s = on_road ? dice.uniform(-1, 1) * st.road_half
                            : sign * (st.road_half + 0.3F + dice.uniform(0, 1) * (st.pavement[side] - 0.4F));
    const int group = dice.chance(0.25F) ? 2 : 1;
    for (int k = 0; k < group; ++k) {
      Actor a = make_actor(dice, ActorKind::kPedestrian, {st.middle(z) + s + 0.6F * static_cast<float>(k), 0, z});
      a.size = dice.chance(0.12F) ? dice.uniform(0.6F, 0.8F) : dice.uniform(0.92F, 1.08F);
      dress(dice, a);
      world.actors.push_back(a);
    }
  }
  const int riders = dice.chance(0.7F) ? 1 + dice.pick(3) : 0;
  for (int i = 0; i < riders; ++i) {
    const float sign = dice.chance(0.5F) ? -1.0F : 1.0F;
    const float z = dice.near(4, 24);
    const bool across = dice.chance(0.45F);
    const float s =
        across ? dice.uniform(-1, 1) * (st.road_half + 1) : sign * (st.road_half - dice.uniform(0.5F, 1.6F));
    Actor a = make_actor(dice, ActorKind::kCyclist, {st.middle(z) + s, 0, z});
    a.variant = across ? 0 : 1;
    a.heading = across ? (dice.chance(0.5F) ? 0.5F * kPi : -0.5F * kPi) : 0;
    a.size = dice.uniform(0.92F, 1.06F);
    dress(dice, a);
    world.actors.push_back(a);
  }
}

Colour leaf_colour(Dice& dice) {
  const float kind = dice.uniform(0, 1);
  if (kind < 0.7F) return dice.vary({0.10F, 0.17F, 0.045F}, 0.35F);
  if (kind < 0.85F) return dice.vary({0.32F, 0.2F, 0.05F}, 0.3F);  // autumn
  return dice.vary({0.06F, 0.1F, 0.05F}, 0.3F);                    // dark conifers
}

void add_green(Dice& dice, World& world) {
  const Street& st = world.street;
  const Colour street_leaf = leaf_colour(dice);
  const Colour bark = dice.vary({0.13F, 0.1F, 0.07F}, 0.3F);
  for (std::size_t side = 0; side < 2; ++side) {
    const float sign = side == 0 ? -1.0F : 1.0F;
    const bool avenue = dice.chance(0.4F);
    const float step = dice.uniform(7, 13);
    for (float z = dice.uniform(5, 14); z < 100; z += step * dice.uniform(0.85F, 1.15F)) {
      const bool open = world.roofline[side][static_cast<std::size_t>(z)] == 0 && !st.in_cross(z);
      if (!(avenue || (open && dice.chance(0.8F)) || dice.chance(0.08F)) || st.in_cross(z)) continue;
      const float s = open && dice.chance(0.7F) ? st.lot[side] + dice.uniform(0, 5)
                                                : st.road_half + std::min(0.7F, 0.4F * st.pavement[side]);
      Actor a = make_actor(dice, ActorKind::kTree, {st.middle(z) + sign * s, 0, z});
      a.variant = avenue ? static_cast<int>(st.seed % 3) : dice.pick(3);
      a.size = dice.uniform(0.7F, 1.35F);
      a.main = avenue ? dice.vary(street_leaf, 0.12F) : leaf_colour(dice);
      a.second = 1.5F * dice.vary(a.main, 0.2F);
      a.third = bark;
      world.actors.push_back(a);
    }
    for (float z = 115; z < 190; z += dice.uniform(6, 14)) {  // woods at the end of the street
      Actor a = make_actor(dice, ActorKind::kTree, {st.middle(z) + sign * dice.uniform(0, 40), 0, z});
      a.size = dice.uniform(1.2F, 2.4F);
      a.variant = dice.pick(3);
      a.main = leaf_colour(dice);
      a.second = 1.4F * a.main;
      a.third = bark;
      world.actors.push_back(a);
    }
  }
}

/// Fences and hedges run along the lots, and sometimes along the kerb.
void add_borders(Dice& dice, World& world) {
  const Street& st = world.street;
  for (std::size_t side = 0; side < 2; ++side) {
    const float sign = side == 0 ? -1.0F : 1.0F;
    const Colour paint = dice.chance(0.5F) ? dice.vary({0.05F, 0.06F, 0.06F}, 0.4F)
                                           : dice.vary(dice.uniform(0.15F, 0.5F) * Colour{1, 0.9F, 0.75F}, 0.15F);
    const int variant = dice.pick(4);
    const bool kerb_rail = dice.chance(0.16F);
    const float size = dice.uniform(0.85F, 1.3F);
    float z = dice.uniform(3, 8);
    while (z < 80) {
      const float length = dice.uniform(5, 12);
      const float middle_z = z + 0.5F * length;
      const bool open = world.roofline[side][static_cast<std::size_t>(middle_z)] == 0;
      const bool free = !st.in_cross(z) && !st.in_cross(z + length) && !st.in_cross(middle_z);
      const bool along_lot = (open || st.green[side]) && dice.chance(0.75F);
      if (free && (along_lot || kerb_rail)) {
        const float s = sign * (along_lot ? st.road_half + st.pavement[side] + 0.1F : st.road_half + 0.3F);
        const bool hedge = along_lot && dice.chance(0.25F);
        Actor a = make_actor(dice, hedge ? ActorKind::kHedge : ActorKind::kFence, {st.middle(z) + s, 0, z});
        a.to = {st.middle(z + length) + s, 0, z + length};
        a.variant = kerb_rail && !along_lot ? 0 : variant;
        a.size = size;
        a.main = hedge ? leaf_colour(dice) : paint;
        a.second = 1.4F * a.main;
        world.actors.push_back(a);
      }
      z += length + (dice.chance(0.3F) ? dice.uniform(1, 6) : 0.0F);
    }
  }
}

void add_posts(Dice& dice, World& world) {
  const Street& st = world.street;
  const Colour metal = dice.vary(dice.uniform(0.06F, 0.4F) * Colour{1, 1, 1.02F}, 0.08F);
  const auto place = [&](ActorKind kind, std::size_t side, float z, float out) {
    const float sign = side == 0 ? -1.0F : 1.0F;
    Actor a = make_actor(dice, kind, {st.middle(z) + sign * (st.road_half + out), 0, z});
    a.main = metal;
    a.second = dice.chance(0.5F) ? Colour{0.02F, 0.2F, 0.08F} : Colour{0.03F, 0.1F, 0.4F};
    a.third = dice.colour(0.05F, 0.6F);
    a.variant = dice.pick(6);
    a.size = dice.uniform(0.9F, 1.15F);
    world.actors.push_back(a);
  };
  for (std::size_t side = 0; side < 2; ++side) {
    if (dice.chance(0.75F)) {
      const float step = dice.uniform(14, 26);
      for (float z = dice.uniform(5, 16); z < 55; z += step) place(ActorKind::kLamp, side, z, 0.45F);
    }
    const int signs = dice.pick(4);
    for (int i = 0; i < signs; ++i) {
      const float z = dice.uniform(5, 26);
      place(ActorKind::kSign, side, z, dice.uniform(0.35F, 0.8F));
    }
    if (st.cross_z > 0 && dice.chance(0.55F)) place(ActorKind::kSignal, side, st.cross_z - 1.0F, 0.5F);
    if (dice.chance(0.18F)) {
      for (float z = dice.uniform(5, 9); z < 26; z += dice.uniform(1.6F, 3)) place(ActorKind::kBollard, side, z, 0.3F);
    }
  }
}

}  // namespace

void add_actors(Dice& dice, World& world) {
  add_traffic(dice, world);
  add_people(dice, world);
  add_green(dice, world);
  add_borders(dice, world);
  add_posts(dice, world);
}

}  // namespace limbeck::datasets::scene
