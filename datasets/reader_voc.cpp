// PASCAL VOC 2012: JPEGImages/, SegmentationClass/ (palette PNG, 255 = void border), ImageSets/Segmentation/*.txt.
// "trainaug" is the enlarged training set of 10 582 images; its masks are in SegmentationClassAug/.
#include "core/error.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {
namespace {

namespace fs = std::filesystem;

fs::path find_root(const fs::path& root) {
  for (const auto& candidate : {root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"}) {
    if (fs::is_directory(candidate / "JPEGImages")) return candidate;
  }
  fail<DataError>("voc2012", "{}: no folder JPEGImages here, in VOC2012/ or in VOCdevkit/VOC2012/; check `root`",
                  root.string());
}

fs::path find_list(const fs::path& root, const DatasetSpec& spec, const std::string& part) {
  const fs::path folder = root / "ImageSets" / "Segmentation";
  std::vector<fs::path> candidates;
  if (!spec.list.empty()) {
    candidates = {fs::path(spec.list), root / spec.list, folder / spec.list};
  } else {
    candidates = {folder / (part + ".txt")};
    if (part == "trainaug") candidates.push_back(folder / "train_aug.txt");
  }
  std::string tried;
  for (const auto& c : candidates) {
    if (fs::is_regular_file(c)) return c;
    tried += (tried.empty() ? "" : ", ") + c.string();
  }
  fail<DataError>("voc2012", "no list file for split '{}', looked for {}", part, tried);
}

}  // namespace

void scan_voc(const DatasetSpec& spec, const std::string& part_in, Source& source) {
  const std::string part = part_in == "train_aug" ? "trainaug" : part_in;
  source.classes = voc_classes();
  source.maps = {LabelMap(21)};

  const fs::path root = find_root(spec.root);
  const fs::path list = find_list(root, spec, part);
  const bool augmented = part == "trainaug";
  const fs::path labels = root / (augmented ? "SegmentationClassAug" : "SegmentationClass");
  if (!fs::is_directory(labels)) {
    fail<DataError>("voc2012", "{}: the folder is missing{}", labels.string(),
                    augmented ? "; trainaug needs the additional masks as PNG, or use split 'train'" : "");
  }
  for (const auto& line : read_list(list)) {
    if (line.fields.size() == 1) {
      const std::string& id = line.fields[0];
      add_pair({id, root / "JPEGImages" / (id + ".jpg"), labels / (id + ".png")}, source);
      continue;
    }
    if (line.fields.size() != 2) {
      fail<DataError>("voc2012", "{}:{}: {} fields, expected an image id or `image mask`", list.string(), line.number,
                      line.fields.size());
    }
    // "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png"
    const auto image = resolve_listed(root, line.fields[0], true);
    const auto label = resolve_listed(root, line.fields[1], false);
    add_pair({fs::path(line.fields[0]).stem().string(), image.value_or(root / fs::path(line.fields[0]).relative_path()),
              label.value_or(root / fs::path(line.fields[1]).relative_path())},
             source);
  }
}

}  // namespace limbeck::datasets
