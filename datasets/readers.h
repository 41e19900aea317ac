// What this is: data sets on disk. A Source is the list of (image, mask) files with the rules for their ids;
//   FileDataset reads them on demand.
// What it is not: the formats of single files (image_io.h, mask_io.h) or the scan of a whole set (check_data.h).
// Read next: reader_camvid.cpp (the shortest layout), then reader_folder.cpp (your own data).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/mask_io.h"

namespace limbeck::datasets {

/// One sample as files.
struct Pair {
  std::string name;
  std::filesystem::path image, label;
  std::size_t map = 0;  ///< index into Source::maps: Cityscapes may mix labelIds and labelTrainIds files
};

/// A data set before any picture is opened.
struct Source {
  std::string root;  ///< named in errors
  ClassInfo classes;
  std::vector<LabelMap> maps;
  MaskDecode decode = MaskDecode::kIndex;
  std::vector<Pair> pairs;           ///< complete pairs, in the order of the list or sorted by name
  std::vector<std::string> missing;  ///< one sentence per image or mask that is listed or expected but absent
};

/// The parts of `spec` in words: "train+val", "train and coarse train_extra".
[[nodiscard]] std::string split_text(const DatasetSpec& spec);

/// Finds the files of `spec` (any kind but scenes). Missing files are collected, not thrown, so that check_data() can
/// show all of them.
/// Throws: ConfigError for an unknown kind or missing class names; DataError when a folder or list is not there.
[[nodiscard]] Source open_source(const DatasetSpec& spec);

/// Reads samples from files. load() is thread safe.
class FileDataset final : public Dataset {
 public:
  /// Throws DataError when `source` has missing files or no pair at all. `where` names the data set in errors.
  FileDataset(Source source, std::string where);
  [[nodiscard]] std::size_t size() const override { return source_.pairs.size(); }
  [[nodiscard]] Sample load(std::size_t index) const override;
  [[nodiscard]] std::string name(std::size_t index) const override { return pair(index).name; }
  [[nodiscard]] const ClassInfo& classes() const override { return source_.classes; }
  [[nodiscard]] const Pair& pair(std::size_t index) const;

 private:
  Source source_;
  std::string where_;
};

// --- pieces that the readers share ------------------------------------------------------------------------------

/// The parts of a split: "train+val" -> {"train", "val"}. Throws ConfigError for an empty part.
[[nodiscard]] std::vector<std::string> split_parts(const std::string& split);

/// A line of a list file: its number and its fields. Empty lines and lines that start with '#' are left out.
/// Fields are separated by a tab if the line has one, else by commas, else by spaces.
struct ListLine {
  int number = 0;
  std::vector<std::string> fields;
};
[[nodiscard]] std::vector<ListLine> read_list(const std::filesystem::path& path);

/// Finds a listed file. Published lists often carry the folders of the machine they were made on
/// ("/SegNet/CamVid/train/x.png"), so leading components are dropped until `root / rest` exists. Images may also be
/// found under another picture suffix (.jpg instead of .png). Nothing if no candidate exists.
[[nodiscard]] std::optional<std::filesystem::path> resolve_listed(const std::filesystem::path& root,
                                                                  const std::string& listed, bool is_image);

/// Appends the pairs of a list file with two fields per line.
void add_listed_pairs(const std::filesystem::path& list, const std::filesystem::path& root, Source& source);

/// Appends the pairs of two folders: files whose names agree after their suffixes are taken off.
void add_folder_pairs(const std::filesystem::path& images, const std::filesystem::path& labels,
                      const std::string& image_suffix, const std::string& label_suffix, Source& source);

/// Appends the pair, or a sentence about the file that is not there.
void add_pair(Pair pair, Source& source);

/// The first of `candidates` that is a folder; DataError listing all of them otherwise.
[[nodiscard]] std::filesystem::path first_folder(const std::string& where,
                                                 const std::vector<std::filesystem::path>& candidates);

// One function per layout; `part` is one part of the split.
void scan_camvid(const DatasetSpec& spec, const std::string& part, Source& source);
void scan_voc(const DatasetSpec& spec, const std::string& part, Source& source);
void scan_cityscapes(const DatasetSpec& spec, const std::string& part, Source& source);
void scan_folder(const DatasetSpec& spec, const std::string& part, Source& source);
void scan_list(const DatasetSpec& spec, const std::string& part, Source& source);
void scan_pascal_context(const DatasetSpec& spec, const std::string& part, Source& source);  // 60 or 59 classes
void scan_coco_stuff(const DatasetSpec& spec, const std::string& part, Source& source);      // 164k or 10k
void scan_coco_voc(const DatasetSpec& spec, const std::string& part, Source& source);
void scan_ade20k(const DatasetSpec& spec, const std::string& part, Source& source);

}  // namespace limbeck::datasets
