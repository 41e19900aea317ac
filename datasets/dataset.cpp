#include "datasets/dataset.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "datasets/class_folder.h"
#include "datasets/image_io.h"
#include "datasets/readers.h"
#include "datasets/scenes.h"
#include "datasets/text.h"

namespace limbeck::datasets {

Image::Image(std::int64_t height, std::int64_t width, Rgb colour)
    : h(height), w(width), rgb(static_cast<std::size_t>(height * width * 3)) {
  for (std::size_t i = 0; i < rgb.size(); ++i) rgb[i] = colour[i % 3];
}

Mask::Mask(std::int64_t height, std::int64_t width, std::uint8_t id)
    : h(height), w(width), ids(static_cast<std::size_t>(height * width), id) {}

namespace {

using Scan = void (*)(const DatasetSpec&, const std::string&, Source&);

Scan scan_of(const std::string& kind) {
  if (kind == "camvid") return scan_camvid;
  if (kind == "voc2012") return scan_voc;
  if (kind == "cityscapes") return scan_cityscapes;
  if (kind == "folder") return scan_folder;
  if (kind == "list") return scan_list;
  if (kind == "pascal_context" || kind == "pascal_context59") return scan_pascal_context;
  if (kind == "coco_stuff" || kind == "coco_stuff10k") return scan_coco_stuff;
  if (kind == "coco_voc") return scan_coco_voc;
  if (kind == "ade20k") return scan_ade20k;
  return nullptr;
}

}  // namespace

const std::vector<std::string>& dataset_kinds() {
  static const std::vector<std::string> kinds{
      "camvid",     "voc2012",       "cityscapes", "pascal_context", "pascal_context59",
      "coco_stuff", "coco_stuff10k", "coco_voc",   "ade20k",         "image_folder",
      "folder",     "list",          "scenes"};
  return kinds;
}

namespace {

/// One data set may hold both kinds of masks of Cityscapes: the fine ones of `split`, the coarse ones of `coarse_split`.
void check_coarse(const DatasetSpec& spec) {
  if (spec.coarse_split.empty()) return;
  if (spec.kind != "cityscapes") {
    fail<ConfigError>("data", "coarse_split '{}': only cityscapes has coarse masks besides the fine ones, not {}",
                      spec.coarse_split, spec.kind);
  }
  const auto fine = split_parts(spec.split);
  for (const auto& part : split_parts(spec.coarse_split)) {
    if (std::find(fine.begin(), fine.end(), part) == fine.end()) continue;
    fail<ConfigError>("data", "part '{}' is in split '{}' and in coarse_split '{}'; a picture has one mask", part,
                      spec.split, spec.coarse_split);
  }
}

}  // namespace

std::string split_text(const DatasetSpec& spec) {
  return spec.coarse_split.empty() ? spec.split : fmt::format("{} and coarse {}", spec.split, spec.coarse_split);
}

Source open_source(const DatasetSpec& spec) {
  check_coarse(spec);
  const Scan scan = scan_of(spec.kind);
  if (scan == nullptr) {
    fail<ConfigError>("data", "kind '{}' is unknown, expected one of {}", spec.kind, join(dataset_kinds(), ", "));
  }
  if (spec.root.empty()) fail<ConfigError>("data", "kind '{}' needs `root`, the folder of the data set", spec.kind);
  if (!std::filesystem::is_directory(spec.root)) {
    fail<DataError>(spec.kind, "{}: is not a folder; check `root`", spec.root.string());
  }
  Source source;
  source.root = spec.root.string();
  source.decode = spec.mask_decode;
  for (const auto& part : split_parts(spec.split)) scan(spec, part, source);
  if (!spec.coarse_split.empty()) {
    DatasetSpec coarse = spec;
    coarse.label_dir = "gtCoarse";
    for (const auto& part : split_parts(spec.coarse_split)) scan(coarse, part, source);
  }
  if (spec.limit > 0 && source.pairs.size() > spec.limit) source.pairs.resize(spec.limit);
  return source;
}

FileDataset::FileDataset(Source source, std::string where) : source_(std::move(source)), where_(std::move(where)) {
  if (!source_.missing.empty()) {
    const std::size_t shown = std::min<std::size_t>(source_.missing.size(), 5);
    const std::vector<std::string> first(source_.missing.begin(),
                                         source_.missing.begin() + static_cast<std::ptrdiff_t>(shown));
    fail<DataError>(where_, "{} missing ({} complete): {}{}",
                    source_.missing.size() == 1 ? "1 file is" : fmt::format("{} files are", source_.missing.size()),
                    format_count(source_.pairs.size(), "pair"), join(first, "; "),
                    shown < source_.missing.size() ? "; ... (`limbeck check-data` shows all)" : "");
  }
  if (source_.pairs.empty())
    fail<DataError>(where_, "the list is empty: no image with a mask was found below {}", source_.root);
}

const Pair& FileDataset::pair(std::size_t index) const {
  LIMBECK_CHECK(index < source_.pairs.size(), where_, "sample {} of {}", index, source_.pairs.size());
  return source_.pairs[index];
}

Sample FileDataset::load(std::size_t index) const {
  const Pair& p = pair(index);
  Sample sample;
  sample.name = p.name;
  sample.image = read_image(p.image);
  sample.mask = read_mask(p.label, source_.decode, source_.classes.palette);
  if (sample.image.h != sample.mask.h || sample.image.w != sample.mask.w) {
    fail<DataError>(where_,
                    "image {} has {}x{} pixels (width x height), its mask {} has {}x{}; resize one with "
                    "nearest neighbour or pair the right files",
                    p.image.string(), sample.image.w, sample.image.h, p.label.string(), sample.mask.w, sample.mask.h);
  }
  // Colours were looked up in the palette, so they are classes already.
  if (source_.decode != MaskDecode::kColour) source_.maps[p.map].apply(sample.mask, p.label);
  return sample;
}

std::shared_ptr<const Dataset> make_dataset(const DatasetSpec& spec) {
  check_coarse(spec);
  if (spec.kind == "scenes") return make_scenes(spec);
  if (spec.kind == "image_folder") return std::make_shared<ClassFolderDataset>(spec);
  return std::make_shared<FileDataset>(open_source(spec), fmt::format("{} {}", spec.kind, split_text(spec)));
}

}  // namespace limbeck::datasets
