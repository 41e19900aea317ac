// ADE20K (scene parsing benchmark, 150 classes): images/{training,validation}/*.jpg, annotations/{...}/*.png.
// In the files 0 means "other" and is not labelled, 1..150 are the classes 0..149.
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {

void scan_ade20k(const DatasetSpec& spec, const std::string& part_in, Source& source) {
  const std::string part = part_in == "train" ? "training" : part_in == "val" ? "validation" : part_in;
  source.classes = ade20k_classes();
  LabelMap map(150);
  map.clear();
  map.set(0, kIgnoreId);
  for (int k = 0; k < 150; ++k) map.set(k + 1, k);
  source.maps = {map};

  std::vector<std::filesystem::path> images;
  std::vector<std::filesystem::path> labels;
  for (const auto& root : {spec.root, spec.root / "ADEChallengeData2016"}) {
    images.push_back(root / "images" / part);
    labels.push_back(root / "annotations" / part);
  }
  add_folder_pairs(first_folder("ade20k", images), first_folder("ade20k", labels), spec.image_suffix, spec.label_suffix,
                   source);
}

}  // namespace limbeck::datasets
