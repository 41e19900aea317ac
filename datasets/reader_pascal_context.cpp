// Pascal Context: VOC2010/{JPEGImages,SegmentationClassContext}, ImageSets/SegmentationContext/{train,val}.txt.
// The masks hold 0 = background and 1..59. With 60 classes background is a class; with 59 it is not labelled.
#include "core/error.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {
namespace {

namespace fs = std::filesystem;

fs::path find_root(const DatasetSpec& spec) {
  for (const auto& candidate : {spec.root, spec.root / "VOC2010", spec.root / "VOCdevkit" / "VOC2010"}) {
    if (fs::is_directory(candidate / "SegmentationClassContext")) return candidate;
  }
  fail<DataError>(
      spec.kind,
      "{}: no folder SegmentationClassContext here, in VOC2010/ or in VOCdevkit/VOC2010/; check `root` (the "
      "MATLAB masks of the release have to be converted to PNG with the ids 0..59 first)",
      spec.root.string());
}

}  // namespace

void scan_pascal_context(const DatasetSpec& spec, const std::string& part, Source& source) {
  const bool with_background = spec.kind == "pascal_context";
  source.classes = pascal_context_classes(with_background);
  LabelMap map(source.classes.count());
  if (!with_background) {
    map.clear();
    map.set(0, kIgnoreId);
    for (int k = 0; k < 59; ++k) map.set(k + 1, k);
  }
  source.maps = {map};

  const fs::path root = find_root(spec);
  const fs::path list =
      spec.list.empty() ? root / "ImageSets" / "SegmentationContext" / (part + ".txt") : fs::path(root / spec.list);
  if (!fs::is_regular_file(list)) {
    fail<DataError>(spec.kind, "{}: the list of split '{}' is missing; check the name of the split", list.string(),
                    part);
  }
  for (const auto& line : read_list(list)) {
    const std::string& id = line.fields[0];
    add_pair({id, root / "JPEGImages" / (id + ".jpg"), root / "SegmentationClassContext" / (id + ".png")}, source);
  }
}

}  // namespace limbeck::datasets
