#include "datasets/palettes.h"

#include <fmt/format.h>

namespace limbeck::datasets {

std::vector<Rgb> voc_colours(std::size_t count) {
  std::vector<Rgb> colours(count);
  for (std::size_t i = 0; i < count; ++i) {
    unsigned rgb[3] = {0, 0, 0};
    for (unsigned bit = 0; bit < 24; ++bit) rgb[bit % 3] |= ((static_cast<unsigned>(i) >> bit) & 1U) << (7U - bit / 3U);
    colours[i] = {static_cast<std::uint8_t>(rgb[0]), static_cast<std::uint8_t>(rgb[1]),
                  static_cast<std::uint8_t>(rgb[2])};
  }
  return colours;
}

const ClassInfo& camvid_classes() {
  static const ClassInfo info{
      {"sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"},
      {{128, 128, 128},
       {128, 0, 0},
       {192, 192, 128},
       {128, 64, 128},
       {60, 40, 222},
       {128, 128, 0},
       {192, 128, 128},
       {64, 64, 128},
       {64, 0, 128},
       {64, 64, 0},
       {0, 128, 192}}};
  return info;
}

const ClassInfo& voc_classes() {
  static const ClassInfo info{{"background", "aeroplane", "bicycle",     "bird",  "boat",        "bottle", "bus",
                               "car",        "cat",       "chair",       "cow",   "diningtable", "dog",    "horse",
                               "motorbike",  "person",    "pottedplant", "sheep", "sofa",        "train",  "tvmonitor"},
                              voc_colours(21)};
  return info;
}

const ClassInfo& cityscapes_classes() {
  static const ClassInfo info{
      {"road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
       "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"},
      {{128, 64, 128},
       {244, 35, 232},
       {70, 70, 70},
       {102, 102, 156},
       {190, 153, 153},
       {153, 153, 153},
       {250, 170, 30},
       {220, 220, 0},
       {107, 142, 35},
       {152, 251, 152},
       {70, 130, 180},
       {220, 20, 60},
       {255, 0, 0},
       {0, 0, 142},
       {0, 0, 70},
       {0, 60, 100},
       {0, 80, 100},
       {0, 0, 230},
       {119, 11, 32}}};
  return info;
}

const std::array<std::uint8_t, 19>& cityscapes_label_ids() {
  static const std::array<std::uint8_t, 19> table{7,  8,  11, 12, 13, 17, 19, 20, 21, 22,
                                                  23, 24, 25, 26, 27, 28, 31, 32, 33};
  return table;
}

const std::array<std::uint8_t, 34>& cityscapes_train_ids() {
  static const std::array<std::uint8_t, 34> table = [] {
    std::array<std::uint8_t, 34> t{};
    t.fill(kIgnoreId);
    const auto& label_ids = cityscapes_label_ids();
    for (std::size_t k = 0; k < label_ids.size(); ++k) t[label_ids[k]] = static_cast<std::uint8_t>(k);
    return t;
  }();
  return table;
}

ClassInfo numbered_classes(std::int64_t count) {
  ClassInfo info;
  info.palette = voc_colours(static_cast<std::size_t>(count));
  for (std::int64_t k = 0; k < count; ++k) info.names.push_back(fmt::format("class {}", k));
  return info;
}

}  // namespace limbeck::datasets
