// What this is: the frozen encoder of a feature autoencoder behind a tap of the teacher, so that distillation terms can
//   ask for the tap "code"; and the entries of an autoencoder's file that tie it to its teacher.
// What it is not: the autoencoder (models/autoencoder.h) or its training.
// Read next: distill/distiller.h.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "models/autoencoder.h"
#include "models/model.h"

namespace limbeck::distill {

/// The tap under which the Distiller offers the encoder's output.
inline constexpr const char* kCodeTap = "code";

/// A short text that differs between networks whose weights differ: checksum and count of all parameters and buffers,
/// with their names, shapes and types. The counters of batch norms do not take part; weight files may lack them.
/// Shapes: none
[[nodiscard]] std::string teacher_fingerprint(const models::Model& teacher);

/// What models::save_autoencoder() is to write besides: "teacher" (the network's name), "teacher_tap" and
/// "teacher_fingerprint".
/// Shapes: none
[[nodiscard]] std::map<std::string, std::string> autoencoder_metadata(const models::Model& teacher,
                                                                      const std::string& tap);

/// E of a KA autoencoder and the tap of the teacher that it reads.
/// Formula: code = E(teacher[tap]), eval mode, no gradient
/// Shapes:  those of models::FeatureEncoder
/// Source:  He et al., CVPR 2019, section 3.2
struct TeacherCode {
  std::shared_ptr<models::FeatureEncoder> encoder;
  std::string tap;
  std::string file = {};  ///< where the encoder came from; for logs

  /// Channels and stride of the code, given those of the tap.
  [[nodiscard]] models::TapInfo info(const models::TapInfo& source) const;
};

/// The encoder of a file of models::save_autoencoder() (or of the folder of its run), frozen.
/// Shapes: none
/// Throws: WeightsError if the file was made for another teacher, or does not say for which.
[[nodiscard]] std::shared_ptr<TeacherCode> load_teacher_code(const std::filesystem::path& path,
                                                             const models::Model& teacher);

}  // namespace limbeck::distill
