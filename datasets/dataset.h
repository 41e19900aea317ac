// What this is: the plain types of the data side (Image, Mask, Sample), the Dataset interface and make_dataset().
// What it is not: file formats (image_io.h, mask_io.h), augmentation (transforms.h) or batches (loader.h).
// Read next: readers.h (data sets on disk), scenes.h (the generated one), then loader.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace limbeck::datasets {

/// The one id that means "no label here" inside limbeck. Files may use another; the readers translate.
inline constexpr std::uint8_t kIgnoreId = 255;

using Rgb = std::array<std::uint8_t, 3>;

/// An RGB picture, 8 bits per channel, row by row, channels interleaved: rgb[(y * w + x) * 3 + c].
struct Image {
  std::int64_t h = 0, w = 0;
  std::vector<std::uint8_t> rgb;

  Image() = default;
  Image(std::int64_t height, std::int64_t width, Rgb colour = {0, 0, 0});
  [[nodiscard]] std::uint8_t* at(std::int64_t y, std::int64_t x) noexcept { return rgb.data() + (y * w + x) * 3; }
  [[nodiscard]] const std::uint8_t* at(std::int64_t y, std::int64_t x) const noexcept {
    return rgb.data() + (y * w + x) * 3;
  }
  friend bool operator==(const Image&, const Image&) = default;
};

/// One class id per pixel, row by row: ids[y * w + x]. Ids are train ids 0..K-1, or kIgnoreId.
struct Mask {
  std::int64_t h = 0, w = 0;
  std::vector<std::uint8_t> ids;

  Mask() = default;
  Mask(std::int64_t height, std::int64_t width, std::uint8_t id = kIgnoreId);
  [[nodiscard]] std::uint8_t& at(std::int64_t y, std::int64_t x) noexcept {
    return ids[static_cast<std::size_t>(y * w + x)];
  }
  [[nodiscard]] std::uint8_t at(std::int64_t y, std::int64_t x) const noexcept {
    return ids[static_cast<std::size_t>(y * w + x)];
  }
  friend bool operator==(const Mask&, const Mask&) = default;
};

/// A picture with its labels: a mask of the same size, or one class for the whole picture.
struct Sample {
  Image image;
  Mask mask;  ///< empty where the whole picture has one class
  std::string name;
  std::int64_t label = -1;  ///< class of the whole picture; -1 where the mask says it pixel by pixel
};

/// Names and display colours of the K classes; entry k belongs to train id k.
struct ClassInfo {
  std::vector<std::string> names;
  std::vector<Rgb> palette;
  [[nodiscard]] std::int64_t count() const noexcept { return static_cast<std::int64_t>(names.size()); }
};

/// What the labels of a data set belong to.
enum class Target : std::uint8_t {
  kPixels,  ///< segmentation: Sample::mask
  kImage    ///< classification: Sample::label
};

/// A fixed list of samples. load() may be called from many threads at once.
class Dataset {
 public:
  virtual ~Dataset() = default;
  [[nodiscard]] virtual std::size_t size() const = 0;
  /// Reads sample `index`. Throws DataError naming the file when it is missing, damaged or has ids out of range.
  [[nodiscard]] virtual Sample load(std::size_t index) const = 0;
  [[nodiscard]] virtual std::string name(std::size_t index) const = 0;
  [[nodiscard]] virtual const ClassInfo& classes() const = 0;
  [[nodiscard]] virtual Target target() const { return Target::kPixels; }
};

/// How the pixels of a mask file become ids.
enum class MaskDecode : std::uint8_t {
  kIndex,         ///< grey value or palette index; RGB files are an error
  kFirstChannel,  ///< RGB file whose red channel is the id (a grey mask that was saved as RGB)
  kColour         ///< RGB file painted with the display colours of the palette
};

/// Everything make_dataset() needs. The keys of the `data:` block of a configuration are named after the fields
/// (`label_map_other` is the key `other` inside `label_map`).
struct DatasetSpec {
  std::string kind = "camvid";  ///< one of dataset_kinds()
  std::filesystem::path root;   ///< folder of the data set (not used by scenes)
  std::string split = "train";  ///< name of the part; parts are joined with '+', e.g. "train+val"
  std::size_t limit = 0;        ///< keep only the first samples; 0 keeps all

  /// cityscapes: parts that are added with the masks of gtCoarse, e.g. "train_extra"; none of them may be in `split`.
  std::string coarse_split;

  // folder and list: what the files are called
  std::string list;          ///< list file (relative to root or absolute); list kind default "{split}.txt"
  std::string image_dir;     ///< folder of the images, may contain "{split}"; empty: found by the usual names
  std::string label_dir;     ///< folder of the masks; cityscapes: "gtFine" or "gtCoarse"
  std::string image_suffix;  ///< end of image file names that is not part of the sample name, e.g. "_img.jpg"
  std::string label_suffix;  ///< the same for masks, e.g. "_gt.png"

  // folder and list: what the ids mean
  std::vector<std::string> classes;  ///< class names in id order; empty: read from `classes.txt` in root
  std::vector<Rgb> palette;          ///< display colours; empty: VOC colours
  std::int64_t num_classes = 0;      ///< alternative to `classes` when names do not matter
  int ignore_index = 255;            ///< id in the files that means "not labelled"
  bool reduce_zero_label = false;    ///< id 0 is not labelled and id k is class k-1 (ADE20K)
  std::map<int, int> label_map;      ///< id in the files -> class (255: ignore). When set, ids not listed are errors
  int label_map_other = -1;          ///< class for ids that `label_map` does not list; -1: they are errors
  MaskDecode mask_decode = MaskDecode::kIndex;

  // scenes
  std::uint64_t seed = 0;  ///< seed of the generated data set (not of the training run)
  std::int64_t height = 96, width = 128;
  std::size_t samples = 0;  ///< number of generated scenes; 0: 2000 for train, 200 otherwise
};

/// Opens a data set. File lists are read here, pictures later.
/// Throws: ConfigError for an unknown kind or missing class names; DataError for a missing folder, an empty list, or
///   missing files (one error that names the first ones and the count).
[[nodiscard]] std::shared_ptr<const Dataset> make_dataset(const DatasetSpec& spec);

/// The kinds that make_dataset() knows.
[[nodiscard]] const std::vector<std::string>& dataset_kinds();

}  // namespace limbeck::datasets
