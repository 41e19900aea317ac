#include "datasets/mask_io.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "core/error.h"
#include "datasets/palettes.h"
#include "datasets/png_codec.h"

namespace limbeck::datasets {
namespace {

constexpr const char* kColourHint =
    "ids are expected as grey values or palette indices; set `mask_decode: colour` to look colours up in `palette`, "
    "or convert the masks to 8-bit index PNG";
constexpr const char* kGreyRgbHint =
    "it is a grey mask that was saved as RGB; set `mask_decode: first_channel`, or re-save it as 8-bit grey PNG";

/// Samples of 1, 2, 4 or 8 bits, most significant first, rows padded to whole bytes -> one byte per pixel.
std::vector<std::uint8_t> unpack(const PngPicture& png) {
  if (png.bit_depth == 8) return png.bytes;
  const auto depth = static_cast<unsigned>(png.bit_depth);
  const unsigned per_byte = 8U / depth;
  const unsigned low_bits = (1U << depth) - 1U;
  std::vector<std::uint8_t> out(static_cast<std::size_t>(png.h * png.w));
  std::size_t o = 0;
  for (std::int64_t y = 0; y < png.h; ++y) {
    const std::uint8_t* row = png.bytes.data() + static_cast<std::size_t>(y) * png.row_bytes();
    for (unsigned x = 0; x < static_cast<unsigned>(png.w); ++x) {
      const unsigned shift = 8U - depth * (x % per_byte + 1U);
      out[o++] = static_cast<std::uint8_t>((row[x / per_byte] >> shift) & low_bits);
    }
  }
  return out;
}

std::pair<std::int64_t, std::int64_t> position(std::size_t i, std::int64_t w) {
  return {static_cast<std::int64_t>(i) % w, static_cast<std::int64_t>(i) / w};
}

Mask make_mask(std::int64_t h, std::int64_t w, std::vector<std::uint8_t> ids) {
  Mask mask;
  mask.h = h;
  mask.w = w;
  mask.ids = std::move(ids);
  return mask;
}

Mask narrow(const MaskFile& file, const std::filesystem::path& path) {
  std::vector<std::uint8_t> ids(file.wide.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const unsigned value = file.wide[i];
    if (value > 255U) {
      const auto [x, y] = position(i, file.w);
      fail<DataError>("mask", "{}: 16-bit mask with value {} at pixel x={} y={}, expected ids up to 255; {}",
                      path.string(), value, x, y,
                      value >= 1000U ? "values of 1000 and more look like instance ids (class * 1000 + instance) or "
                                       "depths: use the label id files"
                                     : "convert it to 8-bit ids");
    }
    ids[i] = static_cast<std::uint8_t>(value);
  }
  return make_mask(file.h, file.w, std::move(ids));
}

std::uint32_t pack(Rgb c) noexcept { return (std::uint32_t{c[0]} << 16U) | (std::uint32_t{c[1]} << 8U) | c[2]; }

Mask ids_from_colours(const MaskFile& file, const std::filesystem::path& path, const std::vector<Rgb>& palette) {
  std::unordered_map<std::uint32_t, std::uint8_t> table{{pack({0, 0, 0}), kIgnoreId},
                                                        {pack({255, 255, 255}), kIgnoreId}};
  for (std::size_t k = 0; k < palette.size() && k < 255; ++k) table[pack(palette[k])] = static_cast<std::uint8_t>(k);
  std::vector<std::uint8_t> ids(static_cast<std::size_t>(file.h * file.w));
  std::uint32_t last_colour = 0x01000000U;  // no colour has this value
  std::uint8_t last_id = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::uint8_t* p = file.colours.data() + 3 * i;
    const std::uint32_t colour = pack({p[0], p[1], p[2]});
    if (colour != last_colour) {
      const auto found = table.find(colour);
      if (found == table.end()) {
        const auto [x, y] = position(i, file.w);
        fail<DataError>("mask",
                        "{}: colour {},{},{} at pixel x={} y={} is in no entry of the palette ({} colours); "
                        "add it to `palette`, or re-save a mask that was smoothed or compressed",
                        path.string(), p[0], p[1], p[2], x, y, palette.size());
      }
      last_colour = colour;
      last_id = found->second;
    }
    ids[i] = last_id;
  }
  return make_mask(file.h, file.w, std::move(ids));
}

}  // namespace

