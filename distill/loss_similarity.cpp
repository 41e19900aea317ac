// The losses over similarities as terms of a configuration.
#include "core/autograd.h"
#include "core/log.h"
#include "distill/batch_similarity_kd.h"
#include "distill/check_pair.h"
#include "distill/csd_kd.h"
#include "distill/inter_channel_kd.h"
#include "distill/inter_class_kd.h"
#include "distill/local_kd.h"
#include "distill/loss_makers.h"
#include "distill/pairwise_kd.h"
#include "ops/softmax.h"

namespace limbeck::distill {
namespace {

class CsdKdLoss final : public Loss {
 public:
  explicit CsdKdLoss(CsdKdOptions options) : options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return csd_kd(student, teacher, options_);
  }
  [[nodiscard]] std::string type() const override { return "CsdKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("csd_kd tau={}", format_short(options_.tau));
  }

 private:
  CsdKdOptions options_;
};

class PairwiseKdLoss final : public Loss {
 public:
  explicit PairwiseKdLoss(PairwiseKdOptions options) : options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return pairwise_kd(student, teacher, options_);
  }
  [[nodiscard]] bool equal_channels() const override { return false; }
  [[nodiscard]] std::string type() const override { return "PairwiseKd"; }
  [[nodiscard]] std::string describe() const override {
    const std::string pool = options_.scale > 0 ? fmt::format("scale={}", format_short(options_.scale))
                                                : fmt::format("kernel={}", options_.kernel);
    return fmt::format("pairwise_kd {} detach_norm={} (sum/(N*M^2))", pool, options_.detach_norm);
  }

 private:
  PairwiseKdOptions options_;
};

class BatchSimilarityKdLoss final : public Loss {
 public:
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return batch_similarity_kd(student, teacher);
  }
  [[nodiscard]] bool equal_channels() const override { return false; }
  [[nodiscard]] std::string type() const override { return "BatchSimilarityKd"; }
  [[nodiscard]] std::string describe() const override { return "batch_similarity_kd (sum/N^2)"; }
};

class InterChannelKdLoss final : public Loss {
 public:
  explicit InterChannelKdLoss(InterChannelKdOptions options) : options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return inter_channel_kd(student, teacher, options_);
  }
  [[nodiscard]] std::string type() const override { return "InterChannelKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("inter_channel_kd (sum/(C*N{}))", options_.divide_by_n_squared ? "^2" : "");
  }

 private:
  InterChannelKdOptions options_;
};

class IcsdLoss final : public Loss {
 public:
  explicit IcsdLoss(IcsdOptions options) : options_(options) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    return icsd(student, teacher, options_);
  }
  [[nodiscard]] std::string type() const override { return "Icsd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("icsd tau={} mode={}", format_short(options_.tau), name_of(options_.mode));
  }

 private:
  IcsdOptions options_;
};

class LocalKdLoss final : public Loss {
 public:
  explicit LocalKdLoss(bool probabilities) : probabilities_(probabilities) {}
  Tensor forward(const Tensor& student, const Tensor& teacher, const Tensor&) override {
    if (!probabilities_) return local_kd(student, teacher);
    check_pair("local_kd", student, teacher);  // local_kd itself sees probabilities without history
    Tensor t;
    {
      const NoGradGuard off;
      t = ops::softmax(teacher);
    }
    return local_kd(ops::softmax(student), t);
  }
  [[nodiscard]] bool equal_channels() const override { return probabilities_; }
  [[nodiscard]] std::string type() const override { return "LocalKd"; }
  [[nodiscard]] std::string describe() const override {
    return fmt::format("local_kd on={} (mean over pairs)", probabilities_ ? "probabilities" : "features");
  }

 private:
  bool probabilities_;
};

}  // namespace

std::shared_ptr<Loss> make_csd_kd(const Config& term) {
  return std::make_shared<CsdKdLoss>(CsdKdOptions{.tau = term.get_in_range<double>("tau", 4.0, 1e-3, 1e3)});
}

std::shared_ptr<Loss> make_pairwise_kd(const Config& term) {
  // Two published codes; single options override what the variant sets.
  const bool cirkd = term.choice("variant", "skd", {"skd", "cirkd"}) == "cirkd";
  PairwiseKdOptions options;
  options.kernel = term.get_in_range<std::int64_t>("kernel", 2, 1, 1 << 16);
  options.scale = term.get_in_range<double>("scale", cirkd || options.kernel != 2 ? 0.0 : 0.5, 0.0, 1.0);
  options.detach_norm = term.get<bool>("detach_norm", !cirkd);
  return std::make_shared<PairwiseKdLoss>(options);
}

std::shared_ptr<Loss> make_batch_similarity_kd(const Config&) { return std::make_shared<BatchSimilarityKdLoss>(); }

std::shared_ptr<Loss> make_inter_channel_kd(const Config& term) {
  return std::make_shared<InterChannelKdLoss>(
      InterChannelKdOptions{.divide_by_n_squared = term.get<bool>("divide_by_n_squared", false)});
}

std::shared_ptr<Loss> make_icsd(const Config& term) {
  IcsdOptions options;
  options.tau = term.get_in_range<double>("tau", 1.0, 1e-3, 1e3);
  options.mode = parse_icsd_mode(term.choice(
      "mode", "paper_norm", {"paper_norm", "row_norm", "paper_raw", "image_raw", "image_norm", "official_code"}));
  return std::make_shared<IcsdLoss>(options);
}

std::shared_ptr<Loss> make_local_kd(const Config& term) {
  return std::make_shared<LocalKdLoss>(term.choice("on", "probabilities", {"probabilities", "features"}) ==
                                       "probabilities");
}

}  // namespace limbeck::distill
