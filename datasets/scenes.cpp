#include "datasets/scenes.h"

#include <algorithm>

#include "core/error.h"
#include "core/rng.h"
#include "datasets/palettes.h"
#include "datasets/scene_world.h"

namespace limbeck::datasets {
namespace {

using scene::Actor;
using scene::ActorKind;

void draw_actor(scene::Canvas& canvas, const scene::World& world, const Actor& actor) {
  switch (actor.kind) {
    case ActorKind::kCar:
    case ActorKind::kVan:
    case ActorKind::kBus: draw_vehicle(canvas, world, actor); return;
    case ActorKind::kPedestrian: draw_pedestrian(canvas, world, actor); return;
    case ActorKind::kCyclist: draw_cyclist(canvas, world, actor); return;
    case ActorKind::kTree: draw_tree(canvas, world, actor); return;
    case ActorKind::kHedge: draw_hedge(canvas, world, actor); return;
    case ActorKind::kLamp:
    case ActorKind::kSign:
    case ActorKind::kSignal:
    case ActorKind::kBollard: draw_post(canvas, world, actor); return;
    case ActorKind::kFence: draw_fence(canvas, world, actor); return;
  }
}

/// Translucent things are mixed with what is behind them, so they come last, far ones first.
bool is_translucent(const Actor& actor) { return actor.kind == ActorKind::kFence || actor.kind == ActorKind::kCyclist; }

void draw_world(scene::Canvas& canvas, scene::World& world) {
  draw_ground(canvas, world);
  draw_shadows(canvas, world);
  // The z-buffer makes the order of solid things irrelevant; near first saves shading what gets covered.
  std::stable_sort(world.actors.begin(), world.actors.end(),
                   [](const Actor& a, const Actor& b) { return a.at.z < b.at.z; });
  std::stable_sort(world.buildings.begin(), world.buildings.end(),
                   [](const auto& a, const auto& b) { return a.from.z < b.from.z; });
  for (const auto& actor : world.actors) {
    if (!is_translucent(actor)) draw_actor(canvas, world, actor);
  }
  for (const auto& building : world.buildings) draw_building(canvas, world, building);
  draw_sky(canvas, world);
  for (auto actor = world.actors.rbegin(); actor != world.actors.rend(); ++actor) {
    if (is_translucent(*actor)) draw_actor(canvas, world, *actor);
  }
}

class SceneDataset final : public Dataset {
 public:
  SceneDataset(SceneOptions options, std::size_t count) : options_(std::move(options)), count_(count) {}
  [[nodiscard]] std::size_t size() const override { return count_; }
  [[nodiscard]] Sample load(std::size_t index) const override {
    LIMBECK_CHECK(index < count_, "scenes", "sample {} of {}", index, count_);
    Sample sample = make_scene(options_, index);
    sample.name = name(index);
    return sample;
  }
  [[nodiscard]] std::string name(std::size_t index) const override {
    return fmt::format("scene_{}_{:06}", options_.split, index);
  }
  [[nodiscard]] const ClassInfo& classes() const override { return camvid_classes(); }

 private:
  SceneOptions options_;
  std::size_t count_;
};

}  // namespace

Sample make_scene(const SceneOptions& options, std::uint64_t index) {
  const auto [seed, split, h, w] = options;
  if (h < 16 || w < 16 || h > 4096 || w > 4096) {
    fail<ConfigError>("scenes", "size {}x{} (width x height), expected 16..4096", w, h);
  }
  std::uint64_t part = 0;  // FNV-1a of the split's name
  for (const char c : split) part = (part ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  scene::World world = scene::make_world(seed, mix_stream(index, part, 0x7363656E65U));
  scene::Canvas canvas(world.camera, 2 * h, 2 * w);
  draw_world(canvas, world);
  Sample sample = scene::finish(canvas, world);
  sample.name = fmt::format("scene_{}_{:06}", split, index);
  return sample;
}

std::shared_ptr<const Dataset> make_scenes(const DatasetSpec& spec) {
  if (spec.split != "train" && spec.split != "val" && spec.split != "test") {
    fail<ConfigError>("scenes", "there is no split '{}', expected train, val or test", spec.split);
  }
  SceneOptions options{spec.seed, spec.split, spec.height, spec.width};
  std::size_t count = spec.samples > 0 ? spec.samples : (spec.split == "train" ? 2000 : 200);
  if (spec.limit > 0) count = std::min(count, spec.limit);
  (void)make_scene(options, 0);  // reports a bad size now and not in a worker
  return std::make_shared<SceneDataset>(std::move(options), count);
}

}  // namespace limbeck::datasets
