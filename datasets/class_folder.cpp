#include "datasets/class_folder.h"

#include <algorithm>

#include "core/error.h"
#include "datasets/image_io.h"
#include "datasets/palettes.h"
#include "datasets/readers.h"

namespace limbeck::datasets {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "image_folder";

/// Names of the folders inside `folder`, sorted.
std::vector<std::string> folder_names(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

ClassFolderDataset::ClassFolderDataset(const DatasetSpec& spec) {
  if (spec.root.empty()) fail<ConfigError>("data", "kind '{}' needs `root`, the folder of the data set", spec.kind);
  const auto parts = split_parts(spec.split);
  std::vector<fs::path> folders;
  for (const auto& part : parts) folders.push_back(first_folder(kKind, {spec.root / part}));
  const fs::path train = spec.root / "train";
  classes_.names = !spec.classes.empty()     ? spec.classes
                   : fs::is_directory(train) ? folder_names(train)
                                             : folder_names(folders.front());
  if (classes_.names.empty()) {
    fail<DataError>(kKind, "{}: no folder inside, expected one per class",
                    (fs::is_directory(train) ? train : folders.front()).string());
  }
  classes_.palette = voc_colours(classes_.names.size());
  for (const auto& folder : folders) scan(folder);
  if (entries_.empty())
    fail<DataError>(kKind, "{}: no .png, .jpg or .jpeg file in its class folders", folders.front().string());
  if (spec.limit > 0 && entries_.size() > spec.limit) {
    // The first samples would all be of one class; evenly spread ones are of all.
    std::vector<Entry> chosen;
    for (std::size_t i = 0; i < spec.limit; ++i) chosen.push_back(entries_[i * entries_.size() / spec.limit]);
    entries_ = std::move(chosen);
  }
}

void ClassFolderDataset::scan(const fs::path& folder) {
  for (const auto& item : fs::directory_iterator(folder)) {
    if (item.is_regular_file() && has_image_suffix(item.path())) {
      fail<DataError>(kKind, "{}: lies outside of the class folders, so it has no class; move it into one",
                      item.path().string());
    }
  }
  for (const auto& name : folder_names(folder)) {
    const auto found = std::find(classes_.names.begin(), classes_.names.end(), name);
    if (found == classes_.names.end()) {
      fail<DataError>(kKind, "{}: the folder is none of the {} classes ({}, ...); every split needs the same names",
                      (folder / name).string(), classes_.names.size(), classes_.names.front());
    }
    for (auto& file : list_images(folder / name)) {
      entries_.push_back({std::move(file), static_cast<std::int64_t>(found - classes_.names.begin())});
    }
  }
}

const ClassFolderDataset::Entry& ClassFolderDataset::entry(std::size_t index) const {
  LIMBECK_CHECK(index < entries_.size(), kKind, "sample {} of {}", index, entries_.size());
  return entries_[index];
}

std::string ClassFolderDataset::name(std::size_t index) const {
  const fs::path& file = entry(index).file;
  return (file.parent_path().filename() / file.stem()).generic_string();
}

Sample ClassFolderDataset::load(std::size_t index) const {
  Sample sample;
  sample.name = name(index);
  sample.image = read_image(entry(index).file);
  sample.label = entry(index).label;
  return sample;
}

}  // namespace limbeck::datasets
