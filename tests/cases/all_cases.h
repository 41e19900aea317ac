// What this is: the explicit list of all OpCase families. One function per file of tests/cases/.
#pragma once

#include <vector>

#include "tests/harness/op_case.h"

namespace limbeck::test {

std::vector<OpCase> elementwise_cases();
std::vector<OpCase> reduce_cases();
std::vector<OpCase> matmul_cases();
std::vector<OpCase> copy_cases();  // cast, clone, reshape, permute, concat, slice, pad2d
std::vector<OpCase> dropout_cases();
std::vector<OpCase> conv2d_cases();
std::vector<OpCase> depthwise_cases();
std::vector<OpCase> conv_transpose2d_cases();
std::vector<OpCase> batch_norm_cases();
std::vector<OpCase> pool2d_cases();
std::vector<OpCase> interpolate_cases();
std::vector<OpCase> softmax_cases();
std::vector<OpCase> cross_entropy_cases();
std::vector<OpCase> pixel_kd_cases();
std::vector<OpCase> channel_kd_cases();
std::vector<OpCase> attention_kd_cases();  // and psd_kd
std::vector<OpCase> pairwise_kd_cases();
std::vector<OpCase> batch_similarity_kd_cases();
std::vector<OpCase> inter_channel_kd_cases();
std::vector<OpCase> csd_kd_cases();
std::vector<OpCase> ifvd_cases();
std::vector<OpCase> ofd_kd_cases();
std::vector<OpCase> local_kd_cases();
std::vector<OpCase> ka_autoencoder_loss_cases();
std::vector<OpCase> icsd_cases();
std::vector<OpCase> feature_mse_cases();
std::vector<OpCase> ka_adapt_cases();
std::vector<OpCase> ka_affinity_cases();

/// All of the above, by family name.
struct CaseFamily {
  const char* name;
  std::vector<OpCase> (*cases)();
};
inline constexpr CaseFamily kFamilies[] = {
    {"elementwise", elementwise_cases},
    {"reduce", reduce_cases},
    {"matmul", matmul_cases},
    {"copy", copy_cases},
    {"dropout", dropout_cases},
    {"conv2d", conv2d_cases},
    {"depthwise", depthwise_cases},
    {"conv_transpose2d", conv_transpose2d_cases},
    {"batch_norm", batch_norm_cases},
    {"pool2d", pool2d_cases},
    {"interpolate", interpolate_cases},
    {"softmax", softmax_cases},
    {"cross_entropy", cross_entropy_cases},
    {"pixel_kd", pixel_kd_cases},
    {"channel_kd", channel_kd_cases},
    {"attention_kd", attention_kd_cases},
    {"pairwise_kd", pairwise_kd_cases},
    {"batch_similarity_kd", batch_similarity_kd_cases},
    {"inter_channel_kd", inter_channel_kd_cases},
    {"csd_kd", csd_kd_cases},
    {"ifvd", ifvd_cases},
    {"ofd_kd", ofd_kd_cases},
    {"local_kd", local_kd_cases},
    {"ka_autoencoder_loss", ka_autoencoder_loss_cases},
    {"icsd", icsd_cases},
    {"feature_mse", feature_mse_cases},
    {"ka_adapt", ka_adapt_cases},
    {"ka_affinity", ka_affinity_cases},
};

}  // namespace limbeck::test
