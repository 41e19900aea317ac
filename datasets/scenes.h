// What this is: a generator of street scenes with exact labels: endless training data without a download.
// Every scene is a pure function of (seed, split, index, size), so tests, demos and benchmarks agree everywhere.
// What it is not: a replacement for real data in published numbers. The classes are those of CamVid.
// How it works (one page each):
//   scene_canvas.h    pinhole camera, z-buffer at twice the resolution, textured planes in the world
//   scene_layout.cpp, scene_actors.cpp   drawing lots: weather, street, houses; what stands on the street
//   scene_street.cpp  drawing the stage: ground, cast shadows, buildings, sky
//   scene_cars.cpp, scene_people.cpp, scene_props.cpp   drawing what stands on it
//   scene_finish.cpp  haze, exposure, blur, noise, down-sampling, and the labels with their ignore rim
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// Train ids of the generated classes; equal to CamVid's.
enum class SceneClass : std::uint8_t {
  kSky,
  kBuilding,
  kPole,
  kRoad,
  kPavement,
  kTree,
  kSign,
  kFence,
  kCar,
  kPedestrian,
  kBicyclist
};

struct SceneOptions {
  std::uint64_t seed = 0;
  std::string split = "train";  ///< different splits never share a scene
  std::int64_t height = 96, width = 128;
};

/// Scene number `index`. Pixels within the border of an object get kIgnoreId.
/// Throws: ConfigError when the size is below 16x16 or above 4096x4096.
[[nodiscard]] Sample make_scene(const SceneOptions& options, std::uint64_t index);

/// The generated data set of a DatasetSpec (seed, height, width, samples, split, limit).
[[nodiscard]] std::shared_ptr<const Dataset> make_scenes(const DatasetSpec& spec);

}  // namespace limbeck::datasets