bool MaskFile::colours_are_grey() const noexcept {
  for (std::size_t i = 0; i + 2 < colours.size(); i += 3) {
    if (colours[i] != colours[i + 1] || colours[i] != colours[i + 2]) return false;
  }
  return !colours.empty();
}

MaskFile read_mask_file(const std::filesystem::path& path) {
  const std::string content = read_data_file(path);
  const auto bytes = bytes_of(content);
  const std::string where = path.string();
  if (bytes.size() > 2 && bytes[0] == 0xFF && bytes[1] == 0xD8) {
    fail<DataError>("mask", "{}: is a JPEG; lossy compression changes ids, save masks as PNG", where);
  }
  if (!is_png(bytes)) fail<DataError>("mask", "{}: is no PNG; save masks as 8-bit index PNG", where);
  PngPicture png = png_decode_raw(bytes, where);
  MaskFile file;
  file.h = png.h;
  file.w = png.w;
  file.bit_depth = png.bit_depth;
  file.palette = png.palette;
  switch (png.colour) {
    case PngColour::kPalette:
      file.format = MaskFormat::kPalette;
      file.ids = unpack(png);
      break;
    case PngColour::kGrey:
      if (png.bit_depth == 16) {
        file.format = MaskFormat::kGrey16;
        file.wide.resize(static_cast<std::size_t>(png.h * png.w));
        std::memcpy(file.wide.data(), png.bytes.data(), file.wide.size() * 2);
      } else {
        file.format = MaskFormat::kGrey;
        file.ids = unpack(png);
      }
      break;
    case PngColour::kRgb:
    case PngColour::kRgba:
    case PngColour::kGreyAlpha:
      file.format = MaskFormat::kColour;
      file.colours = png_decode_rgb(bytes, where).bytes;
      break;
  }
  return file;
}

Mask decode_mask(MaskFile file, const std::filesystem::path& path, MaskDecode decode, const std::vector<Rgb>& palette) {
  if (file.format == MaskFormat::kColour) {
    if (decode == MaskDecode::kColour) return ids_from_colours(file, path, palette);
    const bool grey = file.colours_are_grey();
    if (decode == MaskDecode::kIndex || !grey) {
      fail<DataError>("mask", "{}: is an RGB picture; {}", path.string(), grey ? kGreyRgbHint : kColourHint);
    }
    std::vector<std::uint8_t> ids(static_cast<std::size_t>(file.h * file.w));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = file.colours[3 * i];
    return make_mask(file.h, file.w, std::move(ids));
  }
  if (file.format == MaskFormat::kGrey16) return narrow(file, path);
  return make_mask(file.h, file.w, std::move(file.ids));
}

Mask read_mask(const std::filesystem::path& path, MaskDecode decode, const std::vector<Rgb>& palette) {
  return decode_mask(read_mask_file(path), path, decode, palette);
}

void write_mask(const std::filesystem::path& path, const Mask& mask, const std::vector<Rgb>& palette) {
  std::vector<Rgb> colours = voc_colours(256);
  std::copy_n(palette.begin(), std::min<std::size_t>(palette.size(), 255), colours.begin());
  write_data_file(path, png_encode({mask.h, mask.w, PngColour::kPalette, 8, colours, mask.ids}, path.string()));
}

void write_grey_mask(const std::filesystem::path& path, const Mask& mask) {
  write_data_file(path, png_encode({mask.h, mask.w, PngColour::kGrey, 8, {}, mask.ids}, path.string()));
}

// --- LabelMap -------------------------------------------------------------------------------------------------------

