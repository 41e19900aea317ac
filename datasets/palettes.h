// What this is: class names and display colours of the well-known data sets.
// Read next: compose.h (painting with them).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// The first `count` colours of the PASCAL VOC colour map: bits 0, 3, 6 .. of the index go to red, bits 1, 4, 7 .. to
/// green, bits 2, 5, 8 .. to blue, most significant colour bit first.
[[nodiscard]] std::vector<Rgb> voc_colours(std::size_t count);

[[nodiscard]] const ClassInfo& camvid_classes();      ///< 11 classes of the SegNet selection
[[nodiscard]] const ClassInfo& voc_classes();         ///< background + 20
[[nodiscard]] const ClassInfo& cityscapes_classes();  ///< 19 train ids
[[nodiscard]] const ClassInfo& ade20k_classes();      ///< 150 of the scene parsing benchmark
[[nodiscard]] const ClassInfo& coco_stuff_classes();  ///< 80 things + 91 kinds of stuff
/// 59 classes sorted by name, or those behind "background".
[[nodiscard]] const ClassInfo& pascal_context_classes(bool with_background);

/// Cityscapes train ids 0..18 -> labelIds, the numbers that its benchmark server expects.
[[nodiscard]] const std::array<std::uint8_t, 19>& cityscapes_label_ids();
/// Cityscapes labelIds 0..33 -> train ids; kIgnoreId for those without one.
[[nodiscard]] const std::array<std::uint8_t, 34>& cityscapes_train_ids();

/// COCO ids 1..182 -> the 171 classes of COCO-Stuff; kIgnoreId for 0 and the 11 ids without pictures.
[[nodiscard]] const std::array<std::uint8_t, 183>& coco_stuff_train_ids();
/// COCO ids 1..182 -> VOC classes: the 20 things that VOC has; everything else is background (0). Id 0: kIgnoreId.
[[nodiscard]] const std::array<std::uint8_t, 183>& coco_voc_train_ids();

/// Class names "class 0", "class 1", ... with VOC colours.
[[nodiscard]] ClassInfo numbered_classes(std::int64_t count);

}  // namespace limbeck::datasets
