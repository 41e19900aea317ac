// COCO-Stuff, 171 classes, in its two sizes, and COCO painted with the 21 classes of VOC for pre-training.
//   164k: images/{train2017,val2017}/*.jpg, annotations/{...}/*.png (or stuffthingmaps/): the value is the COCO id - 1,
//         255 = not labelled
//   10k:  images/{train2014,test2014}/*.jpg, annotations/{...}/*.png, or all in one folder with imageLists/*.txt: the
//         value is the COCO id, 0 = not labelled
// Files *_labelTrainIds.png, which conversion scripts write (164k: 0..170; 10k: 1..171), are taken where the plain ones
// are absent. COCO ids run to 182; 11 of them have no pictures, hence the table in palettes_large.cpp.
#include "core/error.h"
#include "datasets/image_io.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTrainIdSuffix = "_labelTrainIds.png";

struct Layout {
  std::array<const char*, 2> train;  ///< names of the folder, the split's own name first
  std::array<const char*, 2> val;
  int shift;  ///< COCO id = value in the file + shift
};

constexpr Layout k164k{{"train2017", "train"}, {"val2017", "val"}, 1};
constexpr Layout k10k{{"train2014", "train"}, {"test2014", "test"}, 0};

/// Values of the plain files -> classes, by a table over the COCO ids 0..182.
LabelMap raw_map(const std::array<std::uint8_t, 183>& table, std::int64_t classes, int shift) {
  LabelMap map(classes);
  map.clear();
  for (int id = shift; id <= 182; ++id) map.set(id - shift, table[static_cast<std::size_t>(id)]);
  return map;
}

/// Values of *_labelTrainIds.png files.
LabelMap train_id_map(int shift) {
  LabelMap map(171);
  if (shift != 0) return map;
  map.clear();
  map.set(0, kIgnoreId);
  for (int k = 0; k < 171; ++k) map.set(k + 1, k);
  return map;
}

/// Takes a converted file only if `source` has a map for it.
Pair pair_of(const fs::path& image, const fs::path& labels, const std::string& name, const Source& source) {
  const fs::path plain = labels / (name + ".png");
  const fs::path converted = labels / (name + kTrainIdSuffix);
  const bool only_converted = source.maps.size() > 1 && !fs::is_regular_file(plain) && fs::is_regular_file(converted);
  return {name, image, only_converted ? converted : plain, only_converted ? std::size_t{1} : 0};
}

/// imageLists/train.txt of the 10k release; all pictures share a folder.
bool scan_lists(const DatasetSpec& spec, const std::string& part, Source& source) {
  const fs::path list = spec.root / "imageLists" / (part + ".txt");
  if (!fs::is_regular_file(list)) return false;
  for (const auto& line : read_list(list)) {
    const std::string name = line.fields[0];
    add_pair(pair_of(spec.root / "images" / (name + ".jpg"), spec.root / "annotations", name, source), source);
  }
  return true;
}

void scan(const DatasetSpec& spec, const std::string& part, const Layout& layout, Source& source) {
  const bool ten_k = layout.shift == 0;
  const bool val = part == "val" || part == layout.val[0] || part == layout.val[1];
  if (!val && part != "train" && part != layout.train[0]) {
    fail<ConfigError>(spec.kind, "split '{}' is unknown, expected train or {} (or the name of the folder, {} or {})",
                      part, layout.val[1], layout.train[0], layout.val[0]);
  }
  if (ten_k && scan_lists(spec, val ? "test" : "train", source)) return;
  const auto& parts = val ? layout.val : layout.train;
  const auto find = [&](std::initializer_list<const char*> folders) {
    std::vector<fs::path> candidates;
    for (const char* folder : folders) {
      for (const char* name : parts) candidates.push_back(spec.root / folder / name);
    }
    return first_folder(spec.kind, candidates);
  };
  const fs::path images = find({"images"});
  const fs::path labels = find({"annotations", "stuffthingmaps"});
  for (const auto& image : list_images(images)) add_pair(pair_of(image, labels, image.stem().string(), source), source);
}

}  // namespace

void scan_coco_stuff(const DatasetSpec& spec, const std::string& part, Source& source) {
  const Layout& layout = spec.kind == "coco_stuff10k" ? k10k : k164k;
  source.classes = coco_stuff_classes();
  source.maps = {raw_map(coco_stuff_train_ids(), 171, layout.shift), train_id_map(layout.shift)};
  scan(spec, part, layout, source);
}

void scan_coco_voc(const DatasetSpec& spec, const std::string& part, Source& source) {
  source.classes = voc_classes();
  source.maps = {raw_map(coco_voc_train_ids(), 21, k164k.shift)};
  scan(spec, part, k164k, source);
}

}  // namespace limbeck::datasets
