// What this is: the one list of all families of OpCases: tests/cases/FAMILY.cpp defines FAMILY_cases(). Declarations, the table and
//   the test cases of the CPU (tests/test_op_cases.cpp) and of the GPU (tests/cuda/test_cuda_cases.cpp) are made from it.
//   tests/CMakeLists.txt names the files.
#pragma once

#include <vector>

#include "tests/harness/op_case.h"

// Some families hold several ops: copy also cast, clone, reshape, permute, concat, slice and pad2d; attention_kd also psd_kd.
#define LIMBECK_CASE_FAMILIES(X)                                                                                    \
  X(elementwise)                                                                                                    \
  X(reduce) X(matmul) X(copy) X(dropout) X(conv2d) X(depthwise) X(conv_transpose2d) X(batch_norm) X(pool2d)         \
      X(interpolate) X(softmax) X(cross_entropy) X(pixel_kd) X(channel_kd) X(attention_kd) X(pairwise_kd)           \
          X(batch_similarity_kd) X(inter_channel_kd) X(csd_kd) X(ifvd) X(ofd_kd) X(local_kd) X(ka_autoencoder_loss) \
              X(icsd) X(feature_mse) X(ka_adapt) X(ka_affinity)

namespace limbeck::test {

#define LIMBECK_DECLARE_CASES(family) std::vector<OpCase> family##_cases();
LIMBECK_CASE_FAMILIES(LIMBECK_DECLARE_CASES)
#undef LIMBECK_DECLARE_CASES

/// All of the above, by family name.
struct CaseFamily {
  const char* name;
  std::vector<OpCase> (*cases)();
};
#define LIMBECK_CASE_ENTRY(family) {#family, family##_cases},
inline constexpr CaseFamily kFamilies[] = {LIMBECK_CASE_FAMILIES(LIMBECK_CASE_ENTRY)};
#undef LIMBECK_CASE_ENTRY

}  // namespace limbeck::test
