// What this is: the description of one street scene, and the functions that draw its parts.
// Read next: scene_layout.cpp and scene_actors.cpp (how it is drawn by lot), then scene_street.cpp (how it looks).
#pragma once

#include <cstdint>
#include <vector>

#include "core/rng.h"
#include "datasets/scene_canvas.h"

namespace limbeck::datasets::scene {

/// Random numbers of the layout; none of them depends on the picture size. C++ leaves the order of operands and of
/// arguments to the compiler, so an expression may throw the dice only once (braces and conditions are ordered).
class Dice {
 public:
  Dice(std::uint64_t seed, std::uint64_t stream) noexcept : generator_(seed, stream) {}
  [[nodiscard]] float uniform(float low, float high) noexcept {
    return low + (high - low) * to_unit_float(generator_.next_word());
  }
  [[nodiscard]] bool chance(float probability) noexcept { return uniform(0, 1) < probability; }
  [[nodiscard]] int pick(int count) noexcept {
    return static_cast<int>(generator_.below(static_cast<std::uint64_t>(count)));
  }
  [[nodiscard]] std::uint32_t word() noexcept { return generator_.next_word(); }
  /// `base` with each channel scaled independently by up to +-spread.
  [[nodiscard]] Colour vary(Colour base, float spread) noexcept {
    return {base.r * uniform(1 - spread, 1 + spread), base.g * uniform(1 - spread, 1 + spread),
            base.b * uniform(1 - spread, 1 + spread)};
  }
  /// A distance between low and high, near ones more often.
  [[nodiscard]] float near(float low, float high) noexcept {
    const float u = uniform(0, 1);
    return low + (high - low) * u * std::sqrt(u);
  }
  [[nodiscard]] Colour colour(float low, float high) noexcept {
    return {uniform(low, high), uniform(low, high), uniform(low, high)};
  }

 private:
  Generator generator_;
};

/// Sun, sky and what the camera makes of them.
struct Weather {
  Vec3 to_sun{0, 1, 0};
  Colour sun, ambient;        ///< strength of direct and diffuse light
  Colour zenith, horizon;     ///< sky colours
  Colour haze;                ///< colour of distant air
  float haze_distance = 200;  ///< metres after which 63 % is haze
  float clouds = 0.5F;        ///< 0 clear .. 1 overcast
  float exposure = 1;
  Colour balance{1, 1, 1};  ///< white balance error
  float blur = 0.4F;        ///< standard deviation in final pixels of a 128 wide picture
  float noise = 0.02F;      ///< sensor noise at mid grey, share of full scale
  float vignette = 0.2F;
  bool lamps = false;  ///< dusk: lit windows, head and tail lights
  std::uint32_t seed = 0;

  /// Light on a surface with this normal; `shadow` 0 (none) .. 1 (no sun).
  [[nodiscard]] Colour light(Vec3 normal, float shadow = 0) const noexcept {
    const float facing = std::max(0.0F, dot(normal, to_sun)) * (1.0F - shadow);
    return facing * sun + (0.75F + 0.25F * normal.y) * ambient;
  }
};

/// The ground. Lateral positions s are measured from the middle of the road, to the right.
struct Street {
  float offset = 0, heading = 0, curve = 0;  ///< x of the middle: offset + heading z + curve z^2
  float road_half = 4;
  std::array<float, 2> pavement{2.5F, 2.5F};  ///< widths, left and right
  std::array<float, 2> lot{8, 8};             ///< distance of the house fronts, left and right
  std::array<bool, 2> green{false, false};    ///< beyond the pavement: lawn instead of paving
  float cross_z = -1, cross_width = 0;        ///< crossing street; cross_z < 0: none
  Colour asphalt, paving, kerb, lawn;
  float patches = 0.1F;  ///< contrast of asphalt repairs
  float slab = 0.8F;     ///< size of paving slabs, metres
  float zebra_z = -1;    ///< start of a zebra crossing; < 0: none
  bool edge_lines = false, centre_line = true, kerb_yellow = false;
  std::uint32_t seed = 0;

  [[nodiscard]] float middle(float z) const noexcept { return offset + z * (heading + curve * z); }
  [[nodiscard]] bool in_cross(float z) const noexcept {
    return cross_z > 0 && z > cross_z && z < cross_z + cross_width;
  }
};

struct Building {
  Vec3 from, to;  ///< foot of the facade along the street, near and far end
  float height = 10;
  float depth = 10;      ///< of the end wall, away from the street
  int side = 1;          ///< -1: left of the street, +1: right
  float roof_slope = 0;  ///< 0: flat roof; else rise per metre
  Colour wall, frame, roof, shop;
  int style = 0;  ///< 0 brick, 1 plaster, 2 concrete and glass bands, 3 blank wall
  float storey = 3.2F, bay = 2.4F, window_w = 0.5F, window_h = 0.55F;
  bool shops = false;
  std::uint32_t seed = 0;
};

enum class ActorKind : std::uint8_t {
  kCar,
  kVan,
  kBus,
  kPedestrian,
  kCyclist,
  kTree,
  kHedge,
  kLamp,
  kSign,
  kSignal,
  kBollard,
  kFence
};

/// Something that stands on the street.
struct Actor {
  ActorKind kind = ActorKind::kCar;
  Vec3 at;            ///< point on the ground
  float heading = 0;  ///< radians; 0 looks along z (away from the camera)
  float size = 1;     ///< scale of the usual size
  int variant = 0;
  Colour main, second, third;
  Vec3 to;  ///< fences and hedges: the other end
  std::uint32_t seed = 0;
};

struct World {
  Camera camera;
  Weather weather;
  Street street;
  std::vector<Building> buildings;
  std::vector<Actor> actors;
  /// Height of the house fronts on each side per metre of z; 0 where there is none. Casts the long shadows.
  std::array<std::array<float, 192>, 2> roofline{};

  /// How much of the sun the houses take away at a point: 0 .. 1.
  [[nodiscard]] float shadow_at(Vec3 p) const noexcept;
};

/// Draws the lots of scene `stream` of data set `seed`.
[[nodiscard]] World make_world(std::uint64_t seed, std::uint64_t stream);
/// The part of make_world() that puts things on the street.
void add_actors(Dice& dice, World& world);

// Parts; each draws on the canvas with the world's light.
void draw_ground(Canvas& canvas, const World& world);
void draw_shadows(Canvas& canvas, const World& world);
void draw_building(Canvas& canvas, const World& world, const Building& building);
void draw_sky(Canvas& canvas, const World& world);
void draw_vehicle(Canvas& canvas, const World& world, const Actor& actor);
void draw_pedestrian(Canvas& canvas, const World& world, const Actor& actor);
void draw_cyclist(Canvas& canvas, const World& world, const Actor& actor);
void draw_tree(Canvas& canvas, const World& world, const Actor& actor);
void draw_hedge(Canvas& canvas, const World& world, const Actor& actor);
void draw_post(Canvas& canvas, const World& world, const Actor& actor);  ///< lamp, sign, signal, bollard
void draw_fence(Canvas& canvas, const World& world, const Actor& actor);

/// Haze, exposure, blur, noise, down-sampling and labels.
[[nodiscard]] Sample finish(const Canvas& canvas, const World& world);

}  // namespace limbeck::datasets::scene
