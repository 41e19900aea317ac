// CamVid in the SegNet layout: train/, trainannot/, val/, ... and list files train.txt with `image mask` per line.
// Ids 0..10 are the classes, 11 is "unlabelled". Source: the data set as distributed with the SegNet tutorial.
#include "core/error.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {

void scan_camvid(const DatasetSpec& spec, const std::string& part, Source& source) {
  if (part == "trainval") {  // a habit of other data sets
    scan_camvid(spec, "train", source);
    scan_camvid(spec, "val", source);
    return;
  }
  constexpr int kUnlabelled = 11;
  source.classes = camvid_classes();
  source.maps = {LabelMap(11, kUnlabelled)};

  const auto list = spec.root / (spec.list.empty() ? part + ".txt" : spec.list);
  if (std::filesystem::is_regular_file(list)) {
    add_listed_pairs(list, spec.root, source);
    return;
  }
  if (!spec.list.empty()) fail<DataError>("camvid", "{}: the list file is missing; check `list`", list.string());
  const auto images = first_folder("camvid", {spec.root / part});
  const auto labels = first_folder("camvid", {spec.root / (part + "annot"), spec.root / (part + "_labels")});
  add_folder_pairs(images, labels, spec.image_suffix, spec.label_suffix, source);
}

}  // namespace limbeck::datasets
