// What this is: a library that cuDNN takes for the GPU's driver where there is none. cuDNN wants one before it compiles a
//   kernel, for a card that is only described, too; this one says that there is no device, and yes to everything else. It is
//   put before tests that make plans and run nothing (tests/cuda/test_convolution_plans.cpp).
// What it is not: an emulation; tests/cuda_emulation is one, of the library above the driver.

namespace {

enum Result : int { kSuccess = 0, kNoDevice = 100 };

/// What handles point to. Nobody looks inside.
char something[64];

}  // namespace

extern "C" {

int cuInit(unsigned) { return kNoDevice; }
int cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return kNoDevice;
}
int cuGetProcAddress_v2(const char*, void** function, int, unsigned long long, int* status) {
  *function = nullptr;
  if (status != nullptr) *status = 1;  // no such symbol
  return kNoDevice;
}
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
/// Half of the multiprocessors of an H100: thread block clusters of two.
int cuOccupancyMaxActiveClusters(int* clusters, const void*, const void*) {
  *clusters = 66;
  return kSuccess;
}
int cuLibraryLoadData(void** library, const void*, void*, void**, unsigned, void*, void**, unsigned) {
  *library = something;
  return kSuccess;
}
int cuLibraryGetKernel(void** kernel, void*, const char*) {
  *kernel = something;
  return kSuccess;
}
int cuModuleLoadData(void** module, const void*) {
  *module = something;
  return kSuccess;
}
int cuModuleLoadDataEx(void** module, const void*, unsigned, void*, void**) {
  *module = something;
  return kSuccess;
}
int cuModuleGetFunction(void** function, void*, const char*) {
  *function = something;
  return kSuccess;
}

// What must be there and is not called, or whose results nobody reads.
#define LIMBECK_NOTHING(name) \
  int name() { return kSuccess; }
LIMBECK_NOTHING(cuCtxGetCurrent)
LIMBECK_NOTHING(cuCtxGetDevice)
LIMBECK_NOTHING(cuCtxGetLimit)
LIMBECK_NOTHING(cuCtxPopCurrent)
LIMBECK_NOTHING(cuCtxPopCurrent_v2)
LIMBECK_NOTHING(cuCtxPushCurrent)
LIMBECK_NOTHING(cuCtxPushCurrent_v2)
LIMBECK_NOTHING(cuDeviceGet)
LIMBECK_NOTHING(cuDeviceGetAttribute)
LIMBECK_NOTHING(cuDeviceGetCount)
LIMBECK_NOTHING(cuDevicePrimaryCtxRelease)
LIMBECK_NOTHING(cuDevicePrimaryCtxRelease_v2)
LIMBECK_NOTHING(cuDevicePrimaryCtxReset)
LIMBECK_NOTHING(cuDevicePrimaryCtxReset_v2)
LIMBECK_NOTHING(cuDevicePrimaryCtxRetain)
LIMBECK_NOTHING(cuFuncGetAttribute)
LIMBECK_NOTHING(cuFuncSetAttribute)
LIMBECK_NOTHING(cuGetErrorName)
LIMBECK_NOTHING(cuGetErrorString)
LIMBECK_NOTHING(cuKernelGetAttribute)
LIMBECK_NOTHING(cuKernelGetFunction)
LIMBECK_NOTHING(cuKernelSetAttribute)
LIMBECK_NOTHING(cuLaunchCooperativeKernel)
LIMBECK_NOTHING(cuLaunchKernel)
LIMBECK_NOTHING(cuLaunchKernelEx)
LIMBECK_NOTHING(cuLibraryGetModule)
LIMBECK_NOTHING(cuLibraryLoadFromFile)
LIMBECK_NOTHING(cuLibraryUnload)
LIMBECK_NOTHING(cuLinkAddData)
LIMBECK_NOTHING(cuLinkAddData_v2)
LIMBECK_NOTHING(cuLinkAddFile)
LIMBECK_NOTHING(cuLinkAddFile_v2)
LIMBECK_NOTHING(cuLinkComplete)
LIMBECK_NOTHING(cuLinkCreate)
LIMBECK_NOTHING(cuLinkCreate_v2)
LIMBECK_NOTHING(cuLinkDestroy)
LIMBECK_NOTHING(cuMemcpyDtoH)
LIMBECK_NOTHING(cuMemcpyDtoH_v2)
LIMBECK_NOTHING(cuModuleGetGlobal)
LIMBECK_NOTHING(cuModuleGetGlobal_v2)
LIMBECK_NOTHING(cuModuleLoadFatBinary)
LIMBECK_NOTHING(cuModuleUnload)
LIMBECK_NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
LIMBECK_NOTHING(cuOccupancyMaxPotentialClusterSize)
LIMBECK_NOTHING(cuStreamGetCtx)
LIMBECK_NOTHING(cuStreamSynchronize)
LIMBECK_NOTHING(cuTensorMapEncodeIm2col)
LIMBECK_NOTHING(cuTensorMapEncodeTiled)
#undef LIMBECK_NOTHING

}  // extern "C"
