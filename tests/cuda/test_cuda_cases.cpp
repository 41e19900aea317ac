// Runs the families of tests/cases on the GPU, real or emulated, against the f64 reference on the CPU.
#include <doctest/doctest.h>

#include <string_view>

#include "core/cuda.h"
#include "tests/cases/all_cases.h"
#include "tests/cuda/missing.h"

using namespace limbeck;

namespace {

constexpr Device kGpu{DeviceType::kCuda, 0};

void check_missing(const test::OpCase& c) {
  CAPTURE(c.op);
  Generator g(1234);
  std::vector<Tensor> inputs;
  for (const Tensor& t : c.inputs(g)) {
    inputs.push_back((is_floating(t.dtype()) ? t.copy_as(DType::kF32) : t).to(kGpu));
  }
  CHECK_THROWS_WITH_AS(static_cast<void>(c.forward(inputs)), doctest::Contains("no CUDA kernel"), Error);
}

void check_family(const char* name) {
  if (cuda::device_count() == 0) {
    MESSAGE("skipped: ", cuda::describe_devices());
    return;
  }
  for (const auto& family : test::kFamilies) {
    if (std::string_view(family.name) != name) continue;
    for (const auto& c : family.cases()) {
      if (test::is_missing_on_cuda(c.op)) {
        check_missing(c);
      } else {
        test::check_case_on(kGpu, c);
      }
    }
    return;
  }
  FAIL("no such family");
}

}  // namespace

TEST_SUITE_BEGIN("cuda_cases");

#define LIMBECK_FAMILY_TEST(family) \
  TEST_CASE("cases of " #family " on cuda:0") { check_family(#family); }
LIMBECK_FAMILY_TEST(elementwise)
LIMBECK_FAMILY_TEST(reduce)
LIMBECK_FAMILY_TEST(matmul)
LIMBECK_FAMILY_TEST(copy)
LIMBECK_FAMILY_TEST(dropout)
LIMBECK_FAMILY_TEST(conv2d)
LIMBECK_FAMILY_TEST(depthwise)
LIMBECK_FAMILY_TEST(conv_transpose2d)
LIMBECK_FAMILY_TEST(batch_norm)
LIMBECK_FAMILY_TEST(pool2d)
LIMBECK_FAMILY_TEST(interpolate)
LIMBECK_FAMILY_TEST(softmax)
LIMBECK_FAMILY_TEST(cross_entropy)
LIMBECK_FAMILY_TEST(pixel_kd)
LIMBECK_FAMILY_TEST(channel_kd)
LIMBECK_FAMILY_TEST(attention_kd)
LIMBECK_FAMILY_TEST(pairwise_kd)
LIMBECK_FAMILY_TEST(batch_similarity_kd)
LIMBECK_FAMILY_TEST(inter_channel_kd)
LIMBECK_FAMILY_TEST(csd_kd)
LIMBECK_FAMILY_TEST(ifvd)
LIMBECK_FAMILY_TEST(ofd_kd)
LIMBECK_FAMILY_TEST(local_kd)
LIMBECK_FAMILY_TEST(ka_autoencoder_loss)
LIMBECK_FAMILY_TEST(icsd)
LIMBECK_FAMILY_TEST(feature_mse)
LIMBECK_FAMILY_TEST(ka_adapt)
LIMBECK_FAMILY_TEST(ka_affinity)

TEST_CASE("every family is run on cuda:0") {
  CHECK(std::size(test::kFamilies) == 28);  // the list above
}

TEST_SUITE_END();
