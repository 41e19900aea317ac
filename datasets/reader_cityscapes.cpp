// Cityscapes: leftImg8bit/{split}/CITY/*_leftImg8bit.png with gtFine/{split}/CITY/*_gtFine_labelIds.png.
// The masks hold 34 label ids; the 19 train ids are looked up while reading, so no conversion script is needed.
// Files *_labelTrainIds.png are taken where the labelIds file is absent.
#include "core/error.h"
#include "datasets/image_io.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {
namespace {

namespace fs = std::filesystem;

LabelMap label_id_map() {
  LabelMap map(19);
  map.clear();
  const auto& table = cityscapes_train_ids();
  for (std::size_t id = 0; id < table.size(); ++id) map.set(static_cast<int>(id), table[id]);
  return map;
}

}  // namespace

void scan_cityscapes(const DatasetSpec& spec, const std::string& part, Source& source) {
  source.classes = cityscapes_classes();
  source.maps = {label_id_map(), LabelMap(19)};

  const std::string ground_truth = spec.label_dir.empty() ? "gtFine" : spec.label_dir;  // gtFine or gtCoarse
  const std::string image_suffix = spec.image_suffix.empty() ? "_leftImg8bit.png" : spec.image_suffix;
  const fs::path images = first_folder("cityscapes", {spec.root / "leftImg8bit" / part});
  const fs::path labels = first_folder("cityscapes", {spec.root / ground_truth / part});
  const fs::path last = fs::path(ground_truth).filename();
  for (const auto& image : list_images(images)) {
    const std::string file = image.filename().string();
    if (!file.ends_with(image_suffix)) continue;
    const std::string name = file.substr(0, file.size() - image_suffix.size());
    const fs::path folder = labels / image.parent_path().lexically_relative(images);
    const fs::path label_ids = folder / fmt::format("{}_{}_labelIds.png", name, last.string());
    const fs::path train_ids = folder / fmt::format("{}_{}_labelTrainIds.png", name, last.string());
    const bool only_train_ids = !fs::is_regular_file(label_ids) && fs::is_regular_file(train_ids);
    add_pair({name, image, only_train_ids ? train_ids : label_ids, only_train_ids ? std::size_t{1} : 0}, source);
  }
}

}  // namespace limbeck::datasets
