// What this is: what the tests of datasets/ share: a temporary folder, small pictures with known content, and the real
//   data of the environment variable LIMBECK_DATA where it is present.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "datasets/dataset.h"
#include "datasets/image_io.h"
#include "datasets/mask_io.h"
#include "tests/harness/errors.h"
#include "tests/harness/temp_dir.h"

namespace limbeck::test {

/// A folder that is removed at the end of the test.
class TempFolder : public TempDir {
 public:
  /// A path inside; its folders are created.
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const {
    const auto p = path() / name;
    std::filesystem::create_directories(p.parent_path());
    return p;
  }
};

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// Random pixels: nothing in it is symmetric or constant.
inline datasets::Image noise_image(std::int64_t h, std::int64_t w, std::uint64_t seed) {
  datasets::Image image(h, w);
  Generator g(seed, 77);
  for (auto& v : image.rgb) v = static_cast<std::uint8_t>(g.below(256));
  return image;
}

inline datasets::Mask noise_mask(std::int64_t h, std::int64_t w, std::uint64_t classes, std::uint64_t seed) {
  datasets::Mask mask(h, w);
  Generator g(seed, 78);
  for (auto& v : mask.ids) v = static_cast<std::uint8_t>(g.below(classes));
  return mask;
}

/// One row of ids.
inline datasets::Mask mask_of(std::vector<std::uint8_t> ids) {
  datasets::Mask mask(1, static_cast<std::int64_t>(ids.size()));
  mask.ids = std::move(ids);
  return mask;
}

/// An image of the mask's size next to the mask.
inline void write_pair(const TempFolder& folder, const std::string& image, const std::string& label,
                       const datasets::Mask& mask) {
  datasets::write_image(folder / image, noise_image(mask.h, mask.w, 4));
  datasets::write_grey_mask(folder / label, mask);
}

inline datasets::DatasetSpec spec_of(const char* kind, const std::filesystem::path& root, const char* split = "train") {
  datasets::DatasetSpec spec;
  spec.kind = kind;
  spec.root = root;
  spec.split = split;
  return spec;
}

/// message_of() for readers of data, whose errors are DataErrors unless said otherwise.
template <class E = DataError, class F>
std::string error_of(F&& f) {
  return message_of<E>(std::forward<F>(f));
}

/// A folder of the real data, or nothing with a printed reason.
inline std::optional<std::filesystem::path> real_data(const std::string& name) {
  const char* set = std::getenv("LIMBECK_DATA");
  std::filesystem::path root = set != nullptr ? set : "../shared/data";
  for (int up = 0; set == nullptr && up < 3 && !std::filesystem::is_directory(root); ++up) root = ".." / root;
  if (std::filesystem::exists(root / name)) return root / name;
  MESSAGE("skipped: no ", (root / name).string(), "; set LIMBECK_DATA to the folder of the real data");
  return std::nullopt;
}

}  // namespace limbeck::test
