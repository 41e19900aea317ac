// What this is: what the scan of one sample found; private to check_data.cpp and check_findings.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/check_data.h"
#include "datasets/mask_io.h"

namespace limbeck::datasets {

struct SampleScan {
  std::string image_error, mask_error;  ///< why a file could not be read
  std::filesystem::path image, label;
  std::string name;
  std::int64_t h = 0, w = 0;  ///< of the image
  std::int64_t mask_h = 0, mask_w = 0;
  std::uint64_t hash = 0;                       ///< of the image's pixels
  std::string format;                           ///< of the mask
  bool colour = false, colour_is_grey = false;  ///< RGB mask although ids are expected
  std::optional<unsigned> wide_value;           ///< largest value of a 16-bit mask if beyond 255
  std::size_t map = 0;
  std::array<std::uint32_t, 256> histogram{};  ///< of the ids in the file
  std::array<std::uint32_t, 256> first{};      ///< index of the first pixel with that id
  bool has_ids = false;
  std::int64_t whole_label = -1;  ///< class of the picture where there is no mask
};

struct SplitScan {
  std::string name, kind;
  std::size_t listed = 0;
  std::vector<std::string> missing;
  std::vector<LabelMap> maps;
  std::vector<SampleScan> samples;
};

/// Adds the split's numbers to the report and its findings to `findings`.
[[nodiscard]] SplitReport summarise(const SplitScan& scan, std::int64_t classes);
void judge_split(const SplitScan& scan, const SplitReport& report, const ClassInfo& classes,
                 std::vector<Finding>& findings);
/// Equal images within and between splits.
void judge_duplicates(const std::vector<SplitScan>& scans, std::vector<Finding>& findings);

}  // namespace limbeck::datasets
