// What this is: the names of other projects' weight files, translated into this one's; and a list of names a user may write.
// What it is not: reading files or comparing shapes (models/weights.h).
// Read next: models/weight_names.cpp, one table per code base.
//
// Note [published names]
//   torchvision                    the same names; an auxiliary head is left out where the network has none
//   wrappers                       module., model., net. in front of all names; backbone. where the network has no backbone of its own
//   tonylins' MobileNetV2          flat: "features.2.conv.3.weight" for torchvision's "features.2.conv.1.0.weight"
//   jfzhang95's DeepLabV3+         aspp.aspp1.atrous_conv, aspp.global_avg_pool.1, decoder.last_conv.N (with and without its dropout
//                                  layers); MobileNetV2 flat, and a second time as low_level_features, high_level_features
//   VainF's DeepLabV3 and V3+      classifier.classifier.N; MobileNetV2 as low_level_features, high_level_features
//   mmsegmentation                 decode_head.psp_modules, .aspp_modules, .image_pool, .bottleneck, .c1_bottleneck, .sep_bottleneck,
//                                  .conv_seg, auxiliary_head
//   the CWD experiments' PSPNet    pspmodule.stages, head, dsn; scales of batch norm become |gamma| + 1e-5, which is what they stand for there
// The third and fourth come with a MobileNetV2 that pads before the expansion (Note [padding] in models/mobilenet_v2.h), the third's with
//   a dilation pattern of its own: published_form().
// A dictionary below state_dict, model_state, ... is found by core/torch_file.h.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "nn/module.h"

namespace limbeck::models {

/// Removes a prefix that all names share and that `own`, the network, does not have; `removed` says which.
/// Shapes: any
[[nodiscard]] nn::StateDict without_wrapper(nn::StateDict file, const nn::StateDict& own, std::string& removed);

/// `file` under the names of `own`, the network, as far as a table of Note [published names] knows them. Other names stay.
/// Entries that a rule leaves out are added to `ignored`.
/// Shapes: any
[[nodiscard]] nn::StateDict with_our_names(nn::StateDict file, const nn::StateDict& own,
                                           std::vector<std::string>& ignored);

/// Options of the network that a file's names tell, although its shapes do not.
struct PublishedForm {
  std::string origin;    ///< whose network, for messages
  std::string padding;   ///< as in ModelSpec
  std::string dilation;  ///< as in ModelSpec; empty: the usual one
};
/// The form of a file that holds jfzhang95's or VainF's network with a MobileNetV2; nothing for any other file.
/// Shapes: any
[[nodiscard]] std::optional<PublishedForm> published_form(const nn::StateDict& file);

/// A text file that says which tensor of a weight file goes where. One pair of names per line, "THEIRS OURS" or "THEIRS: OURS";
/// a * at the end of both stands for any rest of a name; OURS "-" leaves the tensor out; # starts a comment.
///   head.psp.conv1.0.weight  classifier.stages.0.0.weight
///   encoder.*                backbone.*
///   ema_step                 -
/// An exact name wins over a pattern, a longer pattern over a shorter one. Names that no line matches stay as they are.
class WeightMap {
 public:
  /// Throws: WeightsError naming file, line and what is wrong there.
  [[nodiscard]] static WeightMap read(const std::filesystem::path& path);
  [[nodiscard]] static WeightMap parse(const std::string& text, const std::string& source);

  /// What a line did to a tensor; a line that matched nothing appears once with `theirs` empty.
  struct Use {
    int line = 0;
    std::string pattern;
    std::string theirs;
    std::string ours;
  };
  /// Renames the entries of `file`. Lines may be written with or without `wrapper`, a prefix that was removed from all names.
  /// Throws: WeightsError if two tensors would get the same name.
  [[nodiscard]] nn::StateDict rename(const nn::StateDict& file, const std::string& wrapper,
                                     std::vector<Use>& uses) const;
  [[nodiscard]] const std::string& source() const noexcept { return source_; }

 private:
  struct Line {
    int number = 0;
    std::string theirs;  // without the *
    std::string ours;
    bool pattern = false;
  };
  [[nodiscard]] const Line* find(const std::string& name, const std::string& wrapper) const;
  std::vector<Line> lines_;
  std::string source_;
};

}  // namespace limbeck::models
