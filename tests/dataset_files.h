// What this is: what the tests of datasets/ share: a temporary folder, small pictures with known content, and the real
//   data of the environment variable LIMBECK_DATA where it is present.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
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

namespace limbeck::test {

/// A folder that is removed at the end of the test.
class TempFolder {
 public:
  TempFolder() {
    static std::atomic<int> counter{0};
    path_ = std::filesystem::temp_directory_path() / fmt::format("limbeck_test_{}_{}", ::getpid(), counter++);
    std::filesystem::create_directories(path_);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// A path inside; its folders are created.
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const {
    const auto p = path_ / name;
    std::filesystem::create_directories(p.parent_path());
    return p;
  }

 private:
  std::filesystem::path path_;
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

/// The text of the E that `f` throws; fails the test and returns "" when it throws nothing or something else.
template <class E = DataError, class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    FAIL_CHECK("another exception: ", e.what());
    return "";
  }
  FAIL_CHECK("nothing was thrown");
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// doctest evaluates the message of CHECK_MESSAGE a second time, under its lock; hence the copy.
#define CHECK_CONTAINS(text, part)                                            \
  do {                                                                        \
    const std::string found_text = (text);                                    \
    CHECK_MESSAGE(::limbeck::test::contains(found_text, (part)), found_text); \
  } while (false)

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
