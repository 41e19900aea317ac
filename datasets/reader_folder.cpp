// Your own data: two folders with equal file names (kind `folder`), or a list file with `image mask` per line (`list`).
// The class names come from the configuration or from classes.txt; the meaning of the ids from ignore_index,
// reduce_zero_label, label_map and mask_decode.

#include "core/error.h"
#include "core/parse_number.h"
#include "datasets/image_io.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"
#include "datasets/text.h"

namespace limbeck::datasets {
namespace {

namespace fs = std::filesystem;

/// classes.txt: one class per line, `name` or `name r g b`. Names may contain spaces; fields may be split by commas.
ClassInfo read_classes(const fs::path& path) {
  ClassInfo info;
  for (const auto& line : read_list(path)) {
    std::vector<std::string> fields = line.fields;
    std::vector<int> numbers;
    while (fields.size() > 1 && numbers.size() < 3) {
      const auto value = parse_number<int>(fields.back());
      if (!value) break;
      if (*value < 0 || *value > 255) {
        fail<DataError>("classes", "{}:{}: colour value {} is not in 0..255", path.string(), line.number, *value);
      }
      numbers.insert(numbers.begin(), *value);
      fields.pop_back();
    }
    if (!numbers.empty() && numbers.size() != 3) {
      fail<DataError>("classes", "{}:{}: {} colour values, expected `name` or `name r g b`", path.string(), line.number,
                      numbers.size());
    }
    const std::size_t k = info.names.size();
    info.names.push_back(join(fields, " "));
    info.palette.push_back(numbers.empty()
                               ? voc_colours(k + 1)[k]
                               : Rgb{static_cast<std::uint8_t>(numbers[0]), static_cast<std::uint8_t>(numbers[1]),
                                     static_cast<std::uint8_t>(numbers[2])});
  }
  if (info.names.empty()) fail<DataError>("classes", "{}: lists no class", path.string());
  return info;
}

ClassInfo find_classes(const DatasetSpec& spec) {
  ClassInfo info;
  if (!spec.classes.empty()) {
    info.names = spec.classes;
    if (spec.num_classes != 0 && spec.num_classes != info.count()) {
      fail<ConfigError>("data", "num_classes is {} but `classes` has {} names; leave one out", spec.num_classes,
                        info.count());
    }
    info.palette = voc_colours(info.names.size());
  } else if (fs::is_regular_file(spec.root / "classes.txt")) {
    info = read_classes(spec.root / "classes.txt");
    if (spec.num_classes != 0 && spec.num_classes != info.count()) {
      fail<ConfigError>("data", "num_classes is {} but {} lists {} classes", spec.num_classes,
                        (spec.root / "classes.txt").string(), info.count());
    }
  } else if (spec.num_classes > 0) {
    info = numbered_classes(spec.num_classes);
  } else {
    fail<ConfigError>("data",
                      "kind '{}' needs class names: set `classes: [road, sky, ...]` or `num_classes: N`, or "
                      "put one name per line into {}",
                      spec.kind, (spec.root / "classes.txt").string());
  }
  if (!spec.palette.empty()) {
    if (static_cast<std::int64_t>(spec.palette.size()) != info.count()) {
      fail<ConfigError>("data", "`palette` has {} colours for {} classes", spec.palette.size(), info.count());
    }
    info.palette = spec.palette;
  }
  return info;
}

void set_classes(const DatasetSpec& spec, Source& source) {
  source.classes = find_classes(spec);
  source.maps = {LabelMap::from_spec(spec, source.classes.count())};
}

/// `folder` may contain "{split}"; if not, and a sub-folder of that name exists, it is entered.
fs::path with_split(const fs::path& root, std::string folder, const std::string& part) {
  constexpr std::string_view kMark = "{split}";
  if (const auto at = folder.find(kMark); at != std::string::npos) return root / folder.replace(at, kMark.size(), part);
  const fs::path plain = root / folder;
  return fs::is_directory(plain / part) ? plain / part : plain;
}

fs::path find_folder(const DatasetSpec& spec, const std::string& given, const std::string& part,
                     const std::vector<std::string>& usual) {
  if (!given.empty()) return first_folder(spec.kind, {with_split(spec.root, given, part)});
  std::vector<fs::path> candidates;
  for (const auto& name : usual) candidates.push_back(spec.root / name / part);  // images/train
  for (const auto& name : usual) candidates.push_back(spec.root / part / name);  // train/images
  for (const auto& name : usual) candidates.push_back(spec.root / name);         // images, all in one folder
  return first_folder(spec.kind, candidates);
}

/// The list that selects samples when all splits share a folder.
std::optional<fs::path> find_split_list(const DatasetSpec& spec, const std::string& part) {
  if (!spec.list.empty()) {
    for (const auto& c : {fs::path(spec.list), spec.root / spec.list}) {
      if (fs::is_regular_file(c)) return c;
    }
    fail<DataError>(spec.kind, "{}: the list file is missing; check `list`", (spec.root / spec.list).string());
  }
  for (const auto& c : {spec.root / (part + ".txt"), spec.root / "splits" / (part + ".txt")}) {
    if (fs::is_regular_file(c)) return c;
  }
  return std::nullopt;
}

}  // namespace

void scan_folder(const DatasetSpec& spec, const std::string& part, Source& source) {
  set_classes(spec, source);
  const auto images = find_folder(spec, spec.image_dir, part, {"images", "img_dir", "imgs", "image"});
  const auto labels =
      find_folder(spec, spec.label_dir, part, {"labels", "ann_dir", "annotations", "masks", "gts", "label"});
  const auto list = find_split_list(spec, part);
  if (!list) {
    // Without this check `train` and `val` would silently be the same files.
    const bool has_part = images.filename() == part || images.parent_path().filename() == part;
    if (!has_part && spec.image_dir.empty() && part != "all") {
      fail<DataError>(spec.kind, "{} has no folder '{}' and there is no list {}; write the list, or use split 'all'",
                      images.string(), part, (spec.root / (part + ".txt")).string());
    }
    add_folder_pairs(images, labels, spec.image_suffix, spec.label_suffix, source);
    return;
  }
  const std::string image_suffix = spec.image_suffix.empty() ? ".jpg" : spec.image_suffix;
  const std::string label_suffix = spec.label_suffix.empty() ? ".png" : spec.label_suffix;
  for (const auto& line : read_list(*list)) {
    const fs::path id(line.fields[0]);
    const std::string stem = has_image_suffix(id) ? id.stem().string() : id.generic_string();
    const fs::path image = images / (stem + image_suffix);
    add_pair({stem, resolve_listed(images, stem + image_suffix, true).value_or(image), labels / (stem + label_suffix)},
             source);
  }
}

void scan_list(const DatasetSpec& spec, const std::string& part, Source& source) {
  set_classes(spec, source);
  const std::string name = spec.list.empty() ? part + ".txt" : spec.list;
  for (const auto& candidate : {fs::path(name), spec.root / name}) {
    if (fs::is_regular_file(candidate)) {
      add_listed_pairs(candidate, spec.root, source);
      return;
    }
  }
  fail<DataError>("list", "{}: the list file is missing; check `root`, `list` or the name of the split",
                  (spec.root / name).string());
}

}  // namespace limbeck::datasets