LabelMap::LabelMap(std::int64_t classes, int ignore_index) : classes_(classes), ignore_index_(ignore_index) {
  if (classes < 0 || classes > 255) {
    fail<ConfigError>("data", "{} classes, expected 1..255 (ids are 8 bits and 255 means ignore)", classes);
  }
  clear();
  for (int k = 0; k < classes; ++k) set(k, k);
  if (ignore_index >= 0 && ignore_index <= 255) set(ignore_index, kIgnoreId);
}

void LabelMap::clear() {
  to_.fill(kIgnoreId);
  bad_.fill(1);
  bad_[kIgnoreId] = 0;
}

void LabelMap::set(int from, int to) {
  if (from < 0 || from > 255) fail<ConfigError>("data", "label_map: id {} is not in 0..255", from);
  if (to != kIgnoreId && (to < 0 || to >= classes_)) {
    fail<ConfigError>("data", "label_map: id {} goes to class {}, expected 0..{} or 255 (ignore)", from, to,
                      classes_ - 1);
  }
  to_[static_cast<std::size_t>(from)] = static_cast<std::uint8_t>(to);
  bad_[static_cast<std::size_t>(from)] = 0;
}

void LabelMap::set_others(int to) {
  for (int id = 0; id < 256; ++id) {
    if (bad_[static_cast<std::size_t>(id)] != 0) set(id, to);
  }
}

LabelMap LabelMap::from_spec(const DatasetSpec& spec, std::int64_t classes) {
  LabelMap map(classes, spec.ignore_index);
  if (spec.reduce_zero_label) {
    if (!spec.label_map.empty()) fail<ConfigError>("data", "reduce_zero_label and label_map exclude each other");
    map.clear();
    map.set(0, kIgnoreId);
    for (int k = 0; k < classes; ++k) map.set(k + 1, k);
    if (classes == 255) map.set(kIgnoreId, 254);
  }
  if (!spec.label_map.empty()) {
    map.clear();
    if (spec.ignore_index >= 0 && spec.ignore_index <= 255) map.set(spec.ignore_index, kIgnoreId);
    for (const auto& [from, to] : spec.label_map) map.set(from, to);
  }
  if (spec.label_map_other >= 0) map.set_others(spec.label_map_other);
  return map;
}

std::optional<std::uint8_t> LabelMap::lookup(int id) const noexcept {
  if (id < 0 || id > 255 || bad_[static_cast<std::size_t>(id)] != 0) return std::nullopt;
  return to_[static_cast<std::size_t>(id)];
}

std::string hint_for_bad_id(int id, std::int64_t classes) {
  if (id == classes) {
    return fmt::format(
        "if ids count from 1 set `reduce_zero_label: true`, if {} means unlabelled set "
        "`ignore_index: {}`, else raise the number of classes",
        id, id);
  }
  if (id >= 250) {
    return fmt::format("{} looks like a second void id: set `ignore_index: {}` or add it to `label_map` as 255", id,
                       id);
  }
  if (classes == 19 && id <= 33) {
    return "these look like Cityscapes labelIds, not trainIds: use `kind: cityscapes`, which maps them";
  }
  return "add it to `label_map`, or correct the number of classes";
}

void LabelMap::apply(Mask& mask, const std::filesystem::path& path) const {
  unsigned any_bad = 0;
  for (const auto id : mask.ids) any_bad |= bad_[id];
  if (any_bad != 0) {
    const auto first = std::find_if(mask.ids.begin(), mask.ids.end(), [&](auto id) { return bad_[id] != 0; });
    const auto [x, y] = position(static_cast<std::size_t>(first - mask.ids.begin()), mask.w);
    fail<DataError>("mask", "{}: id {} at pixel x={} y={}, expected 0..{} ({} classes) or the ignore id {}; {}",
                    path.string(), *first, x, y, classes_ - 1, classes_, ignore_index_,
                    hint_for_bad_id(*first, classes_));
  }
  for (auto& id : mask.ids) id = to_[id];
}

}  // namespace limbeck::datasets
