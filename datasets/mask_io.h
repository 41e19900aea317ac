// What this is: class-id masks from and to PNG files, and the translation of file ids to train ids (LabelMap).
// What it is not: pictures; those are converted freely, ids never (image_io.h).
// Read next: readers.h.
//
// Note [mask files]
//   A mask is a PNG whose grey values (1, 2, 4, 8 or 16 bits) or palette indices are the ids, exactly as stored: a
//   4-bit value 3 is id 3, not 3 * 17. The colours of a palette are for human eyes only. RGB files and JPEG files hold
//   colours, not ids, and reading them as ids trains on nonsense without any message, so they are errors that say how
//   to go on.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

enum class MaskFormat : std::uint8_t { kGrey, kPalette, kGrey16, kColour };

/// A mask file as it is, before any judgement. check_data() reports from it.
struct MaskFile {
  std::int64_t h = 0, w = 0;
  MaskFormat format = MaskFormat::kGrey;
  int bit_depth = 8;
  std::vector<std::uint8_t> ids;      ///< kGrey, kPalette: one per pixel
  std::vector<std::uint16_t> wide;    ///< kGrey16: one per pixel
  std::vector<std::uint8_t> colours;  ///< kColour: RGB per pixel (RGBA and grey+alpha too; alpha dropped)
  std::vector<Rgb> palette;           ///< kPalette
  /// kColour: every pixel has R = G = B, i.e. a grey mask that was saved as RGB.
  [[nodiscard]] bool colours_are_grey() const noexcept;
};

/// Reads a PNG mask without interpreting it. Throws DataError naming the file: missing, not PNG, damaged.
[[nodiscard]] MaskFile read_mask_file(const std::filesystem::path& path);

/// Turns a mask file into ids. `palette` is used by MaskDecode::kColour only; a colour that is in no entry becomes
/// kIgnoreId if it is black or white, otherwise it is an error.
/// Throws: DataError naming `path`, the first offending pixel, and the setting that would accept the file.
[[nodiscard]] Mask decode_mask(MaskFile file, const std::filesystem::path& path, MaskDecode decode = MaskDecode::kIndex,
                               const std::vector<Rgb>& palette = {});

/// read_mask_file and decode_mask in one.
[[nodiscard]] Mask read_mask(const std::filesystem::path& path, MaskDecode decode = MaskDecode::kIndex,
                             const std::vector<Rgb>& palette = {});

/// Writes an 8-bit palette PNG whose indices are the ids (kIgnoreId included). An empty palette means VOC colours.
void write_mask(const std::filesystem::path& path, const Mask& mask, const std::vector<Rgb>& palette = {});

/// Writes an 8-bit grey PNG whose values are the ids, the form that benchmark servers accept.
void write_grey_mask(const std::filesystem::path& path, const Mask& mask);

/// Table from the ids in the files to train ids. The table makes order effects of in-place renumbering impossible.
class LabelMap {
 public:
  /// Ids 0..classes-1 stay, `ignore_index` and 255 become kIgnoreId, all others are errors.
  explicit LabelMap(std::int64_t classes = 0, int ignore_index = 255);
  /// Id `from` becomes class `to` (255: ignore).
  void set(int from, int to);
  /// Every id that has no class yet becomes `to`.
  void set_others(int to);
  /// Forgets the identity part, so that only ids given to set() are known (255 stays ignored unless set).
  void clear();

  /// The map of a DatasetSpec's ignore_index, reduce_zero_label, label_map and label_map_other.
  /// Throws ConfigError if an entry is out of range.
  [[nodiscard]] static LabelMap from_spec(const DatasetSpec& spec, std::int64_t classes);

  /// Train id, or nothing if the id is not allowed.
  [[nodiscard]] std::optional<std::uint8_t> lookup(int id) const noexcept;
  /// Renumbers in place. Throws DataError with file, pixel, id and class count at the first id that is not allowed.
  void apply(Mask& mask, const std::filesystem::path& path) const;
  [[nodiscard]] std::int64_t classes() const noexcept { return classes_; }

 private:
  std::int64_t classes_;
  int ignore_index_;
  std::array<std::uint8_t, 256> to_{};
  std::array<std::uint8_t, 256> bad_{};  // 1: id is an error
};

/// What to do about an id that is not allowed, in one sentence; shared by LabelMap and check_data().
[[nodiscard]] std::string hint_for_bad_id(int id, std::int64_t classes);

}  // namespace limbeck::datasets
