// The losses over attention maps as terms of a configuration.
#include <algorithm>
#include <utility>

#include "core/log.h"
#include "distill/attention_kd.h"
#include "distill/loss_makers.h"
#include "ops/interpolate.h"

namespace limbeck::distill {
namespace {

class AttentionKdLoss final : public Loss {
 public:
  explicit AttentionKdLoss(AttentionKdOptions options) : options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return attention_kd(student, teacher, options_);
  }
  [[nodiscard]] bool equal_channels() const override { return false; }
  [[nodiscard]] std::string type() const override { return "AttentionKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("attention_kd form={}", name_of(options_.form));
  }

 private:
  AttentionKdOptions options_;
};

/// Compares how attention changes between the tap of the term, further taps, and the logits.
class PsdKdLoss final : public Loss {
 public:
  explicit PsdKdLoss(std::vector<TapPair> more) : more_(std::move(more)) {}
  Tensor forward(const Tensor&, const Tensor&, const Tensor&) override {
    fail("psd_kd", "compares several taps; call evaluate()");
  }
  Tensor evaluate(const LossInputs& in) override {
    std::vector<Tensor> students{in.student};
    std::vector<Tensor> teachers{in.teacher};
    students.insert(students.end(), in.more_student.begin(), in.more_student.end());
    teachers.insert(teachers.end(), in.more_teacher.begin(), in.more_teacher.end());
    // Attention maps are subtracted, so all of them need one size: that of the smallest.
    std::array<std::int64_t, 2> size{in.student.size(2), in.student.size(3)};
    for (const auto* maps : {&students, &teachers}) {
      for (const Tensor& map : *maps) {
        if (map.size(2) * map.size(3) < size[0] * size[1]) size = {map.size(2), map.size(3)};
      }
    }
    for (auto* maps : {&students, &teachers}) {
      for (Tensor& map : *maps) map = ops::resize_bilinear(map, size, false);
    }
    return psd_kd(students, teachers);
  }
  [[nodiscard]] std::vector<TapPair> more_taps() const override { return more_; }
  [[nodiscard]] bool equal_channels() const override { return false; }
  [[nodiscard]] std::string type() const override { return "PsdKd"; }
  [[nodiscard]] std::string describe() const override {
    std::string taps;
    for (const TapPair& pair : more_) taps += fmt::format(" '{}' <- '{}'", pair.student, pair.teacher);
    return fmt::format("psd_kd over this tap and{}, maps resized to the smallest", taps);
  }

 private:
  std::vector<TapPair> more_;
};

}  // namespace

std::shared_ptr<Loss> make_attention_kd(const Config& term) {
  AttentionKdOptions options;
  options.form = parse_attention_form(term.choice("form", "mean_square", {"mean_square", "norm", "columns"}));
  return std::make_shared<AttentionKdLoss>(options);
}

std::shared_ptr<Loss> make_psd_kd(const Config& term) {
  const auto students = term.get("more_student", std::vector<std::string>{"logits"});
  const auto teachers = term.get("more_teacher", std::vector<std::string>{"logits"});
  if (students.size() != teachers.size() || students.empty()) {
    term.reject("more_student",
                fmt::format("{} student taps and {} teacher taps, expected as many of both, at least one",
                            students.size(), teachers.size()));
  }
  std::vector<TapPair> more;
  for (std::size_t i = 0; i < students.size(); ++i) more.push_back({students[i], teachers[i]});
  return std::make_shared<PsdKdLoss>(std::move(more));
}

}  // namespace limbeck::distill
