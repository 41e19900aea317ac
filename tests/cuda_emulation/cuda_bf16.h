// What this is: the two intrinsics of CUDA's cuda_bf16.h that limbeck uses; see cuda_runtime.h beside it.
#pragma once

#include <cuda_runtime.h>

struct __nv_bfloat16 {
  unsigned short bits;
};

/// To nearest even; every NaN becomes 0x7FFF, as on the device.
inline __nv_bfloat16 __float2bfloat16_rn(float v) {
  const unsigned u = __float_as_uint(v);
  if ((u & 0x7FFFFFFFU) > 0x7F800000U) return {0x7FFF};
  return {static_cast<unsigned short>((u + 0x7FFFU + ((u >> 16U) & 1U)) >> 16U)};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
