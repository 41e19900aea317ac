// What this is: ClassFolderDataset, pictures sorted into one folder per class (kind `image_folder`): classification.
// What it is not: masks; data sets with a label per pixel are in readers.h.
// Read next: loader.h.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// root/train/CLASS/*.jpg, root/val/CLASS/*.jpg: the layout of ImageNet after its validation set is sorted.
/// The classes are the folders of root/train in the order of their names (`classes` of the spec replaces them), so that
/// a class has the same number in every split. load() is thread safe.
class ClassFolderDataset final : public Dataset {
 public:
  /// Throws: DataError for a missing or empty folder, for pictures outside of class folders, and for a folder that is
  ///   none of the classes.
  explicit ClassFolderDataset(const DatasetSpec& spec);

  [[nodiscard]] std::size_t size() const override { return entries_.size(); }
  [[nodiscard]] Sample load(std::size_t index) const override;
  [[nodiscard]] std::string name(std::size_t index) const override;
  [[nodiscard]] const ClassInfo& classes() const override { return classes_; }
  [[nodiscard]] Target target() const override { return Target::kImage; }

 private:
  struct Entry {
    std::filesystem::path file;
    std::int64_t label = 0;
  };
  void scan(const std::filesystem::path& folder);
  [[nodiscard]] const Entry& entry(std::size_t index) const;

  ClassInfo classes_;
  std::vector<Entry> entries_;
};

}  // namespace limbeck::datasets
