#include "datasets/kept.h"

#include <mutex>
#include <utility>

namespace limbeck::datasets {
namespace {

class Kept final : public Dataset {
 public:
  explicit Kept(std::shared_ptr<const Dataset> source)
      : source_(std::move(source)),
        read_(std::make_unique<std::once_flag[]>(source_->size())),
        samples_(source_->size()) {}

  [[nodiscard]] std::size_t size() const override { return source_->size(); }
  [[nodiscard]] std::string name(std::size_t index) const override { return source_->name(index); }
  [[nodiscard]] const ClassInfo& classes() const override { return source_->classes(); }
  [[nodiscard]] Target target() const override { return source_->target(); }
  [[nodiscard]] Sample load(std::size_t index) const override {
    if (index >= samples_.size()) return source_->load(index);  // for the error
    std::call_once(read_[index], [&] { samples_[index] = source_->load(index); });
    return samples_[index];
  }

 private:
  std::shared_ptr<const Dataset> source_;
  std::unique_ptr<std::once_flag[]> read_;
  mutable std::vector<Sample> samples_;
};

}  // namespace

std::shared_ptr<const Dataset> keep_in_memory(std::shared_ptr<const Dataset> dataset) {
  return std::make_shared<Kept>(std::move(dataset));
}

}  // namespace limbeck::datasets
