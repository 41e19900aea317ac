// Intra-class variation as a term of a configuration: brings the labels to the size of the maps.
#include "core/log.h"
#include "distill/ifvd.h"
#include "distill/loss_makers.h"
#include "ops/interpolate.h"

namespace limbeck::distill {
namespace {

class IfvdLoss final : public Loss {
 public:
  explicit IfvdLoss(IfvdOptions options) : options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor& labels) override {
    LIMBECK_CHECK(labels.defined(), "ifvd", "no labels; this loss compares pixels with the centre of their class");
    return ifvd(student, teacher, ops::resize_nearest(labels, {student.size(2), student.size(3)}), options_);
  }
  [[nodiscard]] bool equal_channels() const override { return false; }
  [[nodiscard]] std::string type() const override { return "Ifvd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("ifvd (sum/(N*H*W)), labels resized nearest, ignore {}", options_.ignore_index);
  }

 private:
  IfvdOptions options_;
};

}  // namespace

std::shared_ptr<Loss> make_ifvd(const Config& term) {
  return std::make_shared<IfvdLoss>(
      IfvdOptions{.ignore_index = term.get_in_range<std::int64_t>("ignore_index", 255, -1, 255)});
}

}  // namespace limbeck::distill
